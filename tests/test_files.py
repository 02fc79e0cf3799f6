"""The file store: effects, states, restoring, buffering, and what user code meets in it."""

from __future__ import annotations

import codecs
import contextlib
import csv
import dbm.dumb
import errno
import fcntl
import fileinput
import glob
import gzip
import importlib
import inspect
import io
import json
import linecache
import logging
import mmap
import os
import pickle
import random
import shelve
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from os import listdir as listdir_imported_before
from os import replace as replace_imported_before
from os.path import exists as exists_imported_before
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_rerunsafe.explore.fold import apply_file_changes
from pytest_rerunsafe.model import FileChange, Files, Node, NodeKind, Splice
from pytest_rerunsafe.world.files import FileStore

REAL = SimpleNamespace(open=io.open, listdir=os.listdir)
DIRECTORY = Node(kind=NodeKind.DIRECTORY, mode=0o755)


def file_node(content: bytes) -> Node:
    return Node(kind=NodeKind.FILE, content=content)


class World:
    """A started store with all that it reported."""

    def __init__(self, store: FileStore, project: Path) -> None:
        self.store = store
        self.project = project
        self.effects: list[tuple[str, str, tuple[FileChange, ...]]] = []
        self.failures: list[tuple[str, str]] = []
        self.unsupported: list[str] = []
        self.base: Files = store.state

    def begin(self) -> None:
        self.effects.clear()
        self.failures.clear()
        self.base = self.store.state
        self.store.begin(
            lambda kind, target, changes: self.effects.append((kind, target, changes)),
            lambda kind, path: self.failures.append((kind, path)),
        )

    def restore(self, files: Files) -> None:
        self.store.restore(files)
        self.begin()

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.effects]

    @property
    def steps(self) -> list[tuple[str, str]]:
        return [(kind, target) for kind, target, _ in self.effects]

    def folded(self) -> Files:
        files = dict(self.base)
        for _, _, changes in self.effects:
            apply_file_changes(files, changes)
        return files

    def durable(self, path: str) -> bytes | None:
        """What a kill now would leave of a file."""
        node = self.folded().get(path)
        return None if node is None else node.content


def walked(world: World) -> dict[str, tuple[str, bytes, int]]:
    """All that can be seen below `/data` and the project."""
    found = {}
    for root in ("/data", str(world.project)):
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                found[path] = seen(path)
    return found


def seen(path: str) -> tuple[str, bytes, int]:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "link", os.fsencode(os.readlink(path)), mode
    if stat.S_ISDIR(status.st_mode):
        return "directory", b"", mode
    with open(path, "rb") as file:
        return "file", file.read(), mode


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A project with `in.txt` and `sub/deep/x`, and an empty `/data`."""
    project = tmp_path / "project"
    (project / "sub/deep").mkdir(parents=True)
    (project / "in.txt").write_text("real\n")
    (project / "sub/deep/x").write_text("x")
    unsupported: list[str] = []
    store = FileStore(on_unsupported=unsupported.append)
    directory = os.getcwd()
    store.start()
    try:
        store.mount(project, [Path(sys.base_prefix)])
        result = World(store, project)
        result.unsupported = unsupported
        result.restore({"/data": DIRECTORY})
        yield result
    finally:
        store.stop()
    assert os.getcwd() == directory
    assert (project / "in.txt").read_text() == "real\n"
    assert sorted(os.listdir(project)) == ["in.txt", "sub"]


# --- effects ----------------------------------------------------------------------------------


def test_an_append_carries_only_what_was_appended(world: World) -> None:
    Path("/data/log").write_text("a" * 100)
    world.begin()
    with open("/data/log", "a") as file:
        file.write("new")
    ((kind, target, changes),) = world.effects
    assert (kind, target) == ("write", "/data/log")
    assert changes == (("/data/log", Splice(offset=100, removed=0, data=b"new")),)


def test_a_write_in_place_carries_what_it_replaces(world: World) -> None:
    Path("/data/f").write_bytes(b"0123456789")
    world.begin()
    with open("/data/f", "r+b") as file:
        file.seek(8)
        file.write(b"abcd")
    assert world.effects == [
        ("write", "/data/f", (("/data/f", Splice(offset=8, removed=2, data=b"abcd")),)),
    ]


def test_the_first_change_of_a_project_file_is_the_whole_file(world: World) -> None:
    with open("in.txt", "a") as file:
        file.write("more")
    path = str(world.project / "in.txt")
    assert world.effects == [("write", path, ((path, file_node(b"real\nmore")),))]


def test_opening_for_writing_cuts_first_and_writes_later(world: World) -> None:
    Path("in.txt").write_text("new")
    Path("/data/new").write_text("new")
    assert world.kinds == ["truncate", "write", "create", "write"]


@pytest.mark.parametrize(
    "program",
    [
        lambda: open("/data/empty", "w").close(),
        lambda: open("/data/empty", "a").close(),
        lambda: Path("/data/empty").write_text(""),
        lambda: os.makedirs("/data", exist_ok=True),
        lambda: Path("/data").mkdir(parents=True, exist_ok=True),
        lambda: os.chmod("/data/empty", 0o644),
        lambda: os.truncate("/data/empty", 0),
        lambda: os.rename("/data/empty", "/data/empty"),
        lambda: os.utime("/data/empty", (1, 1)),
    ],
)
def test_what_changes_nothing_is_no_effect(world: World, program: Callable[[], None]) -> None:
    open("/data/empty", "w").close()
    os.utime("/data/empty", (1, 1))
    world.begin()
    program()
    assert world.effects == []


def test_a_rename_over_a_file_is_one_effect(world: World) -> None:
    Path("/data/a").write_text("a")
    Path("/data/b").write_text("b")
    world.begin()
    os.replace("/data/a", "/data/b")
    assert world.effects == [
        ("rename", "/data/b", (("/data/a", None), ("/data/b", file_node(b"a")))),
    ]


def test_a_tree_of_the_project_moves_in_one_effect(world: World) -> None:
    os.rename("sub", "/data/sub")
    root = str(world.project)
    assert world.steps == [("rename", "/data/sub")]
    assert {path: node.kind for path, node in world.folded().items()} == {
        "/data": NodeKind.DIRECTORY,
        "/data/sub": NodeKind.DIRECTORY,
        "/data/sub/deep": NodeKind.DIRECTORY,
        "/data/sub/deep/x": NodeKind.FILE,
        f"{root}/sub": NodeKind.ABSENT,
        f"{root}/sub/deep": NodeKind.ABSENT,
        f"{root}/sub/deep/x": NodeKind.ABSENT,
    }
    os.rename("/data/sub", "sub")
    assert world.folded() == world.store.state == {"/data": DIRECTORY}


def test_each_folder_is_an_effect(world: World) -> None:
    os.makedirs("/data/a/b/c")
    shutil.rmtree("/data/a")
    assert world.steps == [
        ("mkdir", "/data/a"),
        ("mkdir", "/data/a/b"),
        ("mkdir", "/data/a/b/c"),
        ("rmdir", "/data/a/b/c"),
        ("rmdir", "/data/a/b"),
        ("rmdir", "/data/a"),
    ]


def test_both_names_of_a_file_change(world: World) -> None:
    Path("/data/a").write_text("1")
    os.link("/data/a", "/data/b")
    world.begin()
    with open("/data/b", "a") as file:
        file.write("2")
    change = Splice(offset=1, removed=0, data=b"2")
    assert world.effects == [("write", "/data/a", (("/data/a", change), ("/data/b", change)))]
    os.unlink("/data/b")
    with open("/data/a", "a") as file:
        file.write("3")
    assert world.durable("/data/a") == b"123"
    assert world.store.state == world.folded()
    assert "/data/b" not in world.store.state


def test_writes_follow_a_renamed_file_and_leave_a_removed_one(world: World) -> None:
    with open("/data/a", "w") as file:
        os.rename("/data/a", "/data/b")
        file.write("1")
        file.flush()
        os.unlink("/data/b")
        file.write("2")
        file.flush()
    assert world.kinds == ["create", "rename", "write", "unlink"]
    assert world.folded() == {"/data": DIRECTORY}


def test_a_write_through_a_link_names_the_file(world: World) -> None:
    Path("/data/target").write_text("")
    os.symlink("target", "/data/link")
    world.begin()
    with open("/data/link", "w") as file:
        file.write("x")
    assert world.steps == [("write", "/data/target")]


def test_nothing_is_reported_outside_of_a_recording(world: World) -> None:
    world.store.end()
    Path("/data/a").write_text("a")
    with pytest.raises(FileNotFoundError):
        open("/data/none")  # noqa: SIM115
    assert (world.effects, world.failures) == ([], [])


def test_failed_operations_are_reported(world: World) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: open("/data/none"),  # noqa: SIM115
        lambda: open("none/x", "w"),  # noqa: SIM115
        lambda: os.rename("/data/none", "/data/b"),
        lambda: os.replace("/data/none", "/data/b"),
        lambda: os.unlink("/data/none"),
        lambda: os.rmdir("/data/none"),
        lambda: os.mkdir("/data"),
        lambda: os.listdir("/data/none"),
        lambda: os.scandir("/data/none"),
        lambda: Path("/data/none").read_text(),
        lambda: os.open("/data/none", os.O_RDONLY),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"\[Errno"):
            attempt()
    with pytest.raises(FileNotFoundError):
        os.stat("/data/none")
    assert not os.path.exists("/data/none")
    assert world.failures == [
        ("open", "/data/none"),
        ("open", str(world.project / "none/x")),
        ("rename", "/data/none"),
        ("replace", "/data/none"),
        ("unlink", "/data/none"),
        ("rmdir", "/data/none"),
        ("mkdir", "/data"),
        ("listdir", "/data/none"),
        ("scandir", "/data/none"),
        ("open", "/data/none"),
        ("open", "/data/none"),
    ]
    assert world.effects == []


# --- buffering --------------------------------------------------------------------------------


def test_nothing_is_durable_before_flush(world: World) -> None:
    with open("/data/f", "w") as file:
        file.write("x" * 8000)
        assert world.durable("/data/f") == b""
        file.flush()
        assert world.durable("/data/f") == b"x" * 8000
        print("line", file=file)
        assert world.durable("/data/f") == b"x" * 8000
    assert world.durable("/data/f") == b"x" * 8000 + b"line\n"
    assert world.kinds == ["create", "write", "write"]


def test_text_leaves_in_chunks_of_8_kib(world: World) -> None:
    with open("/data/f", "w") as file:
        for _ in range(3000):
            file.write("0123456\n")
    sizes = [len(change.data) for _, _, ((_, change),) in world.effects[1:] if isinstance(change, Splice)]
    assert sizes == [8192, 8192, 24000 - 2 * 8192]


def test_unbuffered_bytes_are_durable_at_once(world: World) -> None:
    with open("/data/f", "wb", buffering=0) as file:
        file.write(b"1")
        assert world.durable("/data/f") == b"1"


def test_a_dropped_file_is_flushed_on_that_line(world: World) -> None:
    json.dump({"a": 1}, open("/data/j", "w"))  # noqa: SIM115
    assert world.durable("/data/j") == b'{"a": 1}'
    open("/data/j", "a").write("x")  # noqa: SIM115
    assert world.durable("/data/j") == b'{"a": 1}x'


def test_a_kill_drops_what_was_not_flushed(world: World) -> None:
    file = open("/data/f", "w")  # noqa: SIM115
    raw = open("/data/g", "wb", buffering=0)  # noqa: SIM115
    file.write("lost")
    world.store.drop_open_files()
    before = world.store.state
    raw.write(b"late")
    file.close()
    raw.close()
    del file, raw
    assert world.store.state == before
    assert world.durable("/data/f") == b""
    with open("/data/h", "w") as other:
        assert other.fileno() >= 1000


def test_files_are_those_of_cpython(world: World) -> None:
    with open("/data/f", "w+", encoding="utf-8") as text, open("/data/g", "wb") as binary:
        assert isinstance(text, io.TextIOWrapper)
        assert isinstance(text.buffer, io.BufferedRandom)
        assert isinstance(binary, io.BufferedWriter)
        assert (text.mode, binary.mode, text.name) == ("w+", "wb", "/data/f")
        fcntl.flock(text, fcntl.LOCK_EX)
        text.write("ä\n")
        text.seek(0)
        assert text.read() == "ä\n"


@pytest.mark.parametrize("mode", ["", "rw", "z", "wbt", "r++"])
def test_a_wrong_mode_is_refused(world: World, mode: str) -> None:
    with pytest.raises(ValueError, match="mode"):
        open("/data/f", mode)  # noqa: SIM115
    assert world.effects == []


def test_modes_forbid_what_they_forbid(world: World) -> None:
    Path("/data/f").write_text("x")
    with open("/data/f") as file, pytest.raises(io.UnsupportedOperation):
        file.write("y")
    with open("/data/f", "a") as file, pytest.raises(io.UnsupportedOperation):
        file.read()
    with pytest.raises(FileExistsError):
        open("/data/f", "x")  # noqa: SIM115
    with pytest.raises(IsADirectoryError):
        open("/data")  # noqa: SIM115
    with pytest.raises(ValueError, match="closed"):
        file.write("z")


# --- states -----------------------------------------------------------------------------------


def test_restoring_brings_back_content_times_and_permissions(world: World) -> None:
    Path("/data/f").write_text("one")
    os.utime("/data/f", (5, 1234.5))
    os.chmod("/data/f", 0o600)
    os.unlink("in.txt")
    state = world.store.state
    Path("/data/f").write_text("two")
    os.chmod("/data/f", 0o644)
    Path("in.txt").write_text("new")
    shutil.rmtree("sub")
    os.chdir("/")
    world.restore(state)
    assert world.store.state == state
    status = os.stat("/data/f")
    assert (status.st_mtime, stat.S_IMODE(status.st_mode)) == (1234.5, 0o600)
    assert Path("/data/f").read_text() == "one"
    assert os.getcwd() == str(world.project)
    assert os.listdir(".") == ["sub"]
    assert Path("sub/deep/x").read_text() == "x"
    world.restore({})
    assert Path("in.txt").read_text() == "real\n"
    assert not os.path.exists("/data")


def test_a_state_never_changes_afterwards(world: World) -> None:
    with open("/data/f", "w") as file:
        file.write("1")
        file.flush()
        state = world.store.state
        file.write("2")
    assert state["/data/f"].content == b"1"
    assert world.store.state["/data/f"].content == b"12"
    with pytest.raises(TypeError):
        state["/x"] = DIRECTORY  # type: ignore[index]


def test_restoring_makes_the_folders_that_files_need(world: World) -> None:
    world.restore({"/in/put/a.csv": file_node(b"a")})
    with open("/in/put/b.csv", "w") as file:
        file.write("b")
    assert os.listdir("/in/put") == ["a.csv", "b.csv"]
    world.restore({"/in/put/a.csv": file_node(b"a")})
    assert os.listdir("/in/put") == ["a.csv"]


def test_names_of_one_file_are_two_files_after_restoring(world: World) -> None:
    Path("/data/a").write_text("1")
    os.link("/data/a", "/data/b")
    world.restore(world.store.state)
    Path("/data/a").write_text("2")
    assert Path("/data/b").read_text() == "1"


def test_a_folder_of_the_project_can_be_replaced_and_restored(world: World) -> None:
    os.chmod("sub", 0o700)
    changed = world.store.state
    os.rename("sub", "old")
    os.makedirs("sub/deep")
    Path("sub/deep/x").write_text("mine")
    replaced = world.store.state
    for state, content in ((changed, "x"), (replaced, "mine"), ({}, "x"), (replaced, "mine")):
        world.restore(state)
        assert world.store.state == state
        assert Path("sub/deep/x").read_text() == content


def test_what_two_states_share_survives_the_change_of_the_folder_around_it(world: World) -> None:
    Path("sub/same").write_text("same")
    os.unlink("sub/deep/x")
    real = world.store.state
    shutil.rmtree("sub")
    os.mkdir("sub")
    Path("sub/same").write_text("same")
    same = real[str(world.project / "sub/same")]
    os.utime("sub/same", ns=(0, int(same.mtime * 1e9)))
    fresh = {**world.store.state, str(world.project / "sub/same"): same}
    os.rmdir("/data")
    shutil.rmtree("sub")
    removed = world.store.state
    for state, expected in [(real, ["deep", "same"]), (fresh, ["same"]), (real, ["deep", "same"])] * 2:
        world.restore(state)
        assert os.listdir("sub") == expected
        assert Path("sub/same").read_text() == "same"
        assert not os.path.exists("sub/deep/x")
    world.restore(removed)
    assert os.listdir(".") == ["in.txt"]


NAMES = ["a", "b", "a/c", "b/c", "a/c/d", "l"]
PLACES = ["/data", "sub", "sub/deep"]
PATHS = st.builds("{}/{}".format, st.sampled_from(PLACES), st.sampled_from(NAMES)) | st.sampled_from(
    ["in.txt", "sub", "sub/deep", "sub/deep/x", "/data"]
)
DATA = st.binary(max_size=6)


def append(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def rewrite(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def patch(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


# Named, and looked up when they run: a function of `os` taken here would be the real one, on the real disk.
OPERATIONS = st.one_of(
    st.tuples(st.just("append"), PATHS, DATA),
    st.tuples(st.just("rewrite"), PATHS, DATA),
    st.tuples(st.just("patch"), PATHS, st.integers(0, 8), DATA),
    st.tuples(st.just("truncate"), PATHS, st.integers(0, 8)),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("unlink"), PATHS),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("mkdir"), PATHS),
    st.tuples(st.just("makedirs"), PATHS),
    st.tuples(st.just("rmtree"), PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("symlink"), PATHS, PATHS),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o700, 0o755, 0o775])),
    st.tuples(st.just("copy2"), PATHS, PATHS),
)


def perform(operation: tuple[Any, ...]) -> None:
    name, *arguments = operation
    own: dict[str, Callable[..., Any]] = {
        "append": append,
        "rewrite": rewrite,
        "patch": patch,
        "rmtree": shutil.rmtree,
        "copy2": shutil.copy2,
    }
    function = own.get(name) or getattr(os, name)
    with contextlib.suppress(OSError):
        function(*arguments)


def test_folding_the_effects_gives_the_state_and_the_state_gives_the_files(world: World) -> None:
    @settings(max_examples=200, deadline=None, database=None, derandomize=True)
    @given(st.lists(OPERATIONS, max_size=12), st.lists(OPERATIONS, max_size=6), st.integers(0, 12))
    def check(operations: list[Any], others: list[Any], stop: int) -> None:
        world.restore({"/data": DIRECTORY})
        cut: Files = world.store.state
        picture = walked(world)
        for number, operation in enumerate(operations):
            perform(operation)
            assert world.folded() == world.store.state
            if number == stop:
                cut, picture = world.store.state, walked(world)
        for operation in others:
            perform(operation)
        world.restore(cut)
        assert world.store.state == cut
        assert walked(world) == picture
        world.restore({})
        assert world.store.state == {}

    check()


# --- what user code meets ---------------------------------------------------------------------


def test_the_world_is_the_same_on_every_machine(world: World) -> None:
    assert set(os.listdir("/")) <= {"data", "tmp", *world.project.parts, *Path(sys.base_prefix).parts}
    assert not os.path.exists("/home/nobody-has-this")
    Path("/data/f").touch()
    assert stat.S_IMODE(os.stat("/data/f").st_mode) == 0o644
    with pytest.raises(PermissionError):
        open(os.path.join(sys.base_prefix, "new"), "w")  # noqa: SIM115
    with pytest.raises(PermissionError):
        os.unlink(os.__file__)
    assert world.effects[1:] == []


def test_permissions_hold_even_for_root(world: World) -> None:
    Path("/data/f").write_text("x")
    os.chmod("/data/f", 0)
    with pytest.raises(PermissionError):
        open("/data/f")  # noqa: SIM115
    os.mkdir("/data/closed", 0o500)
    with pytest.raises(PermissionError):
        open("/data/closed/f", "w")  # noqa: SIM115


def test_functions_imported_before_the_start_are_replaced(world: World) -> None:
    Path("/data/a").write_text("a")
    replace_imported_before("/data/a", "/data/b")
    assert listdir_imported_before("/data") == ["b"]
    assert exists_imported_before("/data/b")


def test_modules_imported_after_the_start_see_the_files(world: World) -> None:
    name = f"late_{random.getrandbits(32)}"
    source = (
        "import os, os.path\nfrom os import listdir\nfrom os.path import exists\nfrom pathlib import Path\n"
    )
    with REAL.open(world.project / "sub" / f"{name}.py", "w") as file:
        file.write(
            source + "def look(p):\n    return exists(p), listdir(p), Path(p).is_dir(), os.path.isdir(p)\n"
        )
    sys.path.insert(0, str(world.project / "sub"))
    try:
        module = importlib.import_module(name)
        assert module.look("/data") == (True, [], True, True)
        assert "def look" in inspect.getsource(module.look)
        assert linecache.getline(str(module.__file__), 1).startswith("import os")
    finally:
        sys.path.remove(str(world.project / "sub"))


def test_skipped_modules_keep_the_real_functions(tmp_path: Path) -> None:
    name = f"skipped_{random.getrandbits(32)}"
    (tmp_path / f"{name}.py").write_text(
        "import os\ndef save(p):\n    open(p, 'w').close()\n    return os.listdir\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module(name)
        store = FileStore(skip_modules=[name])
        store.start()
        try:
            store.mount(tmp_path, [])
            assert module.save(tmp_path / "real") is REAL.listdir
        finally:
            store.stop()
    finally:
        sys.path.remove(str(tmp_path))
    assert (tmp_path / "real").exists()
    assert "open" not in vars(module)


def test_stopping_gives_the_real_functions_back(tmp_path: Path) -> None:
    before = (open, os.listdir, io.open, Path.open, mmap.mmap, tempfile.tempdir, sys.modules["os"])
    store = FileStore()
    store.start()
    assert os.listdir is not before[1]
    store.stop()
    assert (open, os.listdir, io.open, Path.open, mmap.mmap, tempfile.tempdir, sys.modules["os"]) == before
    (tmp_path / "f").write_text("x")
    assert os.listdir(tmp_path) == ["f"]


def test_mapping_a_file_into_memory_is_reported(world: World) -> None:
    Path("/data/f").write_text("x")
    with open("/data/f", "r+b") as file, pytest.raises(OSError, match="mmap of a file is not supported"):
        mmap.mmap(file.fileno(), 0)
    assert world.unsupported == ["mmap"]
    with mmap.mmap(-1, 10) as memory:
        assert len(memory) == 10


def test_descriptors_of_the_real_process_still_work(world: World) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"through")
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"through"
    with open(os.devnull, "w") as null:
        null.write("nothing")
    assert world.effects == []


def test_descriptors(world: World) -> None:
    fd = os.open("/data/f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with pytest.raises(FileExistsError):
        os.open("/data/f", os.O_RDWR | os.O_CREAT | os.O_EXCL)
    assert os.write(fd, b"0123") == 4
    other = os.dup(fd)
    os.close(fd)
    assert os.lseek(other, 0, os.SEEK_CUR) == 4
    assert os.pread(other, 2, 1) == b"12"
    assert os.pwrite(other, b"xy", 6) == 2
    os.fsync(other)
    assert os.fstat(other).st_size == 8
    os.ftruncate(other, 2)
    os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        os.read(other, 1)
    assert caught.value.errno == errno.EBADF
    assert world.kinds == ["create", "write", "write", "sync", "truncate"]
    assert world.folded()["/data/f"] == Node(kind=NodeKind.FILE, content=b"01", mode=0o600)


def test_directories_are_listed_in_the_order_of_names(world: World) -> None:
    for name in "cab":
        Path(f"/data/{name}").touch()
    os.mkdir("/data/d")
    Path("/data/d/e").touch()
    assert os.listdir("/data") == ["a", "b", "c", "d"]
    assert [entry.name for entry in os.scandir("/data") if entry.is_file()] == ["a", "b", "c"]
    assert list(os.walk("/data")) == [("/data", ["d"], ["a", "b", "c"]), ("/data/d", [], ["e"])]
    assert sorted(glob.glob("/data/**", recursive=True))[1:] == [
        "/data/a",
        "/data/b",
        "/data/c",
        "/data/d",
        "/data/d/e",
    ]
    assert sorted(path.name for path in Path("/data").rglob("*")) == ["a", "b", "c", "d", "e"]


def test_links_lead_where_the_kernel_says(world: World) -> None:
    os.makedirs("/data/real/in")
    os.symlink("real/in", "/data/link")
    Path("/data/link/../f").write_text("beside `in`")
    assert os.path.exists("/data/real/f")
    assert os.path.realpath("/data/link") == str(Path("/data/link").resolve()) == "/data/real/in"
    os.symlink("loop", "/data/loop")
    with pytest.raises(OSError, match="Too many levels"):
        open("/data/loop")  # noqa: SIM115
    assert os.path.islink("/data/loop")
    assert not os.path.exists("/data/loop")


def test_rename_errors_are_those_of_the_kernel(world: World) -> None:
    os.makedirs("/data/d/e")
    Path("/data/f").touch()
    for source, target, code in [
        ("/data/f", "/data/d", errno.EISDIR),
        ("/data/d", "/data/f", errno.ENOTDIR),
        ("/data/d", "/data/d/e/x", errno.EINVAL),
        ("sub/deep", "/data/d", errno.ENOTEMPTY),
        ("/data/f", "/none/f", errno.ENOENT),
    ]:
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            os.rename(source, target)
        assert caught.value.errno == code
    assert world.store.state == world.folded()


def dumb_shelf(path: str) -> shelve.Shelf[str]:
    database: Any = dbm.dumb.open(path)  # noqa: SIM115
    return shelve.Shelf(database)


def test_the_standard_library_works(world: World) -> None:
    with open("/data/rows.csv", "w", newline="") as file:
        csv.writer(file).writerow(["a", "b"])
    with gzip.open("/data/rows.gz", "wt") as packed:
        packed.write("packed")
    with zipfile.ZipFile("/data/rows.zip", "w") as archive:
        archive.write("/data/rows.csv", "rows.csv")
    with open("/data/rows.pickle", "wb") as binary:
        pickle.dump({"a": 1}, binary)
    with codecs.open("/data/rows.txt", "w", "utf-16") as coded:
        coded.write("coded")
    with contextlib.closing(dumb_shelf("/data/shelf")) as shelf:
        shelf["key"] = "value"
    with gzip.open("/data/rows.gz", "rt") as packed, zipfile.ZipFile("/data/rows.zip") as archive:
        assert (packed.read(), archive.read("rows.csv")) == ("packed", b"a,b\r\n")
    assert pickle.loads(Path("/data/rows.pickle").read_bytes()) == {"a": 1}
    with codecs.open("/data/rows.txt", "r", "utf-16") as coded, fileinput.input(["/data/rows.csv"]) as lines:
        assert (coded.read(), list(lines)) == ("coded", ["a,b\n"])
    with contextlib.closing(dumb_shelf("/data/shelf")) as shelf:
        assert shelf["key"] == "value"
    assert world.folded() == world.store.state


def test_temporary_files_are_in_memory(world: World) -> None:
    assert tempfile.gettempdir() == "/tmp"
    assert world.effects == []
    with tempfile.NamedTemporaryFile() as named, tempfile.TemporaryFile() as unnamed:
        named.write(b"x")
        unnamed.write(b"x" * 100_000)
        assert os.path.exists(named.name)
    assert world.kinds in (["create", "write", "unlink"], ["create", "unlink"])
    fd, path = tempfile.mkstemp(dir="/data")
    os.close(fd)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "f").write_text("x")
    assert world.store.state == world.folded()
    assert set(world.store.state) == {"/data", path}


def test_log_handlers_write_at_each_record(world: World) -> None:
    handler = logging.FileHandler("/data/log")
    handler.emit(logging.LogRecord("name", logging.INFO, __file__, 1, "text", None, None))
    assert world.durable("/data/log") == b"text\n"
    handler.close()


def test_a_big_append_only_file_costs_no_copies(world: World) -> None:
    with open("/data/log", "w") as file:
        for number in range(1000):
            file.write(f"{number}\n")
            file.flush()
    total = sum(len(change.data) for _, _, ((_, change),) in world.effects[1:] if isinstance(change, Splice))
    assert len(world.effects) == 1001
    assert total == len(world.store.state["/data/log"].content)
    assert world.folded() == world.store.state
