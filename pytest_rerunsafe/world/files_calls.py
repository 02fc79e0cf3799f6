"""The system calls on the fake files: each is one step, and makes at most one effect when it is done."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pyfakefs.fake_file import FakeDirectory, FakeFile
from pyfakefs.fake_filesystem import FakeFilesystem

from pytest_rerunsafe.world.buffers import Descriptors, OpenFile
from pytest_rerunsafe.world.files_entries import status_of
from pytest_rerunsafe.world.files_ledger import Ledger
from pytest_rerunsafe.world.files_reads import Aspect
from pytest_rerunsafe.world.files_tree import USER, Place, Tree, fail, is_directory, is_link

OnFailure = Callable[[str, str], None]
"""Kind and path of a file operation that raised."""
_Call = TypeVar("_Call", bound=Callable[..., Any])
DEVICES = frozenset(("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"))
"""Files that are the real ones: nothing stays in them."""
_TEMPORARY = getattr(os, "O_TMPFILE", 0)


class Calls:
    """The kernel's side: paths are absolute or relative to the working directory, each fd is one of ours."""

    def __init__(self, filesystem: FakeFilesystem) -> None:
        self.filesystem = filesystem
        self.tree = Tree(filesystem)
        self.ledger = Ledger(self.tree)
        self.descriptors = Descriptors(self.ledger)
        self.on_failure: OnFailure | None = None
        self.hidden: set[int] = set()
        """Real descriptors that are as good as closed."""

    def attempt(self, kind: str, path: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make the call; one that raises is reported before it does."""
        try:
            return call(*arguments)
        except OSError:
            if self.on_failure is not None:
                self.on_failure(kind, os.path.normpath(os.path.join(self.filesystem.cwd, path)))
            raise

    # --- open files ---------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if _TEMPORARY and flags & _TEMPORARY == _TEMPORARY:
            return self._open_unnamed(path, flags, mode)
        is_exclusive = bool(flags & os.O_EXCL and flags & os.O_CREAT)
        place = self.tree.find(path, follow=not (is_exclusive or flags & os.O_NOFOLLOW))
        inode = place.inode
        if inode is None:
            inode = self._create(place, flags, mode, path)
        elif is_exclusive:
            fail(errno.EEXIST, path)
        else:
            self._check_open(inode, flags, path)
        if flags & os.O_TRUNC and not is_directory(inode):
            self.ledger.overwrite(inode)
        file = OpenFile(inode, flags)
        return self.descriptors.add(file)

    def _create(self, place: Place, flags: int, mode: int, path: str) -> FakeFile:
        if not flags & os.O_CREAT:
            fail(errno.ENOENT, path)
        if path.endswith("/"):
            fail(errno.EISDIR, path)
        self.ledger.coming("create", place.path)
        inode = self._new_file(place.name, mode)
        self._add(place, inode)
        self.ledger.publish("create", place.path)
        return inode

    def _new_file(self, name: str, mode: int) -> FakeFile:
        permissions = mode & 0o7777 & ~self.filesystem.umask
        return FakeFile(name, stat.S_IFREG | permissions, contents="", filesystem=self.filesystem)

    def _open_unnamed(self, path: str, flags: int, mode: int) -> int:
        self.lose_sight()
        self.filesystem.confirmdir(path)
        return self.descriptors.add(OpenFile(self._new_file("", mode), flags))

    def _check_open(self, inode: FakeFile, flags: int, path: str) -> None:
        access = flags & os.O_ACCMODE
        if is_link(inode):
            fail(errno.ELOOP, path)
        if not is_directory(inode):
            if flags & os.O_DIRECTORY or path.endswith("/"):
                fail(errno.ENOTDIR, path)
        elif access != os.O_RDONLY or flags & os.O_CREAT:
            fail(errno.EISDIR, path)
        may_read = access == os.O_WRONLY or inode.has_permission(stat.S_IRUSR)
        may_write = access == os.O_RDONLY or inode.has_permission(stat.S_IWUSR)
        if not (may_read and may_write):
            fail(errno.EACCES, path)

    def truncate(self, path: str, size: int) -> None:
        inode = self._existing(path).inode
        assert inode is not None
        self._check_open(inode, os.O_WRONLY, path)
        if size < 0:
            fail(errno.EINVAL, path)
        self.ledger.resize(inode, size)

    # --- names --------------------------------------------------------------------------------

    def _existing(self, path: str, *, follow: bool = True) -> Place:
        place = self.tree.find(path, follow=follow)
        if place.inode is None:
            fail(errno.ENOENT, path)
        return place

    def _free(self, path: str) -> Place:
        place = self.tree.find(path, follow=False)
        if place.inode is not None:
            fail(errno.EEXIST, path)
        return place

    def _add(self, place: Place, inode: FakeFile) -> None:
        inode.name = place.name  # type: ignore[assignment]
        place.parent.add_entry(inode)
        self.ledger.entered(place.path, inode)

    def _remove(self, place: Place) -> None:
        assert place.inode is not None
        place.parent.remove_entry(place.name, recursive=False)
        if is_directory(place.inode):
            place.inode.stat_result.st_nlink = 0
        self.ledger.left(place.path, place.inode)

    def mkdir(self, path: str, mode: int) -> None:
        place = self._free(path)
        permissions = mode & 0o1777 & ~self.filesystem.umask
        self.ledger.coming("mkdir", place.path)
        self._add(place, FakeDirectory(place.name, permissions, filesystem=self.filesystem))
        self.ledger.publish("mkdir", place.path)

    def rmdir(self, path: str) -> None:
        place = self._existing(path, follow=False)
        inode = place.inode
        if not isinstance(inode, FakeDirectory):
            fail(errno.ENOTDIR, path)
        if not place.name:
            fail(errno.EBUSY, path)
        self.tree.saw(inode, Aspect.NAMES)
        if inode.entries:
            fail(errno.ENOTEMPTY, path)
        self.ledger.coming("rmdir", place.path)
        self._remove(place)
        self.ledger.publish("rmdir", place.path)

    def unlink(self, path: str) -> None:
        place = self._existing(path, follow=False)
        if isinstance(place.inode, FakeDirectory):
            fail(errno.EISDIR, path)
        if path.endswith("/"):
            fail(errno.ENOTDIR, path)
        self.ledger.coming("unlink", place.path)
        self._remove(place)
        self.ledger.publish("unlink", place.path)

    def rename(self, source: str, target: str) -> None:
        old = self._existing(source, follow=False)
        new = self.tree.find(target, follow=False)
        assert old.inode is not None
        if old.inode is new.inode:
            return
        self._check_rename(old, new, old.inode, source, target)
        self.ledger.coming("rename", new.path)
        if new.inode is not None:
            self._remove(new)
        self._move(old, new, old.inode)
        self.ledger.publish("rename", new.path)

    def _check_rename(self, old: Place, new: Place, inode: FakeFile, source: str, target: str) -> None:
        if isinstance(inode, FakeDirectory):
            if new.inode is not None and not isinstance(new.inode, FakeDirectory):
                fail(errno.ENOTDIR, target)
            if new.path.startswith(f"{old.path}/"):
                fail(errno.EINVAL, target)
        elif isinstance(new.inode, FakeDirectory):
            fail(errno.EISDIR, target)
        elif source.endswith("/") or target.endswith("/"):
            fail(errno.ENOTDIR, target)
        if new.inode is not None:
            self.tree.saw(new.inode, Aspect.NAMES)
        if isinstance(new.inode, FakeDirectory) and new.inode.entries:
            fail(errno.ENOTEMPTY, target)
        for parent in (old.parent, new.parent):
            if not parent.has_permission(stat.S_IWUSR | stat.S_IXUSR):
                fail(errno.EACCES, target)

    def _move(self, old: Place, new: Place, inode: FakeFile) -> None:
        links = inode.stat_result.st_nlink
        old.parent.remove_entry(old.name, recursive=False)
        inode.name = new.name  # type: ignore[assignment]
        new.parent.add_entry(inode)
        inode.stat_result.st_nlink = links
        self.ledger.left(old.path, inode)
        self.ledger.entered(new.path, inode)

    def symlink(self, target: str, path: str) -> None:
        place = self._free(path)
        self.ledger.coming("symlink", place.path)
        inode = FakeFile(place.name, stat.S_IFLNK | 0o777, contents=target, filesystem=self.filesystem)
        self._add(place, inode)
        self.ledger.publish("symlink", place.path)

    def link(self, source: str, target: str, *, follow: bool) -> None:
        self.lose_sight()
        old = self._existing(source, follow=follow)
        place = self._free(target)
        assert old.inode is not None
        if is_directory(old.inode):
            fail(errno.EPERM, source)
        self.ledger.coming("link", place.path)
        self.ledger.changed(old.inode)
        self._add(place, old.inode)
        self.ledger.publish("link", place.path)

    def mknod(self, path: str, mode: int) -> None:
        place = self._free(path)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            fail(errno.EPERM, path)
        self.ledger.coming("create", place.path)
        self._add(place, self._new_file(place.name, mode))
        self.ledger.publish("create", place.path)

    # --- attributes ---------------------------------------------------------------------------

    def status(self, inode: FakeFile) -> os.stat_result:
        self.tree.saw(inode, Aspect.STATUS)
        return status_of(inode)

    def lose_sight(self) -> None:
        """Something is seen or done that is not noted."""
        if self.tree.reads is not None:
            self.tree.reads.lose()

    def noted(self, function: Callable[..., Any], *, follow: bool) -> Callable[..., Any]:
        """A function of pyfakefs that looks at a path for itself, and at anything there."""

        def call(path: Any, *arguments: Any, **keywords: Any) -> Any:
            follows = bool(keywords.get("follow_symlinks", arguments[0] if follow and arguments else follow))
            with suppress(OSError, ValueError, TypeError):
                inode = self.inode(path if isinstance(path, int) else os.fsdecode(path), follow=follows)
                self.tree.saw(inode, Aspect.ALL)
                if inode.xattr:
                    self.lose_sight()
            reads, self.tree.reads = self.tree.reads, None
            try:
                return function(path, *arguments, **keywords)
            finally:
                self.tree.reads = reads

        return call

    def unnoted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of pyfakefs that looks at who knows what."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.lose_sight()
            return function(*arguments, **keywords)

        return call

    def inode(self, path: str | int, *, follow: bool = True) -> FakeFile:
        """The inode behind a path or a descriptor."""
        if isinstance(path, int):
            return self.descriptors.get(path).inode
        inode = self._existing(path, follow=follow).inode
        assert inode is not None
        return inode

    def has_form(self, path: Any, form: int, follow: bool) -> bool:
        """Whether something of that form (any, if 0) stands at the path."""
        try:
            inode = self.inode(path if isinstance(path, int) else os.fsdecode(path), follow=follow)
        except (OSError, ValueError):
            return False
        found = stat.S_IFMT(inode.stat_result.st_mode)
        is_odd = not isinstance(path, int) and os.fsdecode(path).endswith("/") and found != stat.S_IFDIR
        return not is_odd and form in (0, found)

    def exists(self, path: Any, check_link: bool = False) -> bool:
        is_device = not isinstance(path, int) and os.fsdecode(path) in DEVICES
        return is_device or self.has_form(path, 0, not check_link)

    def isdir(self, path: Any, follow_symlinks: bool = True) -> bool:
        return self.has_form(path, stat.S_IFDIR, follow_symlinks)

    def isfile(self, path: Any, follow_symlinks: bool = True) -> bool:
        return self.has_form(path, stat.S_IFREG, follow_symlinks)

    def islink(self, path: Any) -> bool:
        return self.has_form(path, stat.S_IFLNK, False)

    def chmod(self, inode: FakeFile, mode: int) -> None:
        result = inode.stat_result
        if result.st_uid != USER:
            fail(errno.EPERM, str(inode.name))
        if stat.S_IMODE(result.st_mode) == mode & 0o7777:
            return
        result.st_mode = stat.S_IFMT(result.st_mode) | (mode & 0o7777)
        result.st_ctime = time.time()
        self._publish_change("chmod", inode)

    def utime(self, inode: FakeFile, accessed: int, modified: int) -> None:
        """Set both times, in nanoseconds."""
        result: Any = inode.stat_result
        if result.st_uid != USER:
            fail(errno.EPERM, str(inode.name))
        self.lose_sight()
        result._st_atime_ns = accessed
        if result._st_mtime_ns != modified:
            result._st_mtime_ns = modified
            self._publish_change("utime", inode)

    def _publish_change(self, kind: str, inode: FakeFile) -> None:
        paths = self.ledger.paths_of(inode)
        if paths:
            self.ledger.changed(inode)
            self.ledger.publish(kind, paths[0])

    def names_in(self, path: str | int) -> list[str]:
        """The sorted names in a directory."""
        inode = self.inode(path)
        if not isinstance(inode, FakeDirectory):
            fail(errno.ENOTDIR, str(path))
        if not inode.has_permission(stat.S_IRUSR):
            fail(errno.EACCES, str(path))
        self.tree.saw(inode, Aspect.NAMES)
        return sorted(inode.entries)
