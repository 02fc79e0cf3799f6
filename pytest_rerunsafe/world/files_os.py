"""What user code gets for `os`, `io` and `fcntl`: arguments as CPython takes them, then a system call."""

from __future__ import annotations

import _io
import errno
import fcntl
import functools
import io
import math
import os
import stat
import time
import types
from collections.abc import Callable, Iterator
from typing import IO, Any

from pyfakefs.fake_file import FakeFile
from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_io import FakeIoModule
from pyfakefs.fake_os import FakeOsModule

from pytest_rerunsafe.world.buffers import (
    BLOCK_SIZE,
    FIRST_DESCRIPTOR,
    RawFile,
    check_arguments,
    flags_of,
    raw_mode,
    stacked,
)
from pytest_rerunsafe.world.files_calls import DEVICES, Calls
from pytest_rerunsafe.world.files_tree import fail, is_directory, is_link

_REAL = types.SimpleNamespace(open=io.open)
_OF_PYTHON = ("makedirs", "removedirs", "renames", "walk", "_walk", "fwalk", "_fwalk", "fdopen")
"""Functions of `os` that CPython builds from system calls: its own code runs, on our calls."""


def is_ours(fd: object) -> bool:
    """Whether a descriptor is one of the fake file system."""
    return isinstance(fd, int) and fd >= FIRST_DESCRIPTOR


def _only_ours(function: Callable[..., Any]) -> Callable[..., Any]:
    """Leave descriptors of the real process (pipes, sockets, the terminal) to the real function."""
    real = getattr(os, function.__name__, None)

    @functools.wraps(function)
    def choose(self: WorldOs, fd: Any, *arguments: Any, **keywords: Any) -> Any:
        if real is not None and isinstance(fd, int) and not is_ours(fd):
            return real(fd, *arguments, **keywords)
        return function(self, fd, *arguments, **keywords)

    return choose


class _Entry:
    """One result of `os.scandir`."""

    def __init__(self, world: WorldOs, name: Any, path: Any, inode: FakeFile, full_path: str) -> None:
        self._world = world
        self._inode = inode
        self._full_path = full_path
        self.name = name
        self.path = path

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def inode(self) -> int:
        return int(self._inode.stat_result.st_ino or 0)

    def is_symlink(self) -> bool:
        return is_link(self._inode)

    def is_junction(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._has_form(stat.S_IFDIR, follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._has_form(stat.S_IFREG, follow_symlinks)

    def _has_form(self, form: int, follow_symlinks: bool) -> bool:
        try:
            return stat.S_IFMT(self.stat(follow_symlinks=follow_symlinks).st_mode) == form
        except FileNotFoundError:
            return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if follow_symlinks and is_link(self._inode):
            return self._world.stat(self._full_path)
        return status_of(self._inode)


class _Scan:
    """The iterator that `os.scandir` returns."""

    def __init__(self, entries: Iterator[_Entry]) -> None:
        self._entries = entries

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> _Entry:
        return next(self._entries)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())


def status_of(inode: FakeFile) -> os.stat_result:
    """The result of stat(2), as CPython's own type."""
    result: Any = inode.stat_result
    nanoseconds = {
        "st_atime": result._st_atime_ns,
        "st_mtime": result._st_mtime_ns,
        "st_ctime": result._st_ctime_ns,
    }
    head = (result.st_mode, result.st_ino or 0, result.st_dev, result.st_nlink, result.st_uid, result.st_gid)
    seconds = tuple(value // 10**9 for value in nanoseconds.values())
    more: dict[str, Any] = {name: value / 1e9 for name, value in nanoseconds.items()}
    more |= {f"{name}_ns": value for name, value in nanoseconds.items()}
    more |= {"st_blksize": BLOCK_SIZE, "st_blocks": result.st_blocks}
    return os.stat_result((*head, result.st_size, *seconds), more)


class WorldOs(FakeOsModule):
    """The module `os`: what is not here or in pyfakefs is the real one's."""

    @staticmethod
    def dir() -> list[str]:
        own = [name for name in vars(WorldOs) if not name.startswith("_") and hasattr(os, name)]
        return sorted({*FakeOsModule.dir(), *own} - {"dir"})

    def __init__(self, filesystem: FakeFilesystem) -> None:
        super().__init__(filesystem)
        self._calls: Calls = filesystem.patcher.calls  # type: ignore[attr-defined]
        self._python = self._functions_of_python()
        for name in self.dir():  # CPython compares functions by identity: `func is os.lstat`
            self.__dict__[name] = getattr(self, name, None)

    def _functions_of_python(self) -> dict[str, Any]:
        namespace = {**vars(os), "path": self.path}
        namespace |= {name: getattr(self, name) for name in self.dir() if name not in _OF_PYTHON}
        for name in _OF_PYTHON:
            real = vars(os).get(name)
            if real is not None:
                own = types.FunctionType(real.__code__, namespace, name, real.__defaults__, real.__closure__)
                own.__kwdefaults__ = real.__kwdefaults__
                namespace[name] = own
        return namespace

    def _path(self, path: Any, dir_fd: int | None = None) -> str:
        text = os.fsdecode(path)
        if dir_fd is None or text.startswith("/"):
            return text
        directory = self._calls.tree.path_of(self._calls.descriptors.get(dir_fd).inode)
        return f"{directory}/{text}"

    def _attempt(self, kind: str, path: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call whose first argument is the path."""
        return self._calls.attempt(kind, path, call, path, *arguments)

    # --- open files ---------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # type: ignore[override]
        text = self._path(path, dir_fd)
        if text in DEVICES:
            return os.open(text, flags, mode)
        return int(self._attempt("open", text, self._calls.open, flags, mode))

    @_only_ours
    def close(self, fd: int) -> None:
        self._calls.descriptors.close(fd)

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
        if offset + count > file.inode.stat_result.st_size:
            self._calls.descriptors.resize(file, offset + count)

    @_only_ours
    def fsync(self, fd: int) -> None:
        self._calls.descriptors.get(fd)

    @_only_ours
    def fdatasync(self, fd: int) -> None:
        self._calls.descriptors.get(fd)

    @_only_ours
    def fstat(self, fd: int) -> os.stat_result:
        return status_of(self._calls.descriptors.get(fd).inode)

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

    # --- names --------------------------------------------------------------------------------

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._attempt("mkdir", self._path(path, dir_fd), self._calls.mkdir, mode)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._attempt("rmdir", self._path(path, dir_fd), self._calls.rmdir)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._attempt("unlink", self._path(path, dir_fd), self._calls.unlink)

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:  # type: ignore[override]
        self._attempt("unlink", self._path(path, dir_fd), self._calls.unlink)

    def rename(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        target = self._path(dst, dst_dir_fd)
        self._attempt("rename", self._path(src, src_dir_fd), self._calls.rename, target)

    def replace(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        target = self._path(dst, dst_dir_fd)
        self._attempt("replace", self._path(src, src_dir_fd), self._calls.rename, target)

    def symlink(
        self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: int | None = None
    ) -> None:
        path = self._path(dst, dir_fd)
        self._calls.attempt("symlink", path, self._calls.symlink, os.fsdecode(src), path)

    def link(
        self,
        src: Any,
        dst: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool | None = True,
    ) -> None:
        target = self._path(dst, dst_dir_fd)
        call = functools.partial(self._calls.link, follow=bool(follow_symlinks))
        self._attempt("link", self._path(src, src_dir_fd), call, target)

    def mknod(self, path: Any, mode: int = 0o600, device: int = 0, *, dir_fd: int | None = None) -> None:  # type: ignore[override]
        self._attempt("mknod", self._path(path, dir_fd), self._calls.mknod, mode)

    def mkfifo(self, path: Any, mode: int = 0o666, *, dir_fd: int | None = None) -> None:
        self._attempt("mkfifo", self._path(path, dir_fd), self._calls.mknod, stat.S_IFIFO)

    def truncate(self, path: Any, length: int) -> None:
        if isinstance(path, int):
            self.ftruncate(path, length)
        else:
            self._attempt("truncate", self._path(path), self._calls.truncate, length)

    def makedirs(self, name: Any, mode: int = 0o777, exist_ok: bool | None = False) -> None:
        if exist_ok and self.path.isdir(name):
            return
        self._python["makedirs"](name, mode, bool(exist_ok))

    def removedirs(self, name: Any) -> None:
        self._python["removedirs"](name)

    def renames(self, old: Any, new: Any) -> None:
        self._python["renames"](old, new)

    def fdopen(self, fd: int, *arguments: Any, **keywords: Any) -> Any:
        return self._python["fdopen"](fd, *arguments, **keywords)

    # --- attributes ---------------------------------------------------------------------------

    def stat(self, path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:  # type: ignore[override]
        if FakeOsModule.use_original or (isinstance(path, int) and not is_ours(path)):
            return os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if isinstance(path, int):
            return self.fstat(path)  # type: ignore[no-any-return]
        text = self._path(path, dir_fd)
        inode = self._calls.inode(text, follow=follow_symlinks)
        if text.endswith("/") and not is_directory(inode):
            fail(errno.ENOTDIR, text)
        return status_of(inode)

    def lstat(self, path: Any, *, dir_fd: int | None = None) -> os.stat_result:  # type: ignore[override]
        return self.stat(path, dir_fd=dir_fd, follow_symlinks=False)

    def readlink(self, path: Any, *, dir_fd: int | None = None) -> Any:  # type: ignore[override]
        inode = self._calls.inode(self._path(path, dir_fd), follow=False)
        if not is_link(inode):
            fail(errno.EINVAL, os.fsdecode(path))
        target = inode.byte_contents or b""
        return target if isinstance(path, bytes) else os.fsdecode(target)

    def chmod(self, path: Any, mode: int, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> None:
        def change(path: Any) -> None:
            self._calls.chmod(self._calls.inode(path, follow=follow_symlinks), mode)

        if isinstance(path, int):
            self.fchmod(path, mode)
        else:
            self._attempt("chmod", self._path(path, dir_fd), change)

    @_only_ours
    def fchmod(self, fd: int, mode: int) -> None:
        self._calls.chmod(self._calls.inode(fd), mode)

    def utime(  # type: ignore[override]
        self,
        path: Any,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        accessed, modified = _nanoseconds(times, ns)

        def change(path: Any) -> None:
            self._calls.utime(self._calls.inode(path, follow=follow_symlinks), accessed, modified)

        if isinstance(path, int):
            change(path)
        else:
            self._attempt("utime", self._path(path, dir_fd), change)

    def chown(
        self, path: Any, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> None:
        """A user may give nothing away, and to himself only what he has."""
        result = self.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if uid not in (-1, result.st_uid) or gid not in (-1, result.st_gid):
            fail(errno.EPERM, os.fsdecode(path) if not isinstance(path, int) else None)

    def statvfs(self, path: Any) -> os.statvfs_result:
        """A large and empty disk, the same on every machine."""
        blocks, names = 2**28, 2**24
        sizes = (BLOCK_SIZE, BLOCK_SIZE, blocks, blocks, blocks, names, names, names)
        return os.statvfs_result((*sizes, 0, 255))

    def getuid(self) -> int:
        """The real one: it is looked up in the real password database."""
        return os.getuid()

    def getgid(self) -> int:
        return os.getgid()

    # --- directories --------------------------------------------------------------------------

    def listdir(self, path: Any = ".") -> list[Any]:
        path = "." if path is None else path
        names = self._names_in("listdir", path)
        return [os.fsencode(name) for name in names] if isinstance(path, bytes) else names

    def _names_in(self, kind: str, path: Any) -> list[str]:
        if isinstance(path, int):
            return self._calls.names_in(path)
        return list(self._attempt(kind, self._path(path), self._calls.names_in))

    def scandir(self, path: Any = ".") -> Any:
        path = "." if path is None else path
        names = self._names_in("scandir", path)
        directory: Any = self._calls.inode(path if isinstance(path, int) else self._path(path))
        return _Scan(self._entry(path, directory, name) for name in names if name in directory.entries)

    def _entry(self, path: Any, directory: Any, name: str) -> _Entry:
        full_path = f"{self._calls.tree.path_of(directory)}/{name}"
        if isinstance(path, int):
            return _Entry(self, name, name, directory.entries[name], full_path)
        shown = os.fsencode(name) if isinstance(path, bytes) else name
        joined = os.path.join(os.fspath(path), shown)
        return _Entry(self, shown, joined, directory.entries[name], full_path)

    def walk(self, *arguments: Any, **keywords: Any) -> Any:
        return self._python["walk"](*arguments, **keywords)

    def fwalk(self, *arguments: Any, **keywords: Any) -> Any:
        return self._python["fwalk"](*arguments, **keywords)


def _nanoseconds(times: tuple[float, float] | None, ns: tuple[int, int] | None) -> tuple[int, int]:
    if times is not None and ns is not None:
        raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
    if ns is not None:
        return ns
    accessed, modified = times if times is not None else (time.time(), time.time())
    return _from_seconds(accessed), _from_seconds(modified)


def _from_seconds(seconds: float) -> int:
    fraction, whole = math.modf(seconds)
    return int(whole) * 10**9 + int(fraction * 1e9)


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
