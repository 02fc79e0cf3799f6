"""Open files: descriptors, the raw file over an inode, CPython's own buffers on top; no paths here."""

from __future__ import annotations

import errno
import heapq
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from pyfakefs.fake_file import FakeFile

from pytest_rerunsafe.world.files_ledger import Ledger
from pytest_rerunsafe.world.files_reads import Aspect
from pytest_rerunsafe.world.files_tree import content_of, fail, is_directory

FIRST_DESCRIPTOR = 100_000
"""Above all real ones, so that each number tells whose it is."""
BLOCK_SIZE = 4096
"""What file systems on Linux report as st_blksize: the size of CPython's binary buffer."""


_SYNCED = getattr(os, "O_SYNC", 0) | getattr(os, "O_DSYNC", 0)
"""Flags with which each write is synced."""


def is_ours(fd: object) -> bool:
    """Whether a descriptor is one of the fake file system."""
    return isinstance(fd, int) and fd >= FIRST_DESCRIPTOR


def repeated(failure: OSError) -> OSError:
    """The same failure raised once more; `repeats_of` the first one tells it."""
    again = OSError(*failure.args)
    failure.__dict__.setdefault("_repeats", []).append(again)
    return again


def repeats_of(failure: BaseException) -> list[BaseException]:
    """What was raised later for the same reason."""
    return list(failure.__dict__.get("_repeats", []))


class OpenFile:
    """An open file description: the inode, the position and what may be done."""

    __slots__ = (
        "can_read",
        "can_write",
        "failure",
        "holders",
        "inode",
        "is_append",
        "is_dropped",
        "is_synced",
        "position",
    )

    def __init__(self, inode: FakeFile, flags: int) -> None:
        access = flags & os.O_ACCMODE
        self.inode = inode
        self.position = 0
        self.can_read = access != os.O_WRONLY
        self.can_write = access != os.O_RDONLY
        self.is_append = bool(flags & os.O_APPEND)
        self.is_synced = bool(flags & _SYNCED)
        self.is_dropped = False
        self.failure: OSError | None = None
        """Why a write failed. A disk that is full stays so while a buffer is flushed again, which CPython does on `close`."""
        self.holders = 0

    def get_object(self) -> FakeFile:
        """The inode; the name is the one that pyfakefs asks for."""
        return self.inode


class Descriptors:
    """The open files by their numbers; the lowest free number is taken, as the kernel does."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._files: dict[int, OpenFile] = {}
        self._free: list[int] = []

    def __contains__(self, fd: object) -> bool:
        return is_ours(fd)

    @property
    def has_open(self) -> bool:
        """Whether any file is open."""
        return bool(self._files)

    def get(self, fd: int) -> OpenFile:
        file = self._files.get(fd)
        if file is None:
            fail(errno.EBADF)
        return file

    def holds(self, fd: int, file: OpenFile) -> bool:
        return self._files.get(fd) is file

    def add(self, file: OpenFile) -> int:
        fd = heapq.heappop(self._free) if self._free else FIRST_DESCRIPTOR + len(self._files)
        self.put(fd, file)
        return fd

    def put(self, fd: int, file: OpenFile) -> None:
        self._files[fd] = file
        file.holders += 1

    def replace(self, fd: int, file: OpenFile) -> None:
        """Let a given number mean this file, as `dup2` does."""
        for number in range(FIRST_DESCRIPTOR + len(self._files) + len(self._free), fd):
            heapq.heappush(self._free, number)
        if fd in self._files:
            self.close(fd)
        if fd in self._free:
            self._free.remove(fd)
            heapq.heapify(self._free)
        self.put(fd, file)

    def close(self, fd: int) -> None:
        self.get(fd).holders -= 1
        del self._files[fd]
        heapq.heappush(self._free, fd)

    def drop(self) -> None:
        """Forget all open files; what their buffers still hold goes nowhere."""
        for file in self._files.values():
            file.is_dropped = True
        self._files.clear()
        self._free.clear()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, another process has no files open; afterwards those of this one are open as before."""
        before = self._files, self._free
        self._files, self._free = {}, []
        try:
            yield
        finally:
            self.drop()
            self._files, self._free = before

    # --- reading and writing ------------------------------------------------------------------

    def read(self, file: OpenFile, count: int, position: int | None = None) -> bytes:
        _check(file.can_read and not is_directory(file.inode), file)
        start = file.position if position is None else position
        content = content_of(file.inode)
        self._ledger.read(file.inode, content)
        stop = len(content) if count < 0 else start + count
        data = bytes(content[start:stop])
        if position is None:
            file.position += len(data)
        return data

    def write(self, file: OpenFile, data: bytes, position: int | None = None) -> int:
        if file.is_dropped:
            return len(data)
        _check(file.can_write, file)
        start = file.position if position is None else position
        if file.is_append:
            self._ledger.saw(file.inode, Aspect.STATUS)
            start = file.inode.stat_result.st_size
        if data:
            if file.failure is not None:
                raise repeated(file.failure)
            try:
                self._ledger.write(file.inode, start, data)
            except OSError as error:
                file.failure = error
                raise
            if file.is_synced:
                self._ledger.sync(file.inode)
        if position is None:
            file.position = start + len(data)
        return len(data)

    def resize(self, file: OpenFile, size: int) -> None:
        if size < 0 or not file.can_write:
            fail(errno.EINVAL)
        if not file.is_dropped:
            self._ledger.resize(file.inode, size)

    def seek(self, file: OpenFile, offset: int, whence: int) -> int:
        if whence == os.SEEK_END:
            self._ledger.saw(file.inode, Aspect.STATUS)
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: file.position, os.SEEK_END: file.inode.stat_result.st_size}
        if whence not in starts or starts[whence] + offset < 0:
            fail(errno.EINVAL)
        file.position = starts[whence] + offset
        return file.position


def _check(is_allowed: bool, file: OpenFile) -> None:
    if not is_allowed:
        fail(errno.EISDIR if is_directory(file.inode) else errno.EBADF)


class RawFile(io.RawIOBase):
    """What `io.FileIO` is for a real file: each write is durable at once."""

    name: Any
    closefd = False

    def __init__(self, descriptors: Descriptors, fd: int, name: object, mode: str, *, closefd: bool) -> None:
        self._descriptors = descriptors
        self._file = descriptors.get(fd)
        self._fd = fd
        self.name = name
        self.mode = mode
        self.closefd = closefd

    def _checked(self) -> OpenFile:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._file

    def fileno(self) -> int:
        self._checked()
        return self._fd

    def isatty(self) -> bool:
        self._checked()
        return False

    def readable(self) -> bool:
        return self._checked().can_read

    def writable(self) -> bool:
        return self._checked().can_write

    def seekable(self) -> bool:
        self._checked()
        return True

    def readall(self) -> bytes:
        return self._readable().read(self._file, -1)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._readable().read(self._file, len(view))
        view[: len(data)] = data
        return len(data)

    def _readable(self) -> Descriptors:
        if not self._checked().can_read:
            raise io.UnsupportedOperation("File not open for reading")
        return self._descriptors

    def write(self, data: Any) -> int:
        if not self._checked().can_write:
            raise io.UnsupportedOperation("File not open for writing")
        return self._descriptors.write(self._file, bytes(data))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._descriptors.seek(self._checked(), offset, whence)

    def tell(self) -> int:
        return self._checked().position

    def truncate(self, size: int | None = None) -> int:
        if not self._checked().can_write:
            raise io.UnsupportedOperation("File not open for writing")
        size = self._file.position if size is None else size
        self._descriptors.resize(self._file, size)
        return size

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if self.closefd and self._descriptors.holds(self._fd, self._file):
            self._descriptors.close(self._fd)

    def __repr__(self) -> str:
        return f"<RawFile name={self.name!r} mode={self.mode!r} closefd={self.closefd}>"


# --- open() -----------------------------------------------------------------------------------

_FLAGS = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "x": os.O_CREAT | os.O_EXCL,
    "a": os.O_CREAT | os.O_APPEND,
}


def flags_of(mode: str) -> int:
    """The flags that CPython passes to open(2) for a mode of `open`.

    :raises ValueError: if there is no such mode.
    """
    letters = set(mode)
    actions = letters & set(_FLAGS)
    if letters - set("rwxabt+") or len(mode) > len(letters):
        raise ValueError(f"invalid mode: {mode!r}")
    if {"b", "t"} <= letters:
        raise ValueError("can't have text and binary mode at once")
    if len(actions) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    (action,) = actions
    access = os.O_RDWR if "+" in letters else os.O_RDONLY if action == "r" else os.O_WRONLY
    return access | _FLAGS[action] | os.O_CLOEXEC


def check_arguments(mode: str, encoding: object, errors: object, newline: object) -> None:
    """As CPython checks them before it opens anything."""
    if "b" not in mode:
        return
    for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if value is not None:
            raise ValueError(f"binary mode doesn't take {'an' if name[0] == 'e' else 'a'} {name} argument")


def raw_mode(mode: str) -> str:
    """`mode` as `io.FileIO` shows it."""
    (action,) = set(mode) & set(_FLAGS)
    if "+" not in mode:
        return f"{action}b"
    return "rb+" if action == "w" else f"{action}b+"


def stacked(
    raw: RawFile, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    """The raw file under the buffers that CPython's `open` would put on it."""
    result: Any = raw
    try:
        is_line_buffered = buffering == 1 and "b" not in mode
        size = BLOCK_SIZE if buffering < 0 or buffering == 1 else buffering
        if size == 0:
            if "b" not in mode:
                raise ValueError("can't have unbuffered text I/O")
            return result  # type: ignore[no-any-return]
        result = _buffer_for(mode)(raw, size)
        if "b" not in mode:
            result = io.TextIOWrapper(result, encoding, errors, newline, is_line_buffered)
            result.mode = mode
    except BaseException:
        result.close()
        raise
    return result  # type: ignore[no-any-return]


def _buffer_for(mode: str) -> Callable[[RawFile, int], Any]:
    if "+" in mode:
        return io.BufferedRandom
    return io.BufferedReader if "r" in mode else io.BufferedWriter
