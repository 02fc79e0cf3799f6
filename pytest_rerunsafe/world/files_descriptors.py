"""The part of `os` that works on descriptors: ours on the fake files, all others on what they really are."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from typing import Any

from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_os import FakeOsModule

from pytest_rerunsafe.world.buffers import FIRST_DESCRIPTOR, is_ours
from pytest_rerunsafe.world.files_calls import Calls
from pytest_rerunsafe.world.files_reads import Aspect
from pytest_rerunsafe.world.files_tree import fail

_STANDARD = range(3)
"""Standard input, output and error: closing them does nothing, for the next attempt has them again."""


def _only_ours(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leave descriptors of the real process (pipes, sockets, the terminal) to the real function."""
    real = getattr(os, function.__name__.lstrip("_"), None)

    @functools.wraps(function)
    def choose(self: DescriptorCalls, fd: Any, *arguments: Any, **keywords: Any) -> Any:
        if real is not None and isinstance(fd, int) and not is_ours(fd):
            if fd in self._calls.hidden:
                fail(errno.EBADF)
            return real(fd, *arguments, **keywords)
        return function(self, fd, *arguments, **keywords)

    return choose


class DescriptorCalls(FakeOsModule):
    """The functions of `os` whose first argument is a descriptor."""

    def __init__(self, filesystem: FakeFilesystem) -> None:
        super().__init__(filesystem)
        self._calls: Calls = filesystem.patcher.calls  # type: ignore[attr-defined]

    def close(self, fd: int) -> None:
        if fd not in _STANDARD:
            self._close(fd)

    @_only_ours
    def _close(self, fd: int) -> None:
        self._calls.descriptors.close(fd)

    def closerange(self, low: int, high: int) -> None:
        start, end = max(low, len(_STANDARD)), min(high, FIRST_DESCRIPTOR)
        for fd in sorted(hidden for hidden in self._calls.hidden if start <= hidden < end):
            os.closerange(start, fd)
            start = fd + 1
        os.closerange(start, end)

    @_only_ours
    def read(self, fd: int, count: int) -> bytes:
        return self._calls.descriptors.read(self._calls.descriptors.get(fd), count)

    @_only_ours
    def pread(self, fd: int, count: int, offset: int) -> bytes:
        return self._calls.descriptors.read(self._calls.descriptors.get(fd), count, offset)

    @_only_ours
    def readv(self, fd: int, buffers: Any) -> int:
        total = 0
        for buffer in buffers:
            data = self.read(fd, len(buffer))
            buffer[: len(data)] = data
            total += len(data)
        return total

    @_only_ours
    def write(self, fd: int, data: Any) -> int:
        return self._calls.descriptors.write(self._calls.descriptors.get(fd), bytes(data))

    @_only_ours
    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        return self._calls.descriptors.write(self._calls.descriptors.get(fd), bytes(data), offset)

    @_only_ours
    def writev(self, fd: int, buffers: Any) -> int:
        return int(self.write(fd, b"".join(bytes(buffer) for buffer in buffers)))

    @_only_ours
    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return self._calls.descriptors.seek(self._calls.descriptors.get(fd), offset, whence)

    @_only_ours
    def ftruncate(self, fd: int, size: int) -> None:
        self._calls.descriptors.resize(self._calls.descriptors.get(fd), size)

    @_only_ours
    def posix_fallocate(self, fd: int, offset: int, count: int) -> None:
        file = self._calls.descriptors.get(fd)
        self._calls.tree.saw(file.inode, Aspect.STATUS)
        if offset + count > file.inode.stat_result.st_size:
            self._calls.descriptors.resize(file, offset + count)

    @_only_ours
    def fsync(self, fd: int) -> None:
        self._calls.ledger.sync(self._calls.descriptors.get(fd).inode)

    def sync(self) -> None:
        self._calls.ledger.synced("")

    @_only_ours
    def fdatasync(self, fd: int) -> None:
        self._calls.ledger.sync(self._calls.descriptors.get(fd).inode)

    @_only_ours
    def fstat(self, fd: int) -> os.stat_result:
        return self._calls.status(self._calls.descriptors.get(fd).inode)

    @_only_ours
    def isatty(self, fd: int) -> bool:
        return False

    @_only_ours
    def dup(self, fd: int) -> int:
        return self._calls.descriptors.add(self._calls.descriptors.get(fd))

    @_only_ours
    def dup2(self, fd: int, fd2: int, inheritable: bool = True) -> int:
        if not is_ours(fd2):
            fail(errno.EINVAL)
        if fd != fd2:
            self._calls.descriptors.replace(fd2, self._calls.descriptors.get(fd))
        return fd2

    @_only_ours
    def get_inheritable(self, fd: int) -> bool:
        return False

    @_only_ours
    def set_inheritable(self, fd: int, inheritable: bool) -> None:
        self._calls.descriptors.get(fd)

    @_only_ours
    def get_blocking(self, fd: int) -> bool:
        return True

    def pipe(self) -> tuple[int, int]:
        return os.pipe()

    @_only_ours
    def sendfile(self, out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
        if not is_ours(in_fd):
            fail(errno.EINVAL)
        return self._copy(in_fd, out_fd, count, offset, None)

    @_only_ours
    def copy_file_range(
        self, src: int, dst: int, count: int, offset_src: int | None = None, offset_dst: int | None = None
    ) -> int:
        return self._copy(src, dst, count, offset_src, offset_dst)

    def _copy(self, source: int, target: int, count: int, start: int | None, to: int | None) -> int:
        descriptors = self._calls.descriptors
        data = descriptors.read(descriptors.get(source), count, start)
        return descriptors.write(descriptors.get(target), data, to)

    @_only_ours
    def fchmod(self, fd: int, mode: int) -> None:
        self._calls.chmod(self._calls.inode(fd), mode)
