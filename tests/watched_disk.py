"""A real disk that is looked at after each operation, and processes that a real SIGKILL ends there.

Nothing of the plugin may be used here.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]
import builtins
import functools
import io
import os
import pickle
import shutil
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Snapshot = dict[str, tuple[str, bytes, int]]
"""Kind, content and permissions by path relative to a folder."""


def in_child(body: Callable[[], object]) -> tuple[int, Any]:
    """The exit status of a forked process and what `body` returned in it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, pickle.dumps(body()))
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    return status, pickle.loads(data) if data else None


def snapshot(folder: Path) -> Snapshot:
    return {str(path.relative_to(folder)): entry(path) for path in sorted(folder.rglob("*"))}


def entry(path: Path) -> tuple[str, bytes, int]:
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return "link", os.fsencode(os.readlink(path)), mode
    if stat.S_ISDIR(status.st_mode):
        return "directory", b"", mode
    return "file", path.read_bytes(), mode


class Killer:
    """Kills this process right after the n-th change on the disk; at 0 before whatever could make the first."""

    def __init__(self, folder: Path, left: int) -> None:
        self._folder = folder
        self._left = left
        self._last = snapshot(folder)
        self._is_looking = False

    def count(self, *_: object) -> None:
        """Take note of what leaves this process for the disk, or is about to."""
        self._left -= 1
        self._end_if_due()

    def _end_if_due(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def _look(self) -> None:
        self._is_looking = True
        now = snapshot(self._folder)
        self._is_looking = False
        if now != self._last:
            self._last = now
            self.count()

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watch(*arguments: Any, **keywords: Any) -> Any:
            if self._is_looking:
                return function(*arguments, **keywords)
            self._end_if_due()
            try:
                return function(*arguments, **keywords)
            finally:
                self._look()

        return watch


CALLS = (
    *("chmod", "ftruncate", "link", "mkdir", "open", "pwrite", "rename", "replace", "remove", "rmdir"),
    *("sendfile", "symlink", "truncate", "unlink", "write"),
)


class SortedScan:
    """`os.scandir` in the order of names: the real one is that of the disk."""

    def __init__(self, scandir: Callable[..., Any], path: Any = ".") -> None:
        with scandir(path) as entries:
            self._entries = iter(sorted(entries, key=lambda entry: entry.name))

    def __enter__(self) -> Iterator[Any]:
        return self._entries

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return self._entries


def watch_disk(killer: Killer) -> None:
    """Let CPython's own `open`, in its Python form, put its C buffers on a raw file that is watched."""

    class WatchedFile(io.FileIO):
        __init__ = killer.watched(io.FileIO.__init__)
        write = killer.watched(io.FileIO.write)
        truncate = killer.watched(io.FileIO.truncate)

    for name in ("BufferedReader", "BufferedWriter", "BufferedRandom", "TextIOWrapper"):
        setattr(_pyio, name, getattr(io, name))
    _pyio.FileIO = WatchedFile
    real_open, python_open = io.open, _pyio.open
    for name in CALLS:
        setattr(os, name, killer.watched(getattr(os, name)))

    os.scandir = functools.partial(SortedScan, os.scandir)  # type: ignore[assignment]

    def open_watched(*arguments: Any, **keywords: Any) -> Any:
        return (real_open if killer._is_looking else python_open)(*arguments, **keywords)

    _pyio.open = open_watched
    io.open = open_watched
    builtins.open = open_watched
    accessor = getattr(sys.modules["pathlib"], "_NormalAccessor", None)
    for name in (*CALLS, "open") if accessor else ():
        if name in vars(accessor):
            watched = open_watched if name == "open" else getattr(os, name)
            setattr(accessor, name, staticmethod(watched))


def watch_databases(killer: Killer) -> None:
    """Count a database's opening and closing, and what comes before each of its statements: SQLite writes past Python."""

    class WatchedConnection(sqlite3.Connection):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            killer.count()
            self.set_trace_callback(killer.count)

        def close(self) -> None:
            killer.count()
            super().close()

    sqlite3.connect = functools.partial(sqlite3.connect, factory=WatchedConnection)  # type: ignore[assignment]


def put_on_disk(folder: Path, tree: Snapshot) -> None:
    """Make a folder hold files and folders, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, (kind, content, mode) in sorted(tree.items()):
        path = folder / name
        if kind == "directory":
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)
