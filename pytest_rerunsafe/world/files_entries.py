"""What `os.stat` and `os.scandir` give for an inode; looks only, changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from pyfakefs.fake_file import FakeFile

from pytest_rerunsafe.world.buffers import BLOCK_SIZE
from pytest_rerunsafe.world.files_tree import is_link


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


class Entry:
    """One result of `os.scandir`."""

    def __init__(
        self, find: Callable[[str], os.stat_result], name: Any, path: Any, inode: FakeFile, full_path: str
    ) -> None:
        self._find = find
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
            return self._find(self._full_path)
        return status_of(self._inode)


class Scan:
    """The iterator that `os.scandir` returns."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Entry:
        return next(self._entries)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = iter(())
