"""What user code gets for `io` and `fcntl`: CPython's own buffers on files of the fake file system."""

from __future__ import annotations

import _io
import errno
import fcntl
import io
import os
import types
from collections.abc import Callable
from typing import IO, Any

from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_io import FakeIoModule

from pytest_rerunsafe.world.buffers import RawFile, check_arguments, flags_of, is_ours, raw_mode, stacked
from pytest_rerunsafe.world.files_calls import DEVICES, Calls
from pytest_rerunsafe.world.files_tree import fail, is_directory

_REAL = types.SimpleNamespace(open=io.open)


class WorldIo(FakeIoModule):
    """The module `io`: `open` gives CPython's own buffers on a file of the fake file system."""

    def __init__(self, filesystem: FakeFilesystem) -> None:
        super().__init__(filesystem)
        self._calls: Calls = filesystem.patcher.calls  # type: ignore[attr-defined]

    def open(  # type: ignore[override]
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Callable[[Any, int], int] | None = None,
    ) -> IO[Any]:
        name = file if isinstance(file, int) else os.fspath(file)
        fd = name
        if not isinstance(name, int) and os.fsdecode(name) not in DEVICES:
            fd = self._open(name, mode, (encoding, errors, newline), closefd, opener)
        if not is_ours(fd):
            return _REAL.open(fd, mode, buffering, encoding, errors, newline, closefd)  # type: ignore[no-any-return]
        return stacked(self._raw(fd, name, mode, closefd), mode, buffering, encoding, errors, newline)

    def open_code(self, path: str) -> IO[bytes]:
        """Code is imported from the real disk."""
        return _REAL.open(path, "rb")  # type: ignore[no-any-return]

    def _open(self, name: Any, mode: str, texts: tuple[Any, Any, Any], closefd: bool, opener: Any) -> int:
        flags = flags_of(mode)
        check_arguments(mode, *texts)
        if not closefd:
            raise ValueError("Cannot use closefd=False with file name")
        if opener is None:
            path = os.fsdecode(name)
            return int(self._calls.attempt("open", path, self._calls.open, path, flags, 0o666))
        fd = int(opener(name, flags))
        if fd < 0:
            raise ValueError(f"opener returned {fd}")
        return fd

    def _raw(self, fd: int, name: Any, mode: str, closefd: bool) -> RawFile:
        flags_of(mode)
        file = self._calls.descriptors.get(fd)
        if is_directory(file.inode):
            if name is not fd:
                self._calls.descriptors.close(fd)
            fail(errno.EISDIR, str(name))
        raw = RawFile(self._calls.descriptors, fd, name, raw_mode(mode), closefd=closefd)
        if "a" in mode:
            raw.seek(0, os.SEEK_END)
        return raw


class WorldCoreIo(WorldIo):
    """The module `_io`, which some of the standard library imports instead."""

    def __init__(self, filesystem: FakeFilesystem) -> None:
        super().__init__(filesystem)
        self._io_module = _io


class WorldFcntl:
    """The module `fcntl`: locks on fake files are always granted, for one process has them all."""

    @staticmethod
    def dir() -> list[str]:
        return ["fcntl", "ioctl", "flock", "lockf"]

    def __init__(self, filesystem: FakeFilesystem) -> None:
        self.filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        return getattr(fcntl, name)

    def fcntl(self, fd: Any, cmd: int, arg: Any = 0) -> Any:
        return _granted(fcntl.fcntl, fd, cmd, arg)

    def ioctl(self, fd: Any, request: int, arg: Any = 0, mutate_flag: bool = True) -> Any:
        return _granted(fcntl.ioctl, fd, request, arg, mutate_flag)

    def flock(self, fd: Any, operation: int) -> None:
        _granted(fcntl.flock, fd, operation)

    def lockf(self, fd: Any, cmd: int, *arguments: Any) -> Any:
        return _granted(fcntl.lockf, fd, cmd, *arguments)


def _granted(real: Callable[..., Any], fd: Any, *arguments: Any) -> Any:
    number = fd if isinstance(fd, int) else fd.fileno()
    return 0 if is_ours(number) else real(fd, *arguments)
