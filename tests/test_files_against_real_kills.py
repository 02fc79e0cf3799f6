"""The states that the file store reconstructs against those that real kills leave on a real disk."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import pickle
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watched_disk import Killer, Snapshot, in_child, snapshot, watch_disk

from pytest_rerunsafe.explore.fold import apply_file_changes
from pytest_rerunsafe.model import Files, Node, NodeKind
from pytest_rerunsafe.world import buffers
from pytest_rerunsafe.world.files import FileStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# --- programs: each runs in a folder that holds `in.txt`, `old/a` and `old/b` -----------------


def rewrite_with_json() -> None:
    json.dump({"done": 1}, open("in.txt", "w"))  # noqa: SIM115
    json.dump({"done": 2}, open("new.json", "w"))  # noqa: SIM115


def append_without_close() -> None:
    for number in range(3):
        open("log", "a").write(f"{number}\n")  # noqa: SIM115


def buffered_lines_and_checkpoint() -> None:
    with open("out.txt", "a") as out:
        for number in range(400):
            out.write(f"line {number} {'x' * 60}\n")
            if number % 100 == 0:
                Path("checkpoint.json").write_text(json.dumps({"lines": number}))


def large_text() -> None:
    with open("big.txt", "w") as file:
        file.write("a" * 5000)
        file.write("b" * 20_000)
        file.write("c" * 100)
        print("end", file=file)


def large_binary() -> None:
    with open("big.bin", "wb") as file:
        for size in (100, 3996, 100, 3000, 5092, 9000, 4096, 1):
            file.write(bytes([size % 251]) * size)


def unbuffered_and_line_buffered() -> None:
    with open("raw", "wb", buffering=0) as raw, open("lines", "w", buffering=1) as lines:
        for number in range(3):
            raw.write(b"%d" % number)
            lines.write(f"{number} ")
            lines.write(f"{number}\n")


def small_buffer() -> None:
    with open("small", "wb", buffering=16) as file:
        for number in range(10):
            file.write(b"%07d" % number)


def write_in_place() -> None:
    with open("in.txt", "r+") as file:
        file.read(3)
        file.seek(2)
        file.write("XYZ")
        file.seek(0, os.SEEK_END)
        file.write("end")
    with open("in.txt", "rb+") as file:
        file.seek(1)
        file.write(b"_")
        file.seek(40)
        file.write(b"far")
        file.truncate(20)


def atomic_replace() -> None:
    for number in range(3):
        with open("state.tmp", "w") as file:
            json.dump(number, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace("state.tmp", "state")


def folders() -> None:
    os.makedirs("a/b/c")
    os.makedirs("a/b", exist_ok=True)
    Path("a/b/c/f").touch()
    Path("p/q").mkdir(parents=True, exist_ok=True)
    os.removedirs("p/q")
    shutil.rmtree("a")
    shutil.rmtree("old")


def copies_and_moves() -> None:
    shutil.copy("in.txt", "copy")
    shutil.copy2("in.txt", "copy2")
    shutil.copytree("old", "new")
    shutil.move("new", "moved")
    os.rename("copy", "copy2")
    os.rename("old/a", "old/b")


def descriptors() -> None:
    fd = os.open("fd", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
    os.write(fd, b"one")
    os.write(fd, b"two")
    os.ftruncate(fd, 4)
    os.close(fd)
    os.truncate("in.txt", 5)
    os.chmod("in.txt", 0o600)
    os.chmod("in.txt", 0o600)
    with os.fdopen(os.open("fd", os.O_RDWR), "r+") as file:
        file.write("12")


def links() -> None:
    os.link("in.txt", "hard")
    os.symlink("in.txt", "soft")
    with open("soft", "a") as file:
        file.write("through the link")
    os.unlink("in.txt")
    with open("hard", "a") as file:
        file.write("!")
    os.unlink("soft")


def removed_and_renamed_while_open() -> None:
    file = open("going", "w")  # noqa: SIM115
    file.write("1")
    file.flush()
    os.rename("going", "gone")
    file.write("2")
    file.flush()
    os.unlink("gone")
    file.write("3")
    file.close()


def temporary_files() -> None:
    with tempfile.NamedTemporaryFile("w", dir=".", prefix="same", suffix="", delete=False) as file:
        file.write("data")
    os.replace(file.name, "result")
    with tempfile.TemporaryFile(dir=".") as unnamed:
        unnamed.write(b"x" * 10_000)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        os.rename(folder, "fixed")
        Path("fixed/f").write_text("f")
        os.rename("fixed", folder)


def formats() -> None:
    with open("rows.csv", "w", newline="") as file:
        csv.writer(file).writerows([[number, "x" * 50] for number in range(200)])
    with open("data.pickle", "wb") as binary:
        pickle.dump(list(range(5000)), binary)
    with zipfile.ZipFile("archive.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("name"), "content" * 10)
    with gzip.GzipFile("rows.gz", "wb", mtime=0) as packed:
        packed.write(b"row\n" * 5000)


def log_handler() -> None:
    handler = logging.FileHandler("run.log")
    for number in range(2):
        handler.emit(logging.LogRecord("name", logging.INFO, __file__, 1, f"{number}", None, None))
    handler.close()


PROGRAMS: tuple[Callable[[], None], ...] = (
    append_without_close,
    atomic_replace,
    buffered_lines_and_checkpoint,
    copies_and_moves,
    descriptors,
    folders,
    formats,
    large_binary,
    large_text,
    links,
    log_handler,
    removed_and_renamed_while_open,
    rewrite_with_json,
    small_buffer,
    temporary_files,
    unbuffered_and_line_buffered,
    write_in_place,
)


def prepare(folder: Path) -> Path:
    (folder / "old").mkdir(parents=True)
    (folder / "in.txt").write_text("the old content\n")
    (folder / "old/a").write_text("a")
    (folder / "old/b").write_text("b")
    return folder


class SameNames:
    """Temporary names that are the same in every process."""

    def __init__(self) -> None:
        self._number = 0

    def __iter__(self) -> SameNames:
        return self

    def __next__(self) -> str:
        self._number += 1
        return f"name{self._number}"


def run(program: Callable[[], None], folder: Path) -> None:
    os.chdir(folder)
    os.umask(0o022)
    tempfile._name_sequence = SameNames()  # type: ignore[attr-defined]
    program()


# --- on a real disk ---------------------------------------------------------------------------


def states_after_kills(program: Callable[[], None], folder: Path) -> Iterator[Snapshot]:
    """What is on the disk after a kill at each change, and after the whole program."""
    for number in range(1, 1000):
        place = prepare(folder / str(number))

        def killed(place: Path = place, number: int = number) -> None:
            os.umask(0o022)
            watch_disk(Killer(place, number))
            run(program, place)

        status, _ = in_child(killed)
        yield snapshot(place)
        if status == 0:
            return
        assert os.WIFSIGNALED(status)
        assert os.WTERMSIG(status) == signal.SIGKILL


# --- in the file store ------------------------------------------------------------------------


def reconstructed_states(program: Callable[[], None], folder: Path) -> list[Snapshot]:
    base = snapshot(folder)
    effects: list[Any] = []

    def recorded() -> list[Files]:
        store = FileStore()
        store.start()
        store.mount(folder, [])
        store.begin(lambda kind, target, changes: effects.append(changes), lambda kind, path: None)
        run(program, folder)
        store.end()
        states: list[Files] = [] if effects else [store.state]
        folded: dict[str, Node] = {}
        for changes in effects:
            apply_file_changes(folded, changes)
            states.append(dict(folded))
        assert states[-1] == store.state
        return states

    status, states = in_child(recorded)
    assert status == 0
    return [overlaid(base, state, folder) for state in states]


def overlaid(base: Snapshot, state: Files, folder: Path) -> Snapshot:
    result = dict(base)
    for path, node in state.items():
        name = os.path.relpath(path, folder)
        if node.kind is NodeKind.ABSENT:
            result.pop(name, None)
        else:
            result[name] = (node.kind.value, node.content, node.mode)
    return result


def distinct(states: list[Snapshot]) -> list[Snapshot]:
    """Without those that equal the one before."""
    return [state for before, state in zip([None, *states], states, strict=False) if state != before]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_each_kill_leaves_the_state_that_the_effects_give(
    program: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "BLOCK_SIZE", os.stat(tmp_path).st_blksize)
    template = prepare(tmp_path / "template")
    real = distinct(list(states_after_kills(program, tmp_path / "real")))
    ours = distinct(reconstructed_states(program, template))
    assert [sorted(state) for state in ours] == [sorted(state) for state in real]
    assert ours == real
    assert snapshot(template) == snapshot(prepare(tmp_path / "untouched"))
