"""A private folder for what must be a real file for a while, in memory where the machine has such a place; no stores here."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress

_MEMORY = "/dev/shm"
_PREFIX = "rerunsafe-sqlite-"
_YOUNG_S = 60.0
"""A folder is made first and locked then: a young one may not be yet."""


class Scratch:
    """A folder that only this process and those forked from it know. Make it before a fake file system is put on."""

    def __init__(self) -> None:
        parent = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
        for path in _abandoned(parent):
            _remove(path)
        self._path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        self.lock = _locked(self._path)
        """The descriptor whose lock lasts as long as any of the processes."""

    def of_process(self, pid: int) -> str:
        """The folder of one process, which need not be there."""
        return f"{self._path}/{pid}"

    def remove(self, pid: int | None = None) -> None:
        """Take away what a process has left; without one, all."""
        _remove(self._path if pid is None else self.of_process(pid))


def _remove(path: str) -> None:
    # `shutil` would work on the fake file system, once there is one.
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            with suppress(FileNotFoundError):  # somebody else cleans up too
                os.unlink(f"{folder}/{name}")
        with suppress(OSError):
            os.rmdir(folder)


def _locked(path: str) -> int:
    """An open descriptor of the folder, locked.

    :raises OSError: if another process has locked it, or may have.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _abandoned(parent: str) -> Iterator[str]:
    """Folders whose processes were all killed at once, so that none could clean up."""
    for name in sorted(os.listdir(parent)):
        path = os.path.join(parent, name)
        if name.startswith(_PREFIX):
            with suppress(OSError):  # somebody's, or gone meanwhile
                status = os.stat(path)
                if status.st_uid == os.getuid() and time.time() - status.st_mtime > _YOUNG_S:
                    os.close(_locked(path))
                    yield path
