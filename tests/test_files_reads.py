"""What code sees of the files is noted: where it would see something else, what it did is not taken to be the same.

Each look at the files runs in each of the worlds, watched. Where it gives something else in another world, what was noted
must not hold there; where it does hold, making its changes again must leave what running it leaves.
"""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pytest_rerunsafe.model import Files, Node, NodeKind
from pytest_rerunsafe.world.files import FileStore, Passage
from pytest_rerunsafe.world.files_reads import Aspect

NOW = 5_000.0
FILE, LINK, FOLDER, GONE = NodeKind.FILE, NodeKind.LINK, NodeKind.DIRECTORY, NodeKind.ABSENT


def node(kind: NodeKind, content: bytes = b"", mode: int = 0o644, mtime: float = 1_000.0) -> Node:
    return Node(
        kind=kind, content=content, mode=0o755 if kind is FOLDER and mode == 0o644 else mode, mtime=mtime
    )


def worlds(project: str) -> dict[str, Files]:
    """A world, and others that differ from it in one thing."""
    usual: dict[str, Node] = {
        "/data": node(FOLDER),
        "/data/file": node(FILE, b"old\ntext\n"),
        "/data/folder": node(FOLDER),
        "/data/folder/one": node(FILE, b"1"),
        "/data/folder/deep": node(FOLDER),
        "/data/other": node(FILE, b"other"),
        "/data/link": node(LINK, b"/data/file", 0o777),
    }
    others: dict[str, dict[str, Node | None]] = {
        "usual": {},
        "content": {"/data/file": node(FILE, b"new\ntext\n")},
        "size": {"/data/file": node(FILE, b"longer than it was")},
        "empty": {"/data/file": node(FILE)},
        "mode": {"/data/file": node(FILE, b"old\ntext\n", 0o444)},
        "unreadable": {"/data/file": node(FILE, b"old\ntext\n", 0o200)},
        "mtime": {"/data/file": node(FILE, b"old\ntext\n", mtime=2_000.0)},
        "no file": {"/data/file": None},
        "a folder": {"/data/file": node(FOLDER)},
        "other link": {"/data/link": node(LINK, b"/data/other", 0o777)},
        "no link": {"/data/link": None},
        "more names": {"/data/folder/two": node(FILE, b"2")},
        "no names": {"/data/folder/one": None, "/data/folder/deep": None},
        "deeper": {"/data/folder/deep/new": node(FILE, b"3")},
        "one differs": {"/data/folder/one": node(FILE, b"x")},
        "one is older": {"/data/folder/one": node(FILE, b"1", mtime=10.0)},
        "one is a folder": {"/data/folder/one": node(FOLDER)},
        "closed folder": {"/data/folder": node(FOLDER, mode=0o500)},
        "older folder": {"/data/folder": node(FOLDER, mtime=10.0)},
        "no folder": {path: None for path in usual if path.startswith("/data/folder")},
        "other differs": {"/data/other": node(FILE, b"OTHER", mtime=7.0)},
        "no other": {"/data/other": None},
        "nothing": dict.fromkeys(usual),
        "project file gone": {f"{project}/mine.txt": node(GONE, mode=0)},
        "project file changed": {f"{project}/mine.txt": node(FILE, b"changed")},
        "project has more": {f"{project}/new.txt": node(FILE, b"new")},
    }
    return {
        name: {path: found for path, found in {**usual, **changes}.items() if found is not None}
        for name, changes in others.items()
    }


def status(path: Any, **options: Any) -> tuple[Any, ...]:
    found = os.stat(path, **options)
    return (found.st_mode, found.st_size, found.st_mtime_ns, found.st_atime_ns, found.st_nlink)


def on_descriptor(look: Callable[[int], Any], flags: int = os.O_RDONLY, path: str = "/data/file") -> Any:
    fd = os.open(path, flags)
    try:
        return look(fd)
    finally:
        os.close(fd)


def text(path: str, mode: str = "r") -> Any:
    with open(path, mode) as file:
        return file.read()


def put(path: str, mode: str, content: str = "mine") -> int:
    with open(path, mode) as file:
        file.write(content)
        return file.tell()


def in_place(path: str) -> Any:
    with open(path, "r+") as file:
        file.seek(0, os.SEEK_END)
        file.write("more")
        file.seek(1)
        return file.read()


def there_and_back() -> Any:
    os.rename("/data/file", "/data/away")
    os.rename("/data/away", "/data/other")
    return text("/data/other")


def unlinked_while_open() -> str:
    with open("/data/file") as file:
        os.unlink("/data/file")
        return file.read()


def marker() -> str:
    if os.path.exists("/data/file"):
        return "done"
    put("/data/file.tmp", "w")
    os.replace("/data/file.tmp", "/data/file")
    return "made"


def chdir(path: str) -> list[str]:
    os.chdir(path)
    try:
        return sorted(os.listdir("."))
    finally:
        os.chdir(HOME[0])


def linked() -> Any:
    os.link("/data/file", "/data/second")
    put("/data/second", "a")
    return text("/data/file")


def through_directory(fd: int) -> Any:
    return os.listdir(fd), os.stat("one", dir_fd=fd).st_size


def scanned(path: str) -> list[Any]:
    with os.scandir(path) as found:
        return [(e.name, e.is_dir(), e.is_file(), e.is_symlink(), e.stat().st_mtime) for e in found]


def temporary() -> Any:
    with tempfile.NamedTemporaryFile("w+", dir="/data", delete=False) as file:
        file.write("x")
    os.replace(file.name, "/data/folder/one")


def copied() -> Any:
    shutil.copyfile("/data/file", "/data/copy")
    return shutil.copyfile("/data/folder/one", "/data/other")


def moved_tree() -> Any:
    os.rename("/data/folder", "/data/moved")
    put("/data/moved/mine", "w")


def deleted_and_made() -> Any:
    os.unlink("/data/file")
    put("/data/file", "x")


def of_paths(name: str, *paths: str) -> list[Any]:
    return [getattr(os.path, name)(path) for path in paths]


def over_a_folder() -> None:
    os.mkdir("/data/empty")
    os.rename("/data/empty", f"{D}/deep")


def utime_and_stat() -> Any:
    os.utime(F, (7.0, 8.0))
    return status(F)


def set_and_get() -> Any:
    os.setxattr(F, "user.a", b"1")
    return os.getxattr(F, "user.a")


def appended_nothing(fd: int) -> int:
    os.write(fd, b"")
    return os.lseek(fd, 0, os.SEEK_CUR)


HOME = ["/"]
F, D = "/data/file", "/data/folder"
LOOKS: dict[str, Callable[[], Any]] = {
    **{f"os.path.{name}": partial(of_paths, name, F, D, "/data/link")
       for name in ("exists", "lexists", "isfile", "isdir", "islink", "realpath", "ismount")},
    **{f"os.path.{name}": partial(of_paths, name, F)
       for name in ("getsize", "getmtime", "getatime", "getctime")},
    **{f"os.path.{name} of a folder": partial(of_paths, name, D)
       for name in ("getmtime",)},
    "os.path.samefile": lambda: os.path.samefile(F, "/data/link"),
    **{f"os.access {mode}": partial(os.access, F, mode) for mode in (os.F_OK, os.R_OK, os.W_OK)},
    "os.stat": lambda: status(F),
    "os.stat of a folder": lambda: status(D),
    "os.stat of a link": lambda: status("/data/link"),
    "os.stat of a file in a folder": lambda: status(f"{D}/one"),
    "os.lstat": lambda: status("/data/link", follow_symlinks=False),
    "os.readlink": lambda: os.readlink("/data/link"),
    "os.listdir": lambda: os.listdir(D),
    "os.listdir of the project": lambda: os.listdir(HOME[0]),
    "os.listdir of bytes": lambda: os.listdir(os.fsencode(D)),
    "os.scandir": lambda: scanned(D),
    "os.scandir of links": lambda: scanned("/data"),
    "os.walk": lambda: list(os.walk("/data")),
    "os.fwalk": lambda: [found[:3] for found in os.fwalk("/data")],
    "os.chdir": lambda: chdir(D),
    "os.open and fstat": lambda: on_descriptor(lambda fd: os.fstat(fd).st_size),
    "os.open and fstat's time": lambda: on_descriptor(lambda fd: os.fstat(fd).st_mtime),
    "os.open and lseek": lambda: on_descriptor(lambda fd: os.lseek(fd, 0, os.SEEK_END)),
    "os.open and read": lambda: on_descriptor(lambda fd: os.read(fd, 4)),
    "os.open and pread": lambda: on_descriptor(lambda fd: os.pread(fd, 2, 3)),
    "os.open of a folder": lambda: on_descriptor(through_directory, path=D),
    "os.open exclusively": lambda: on_descriptor(lambda fd: None, os.O_CREAT | os.O_EXCL | os.O_WRONLY),
    "os.open without following": lambda: on_descriptor(lambda fd: 0, os.O_NOFOLLOW, "/data/link"),
    "os.open and cut": lambda: on_descriptor(lambda fd: None, os.O_WRONLY | os.O_TRUNC),
    "os.ftruncate": lambda: on_descriptor(lambda fd: os.ftruncate(fd, 9), os.O_RDWR),
    "os.truncate": lambda: os.truncate(F, 4),
    "os.posix_fallocate": lambda: on_descriptor(lambda fd: os.posix_fallocate(fd, 0, 12), os.O_RDWR),
    "os.pwrite": lambda: on_descriptor(lambda fd: os.pwrite(fd, b"new", 0), os.O_RDWR),
    "os.open to append nothing": lambda: on_descriptor(appended_nothing, os.O_WRONLY | os.O_APPEND),
    "os.copy_file_range": lambda: on_descriptor(
        lambda fd: on_descriptor(lambda to: os.copy_file_range(fd, to, 5), os.O_WRONLY, "/data/other")),
    "os.mkdir": lambda: os.mkdir(D),
    "os.makedirs": lambda: os.makedirs(f"{D}/new/newer", exist_ok=True),
    "os.rmdir": lambda: os.rmdir(D),
    "os.rmdir within": lambda: os.rmdir(f"{D}/deep"),
    "os.unlink": lambda: os.unlink(F),
    "os.rename": lambda: os.rename(F, "/data/new"),
    "os.rename over a file": lambda: os.rename(F, "/data/other"),
    "os.rename of a folder": moved_tree,
    "os.rename over a folder": over_a_folder,
    "os.rename there and back": there_and_back,
    "os.symlink": lambda: os.symlink("/data/other", F),
    "os.link": linked,
    "os.chmod": lambda: os.chmod(F, 0o600),
    "os.utime": lambda: os.utime(F, (1_000.0, 1_000.0)),
    "os.utime of now": utime_and_stat,
    "os.umask": lambda: os.umask(os.umask(0o022)) and put("/data/made", "w"),
    "setxattr": set_and_get,
    "getxattr": lambda: os.listxattr(F),
    "unlinked while open": unlinked_while_open,
    "deleted and made": deleted_and_made,
    **{f"open {mode}": partial(text, F, mode) for mode in ("r", "rb", "r+", "a+", "w+", "x+")},
    **{f"open {mode} and write": partial(put, F, mode) for mode in ("w", "a", "x", "r+")},
    "open w and stat": lambda: (put(F, "w", ""), status(F)),
    "open a and nothing": lambda: put(F, "a", ""),
    "open a on a link": lambda: put("/data/link", "a"),
    "open r+ and more": lambda: in_place(F),
    "open in the project": lambda: text(f"{HOME[0]}/mine.txt"),
    "open of a new file in the project": lambda: put("new.txt", "x"),
    "open without buffer": lambda: open(F, "rb", buffering=0).read(3),  # noqa: SIM115
    "marker": marker,
    "Path.exists": lambda: Path(F).exists(),
    "Path.is_dir": lambda: Path(D).is_dir(),
    "Path.iterdir": lambda: sorted(map(str, Path(D).iterdir())),
    "Path.glob": lambda: sorted(map(str, Path("/data").glob("*/o*"))),
    "Path.rglob": lambda: sorted(map(str, Path("/data").rglob("*"))),
    "Path.read_text": lambda: Path(F).read_text(),
    "Path.write_text": lambda: Path(F).write_text("mine"),
    "Path.touch": lambda: Path(F).touch(),
    "Path.stat": lambda: Path(F).stat().st_mtime,
    "Path.resolve": lambda: str(Path("/data/link").resolve()),
    "Path.mkdir": lambda: Path(D).mkdir(exist_ok=True),
    "Path.owner": lambda: Path(F).stat().st_uid,
    "glob.glob": lambda: sorted(glob.glob("/data/**", recursive=True)),
    "shutil.copyfile": copied,
    "shutil.copy2": lambda: shutil.copy2(F, "/data/copy"),
    "shutil.copytree": lambda: shutil.copytree(D, "/data/copied"),
    "shutil.move": lambda: shutil.move(D, "/data/moved"),
    "shutil.rmtree": lambda: shutil.rmtree(D),
    "shutil.which": lambda: shutil.which("file", path="/data"),
    "tempfile": temporary,
    "NamedTemporaryFile that stays": lambda: os.path.exists(tempfile.mkdtemp(dir="/data")),
    "TemporaryFile": lambda: tempfile.TemporaryFile(dir="/data").fileno() > 0,  # noqa: SIM115
}  # fmt: skip
USUALLY_LOST = frozenset(
    {"os.chdir", "os.link", "os.utime", "os.utime of now", "setxattr", "shutil.copy2", "shutil.copytree",
     "Path.touch", "TemporaryFile", "os.umask"}
)  # fmt: skip
"""Looks of which more can be seen than is noted."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileStore]:
    (tmp_path / "mine.txt").write_text("mine")
    store = FileStore(skip_modules=("_pytest", "pluggy", "pytest"))
    store.start()
    store.mount(tmp_path, [])
    HOME[0] = str(tmp_path.resolve())
    monkeypatch.setattr(time, "time", lambda: NOW)
    yield store
    store.stop()


def result_of(look: Callable[[], Any]) -> Any:
    tempfile._name_sequence = iter(f"name{number}" for number in itertools.count())  # type: ignore[attr-defined]
    try:
        return look()
    except (OSError, shutil.Error, ValueError) as error:
        return type(error).__name__, getattr(error, "errno", None)


def run_in(store: FileStore, files: Files, look: Callable[[], Any]) -> tuple[Any, Passage | None]:
    store.restore(files)
    with store.watched() as passage:
        result = result_of(look)
    store.drop_open_files()
    return result, passage()


def all_of(store: FileStore) -> Any:
    """The files with their times."""
    times = store._calls.ledger.times
    return {path: (found, found.mtime, (times or {}).get(path)) for path, found in store.state.items()}


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_seen_is_noted(store: FileStore, name: str) -> None:
    look, repeats = LOOKS[name], 0
    known = worlds(HOME[0])
    ran: dict[str, tuple[Any, Passage | None, Any]] = {}
    for world, files in known.items():
        result, passage = run_in(store, files, look)
        ran[world] = result, passage, all_of(store)
    for here, (result, passage, _) in ran.items():
        for there, files in known.items():
            store.restore(files)
            view = store.view()
            if passage is None or view is None or not passage.seen.holds(view):
                continue
            repeats += here == there
            assert result == ran[there][0], f"{here} is taken for {there}"
            store.pass_again(passage)
            assert all_of(store) == ran[there][2], f"{here} is made in {there}"
    assert name in USUALLY_LOST or repeats == len(known)


def test_only_what_is_seen_matters(store: FileStore) -> None:
    known = worlds(HOME[0])
    _, passage = run_in(store, known["usual"], lambda: put("/data/new", "w"))
    assert passage is not None
    for world in ("content", "mtime", "no file", "more names", "other link", "project has more"):
        store.restore(known[world])
        view = store.view()
        assert view is not None
        assert passage.seen.holds(view), world


@pytest.mark.parametrize("change", [lambda: os.umask(0o077), lambda: os.chdir("/")])
def test_what_is_left_in_the_process_is_not_repeated(store: FileStore, change: Callable[[], Any]) -> None:
    files = worlds(HOME[0])["usual"]
    with suppress(OSError):
        assert run_in(store, files, change)[1] is None
    change()
    assert store.view() is None


@pytest.mark.parametrize("name", LOOKS)
def test_who_watches_outside_notes_it_too(store: FileStore, name: str) -> None:
    store.restore(worlds(HOME[0])["usual"])
    with store.watched() as outer:
        with store.watched() as inner:
            result_of(LOOKS[name])
        store.drop_open_files()
    outside, inside = outer(), inner()
    assert (outside is None) is (inside is None)
    if outside is not None and inside is not None:
        assert outside.nodes == inside.nodes
        assert has_seen(outside, inside)


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_made_again_counts_as_seen(store: FileStore, name: str) -> None:
    files = worlds(HOME[0])["usual"]
    _, passage = run_in(store, files, LOOKS[name])
    store.restore(files)
    if passage is None:
        return
    with store.watched() as outer:
        store.pass_again(passage)
    again = outer()
    assert again is not None
    assert has_seen(again, passage)


def has_seen(one: Passage, other: Passage) -> bool:
    """Whether whoever passed once has seen all that was seen another time."""
    return all(
        one.seen.aspects.get(path, Aspect(0)) & seen == seen for path, seen in other.seen.aspects.items()
    )
