"""What user code gets for `os`: arguments as CPython takes them, then a system call; no state here."""

from __future__ import annotations

import errno
import functools
import math
import os
import stat
import time
import types
from collections.abc import Callable
from typing import Any

from pyfakefs.fake_filesystem import FakeFilesystem
from pyfakefs.fake_os import FakeOsModule

from pytest_rerunsafe.world.buffers import BLOCK_SIZE, is_ours
from pytest_rerunsafe.world.files_calls import DEVICES
from pytest_rerunsafe.world.files_descriptors import DescriptorCalls
from pytest_rerunsafe.world.files_entries import Entry, Scan
from pytest_rerunsafe.world.files_reads import Aspect
from pytest_rerunsafe.world.files_tree import fail, is_directory, is_link

_OF_PYTHON = ("makedirs", "removedirs", "renames", "walk", "_walk", "fwalk", "_fwalk", "fdopen")
"""Functions of `os` that CPython builds from system calls: its own code runs, on our calls."""


class WorldOs(DescriptorCalls):
    """The module `os`: what is not here or in pyfakefs is the real one's."""

    @staticmethod
    def dir() -> list[str]:
        own = [
            name
            for name in {*vars(WorldOs), *vars(DescriptorCalls)}
            if not name.startswith("_") and hasattr(os, name)
        ]
        return sorted({*FakeOsModule.dir(), *own} - {"dir"})

    def __init__(self, filesystem: FakeFilesystem) -> None:
        super().__init__(filesystem)
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
        return self._calls.status(inode)

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

    def setxattr(self, *arguments: Any, **keywords: Any) -> None:
        self._calls.lose_sight()
        super().setxattr(*arguments, **keywords)

    def removexattr(self, *arguments: Any, **keywords: Any) -> None:
        self._calls.lose_sight()
        super().removexattr(*arguments, **keywords)

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
        return Scan(self._entry(path, directory, name) for name in names if name in directory.entries)

    def _entry(self, path: Any, directory: Any, name: str) -> Entry:
        full_path = f"{self._calls.tree.path_of(directory)}/{name}"
        self._calls.tree.saw(directory.entries[name], Aspect.STATUS)
        if isinstance(path, int):
            return Entry(self.stat, name, name, directory.entries[name], full_path)
        shown = os.fsencode(name) if isinstance(path, bytes) else name
        joined = os.path.join(os.fspath(path), shown)
        return Entry(self.stat, shown, joined, directory.entries[name], full_path)

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
