"""The inodes of the fake file system and the real files under them; no effects and no open files here."""

from __future__ import annotations

import errno
import io
import os
import stat
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pyfakefs.fake_file import FakeDirectory, FakeFile
from pyfakefs.fake_filesystem import FakeFilesystem

from pytest_rerunsafe.model import Node, NodeKind
from pytest_rerunsafe.world.files_reads import Aspect, Reads

USER = 1000
"""The owner of the project and of all that a run makes, whoever runs pytest."""
_LINKS_AT_MOST = 40


class _Disk:
    """The real functions, kept in a class because `builtins.open` is replaced everywhere else."""

    open = staticmethod(io.FileIO)
    lstat = staticmethod(os.lstat)
    listdir = staticmethod(os.listdir)
    readlink = staticmethod(os.readlink)
    lexists = staticmethod(os.path.lexists)
    isdir = staticmethod(os.path.isdir)
    realpath = staticmethod(os.path.realpath)


class RealFile(FakeFile):
    """A file of the real disk, read when it is first looked into, or a symbolic link."""

    def __init__(self, name: str, source: str, filesystem: FakeFilesystem) -> None:
        super().__init__(name, contents="", filesystem=filesystem)
        self.source = source
        self._byte_contents = None

    @property
    def byte_contents(self) -> bytes | None:
        return bytes(content_of(self))

    def is_large_file(self) -> bool:
        return False


class RealDirectory(FakeDirectory):
    """A directory of the real disk, listed when it is first looked into."""

    def __init__(self, name: str, source: str, filesystem: FakeFilesystem, *, is_read_only: bool) -> None:
        super().__init__(name, filesystem=filesystem)
        self.source = source
        self.is_read_only = is_read_only
        self._is_listed = False

    @property
    def entries(self) -> dict[str, FakeFile]:
        if not self._is_listed:
            self._is_listed = True
            for name in sorted(_listing(self.source)):
                if name not in self._entries:
                    source = os.path.join(self.source, name)
                    attach(self, name, real_inode(self.filesystem, source, self.is_read_only))
        return self._entries


def _listing(source: str) -> Sequence[str]:
    try:
        return _Disk.listdir(source)
    except OSError:
        return ()


def real_inode(filesystem: FakeFilesystem, source: str, is_read_only: bool) -> FakeFile:
    """A fresh inode for what stands at a path of the real disk, not yet in any directory."""
    name = os.path.basename(source)
    status = _Disk.lstat(source)
    inode: FakeFile
    if stat.S_ISDIR(status.st_mode):
        inode = RealDirectory(name, source, filesystem, is_read_only=is_read_only)
    else:
        inode = RealFile(name, source, filesystem)
        inode.stat_result.st_size = status.st_size
    _dress(inode, status, is_read_only)
    inode.home = source
    return inode


def _dress(inode: FakeFile, status: os.stat_result, is_read_only: bool) -> None:
    """Who runs pytest, and how the checkout's permissions are, must not matter to a verdict."""
    result = inode.stat_result
    is_directory = stat.S_ISDIR(status.st_mode)
    if is_read_only:
        result.st_uid = result.st_gid = 0
        result.st_mode = (status.st_mode & ~0o222) | (0o555 if is_directory else 0o444)
    else:
        result.st_uid = result.st_gid = USER
        result.st_mode = status.st_mode | (0o700 if is_directory else 0o600)
    for moment in ("st_atime", "st_mtime", "st_ctime"):
        setattr(result, moment, getattr(status, moment))


def content_of(inode: FakeFile) -> bytes | bytearray:
    """The bytes of a file, or the target of a link."""
    data: Any = inode._byte_contents
    if data is None:
        data = _read(inode)
        inode._byte_contents = data
    return data  # type: ignore[no-any-return]


def _read(inode: Any) -> bytes:
    if stat.S_ISLNK(inode.stat_result.st_mode):
        return os.fsencode(_Disk.readlink(inode.source))
    with _Disk.open(inode.source) as file:
        return file.readall()


def frozen_content(inode: FakeFile) -> bytes:
    """The same as bytes that never change; copied only if the file was written since the last time."""
    data = content_of(inode)
    if isinstance(data, bytearray):
        data = bytes(data)
        inode._byte_contents = data
    return data


def thawed_content(inode: FakeFile) -> bytearray:
    """The same as a buffer to change in place."""
    data = content_of(inode)
    if not isinstance(data, bytearray):
        data = bytearray(data)
        inode._byte_contents = data  # type: ignore[assignment]
    return data


def attach(parent: FakeDirectory, name: str, inode: FakeFile) -> None:
    """Put an inode into a directory without asking for permission."""
    inode.name = name  # type: ignore[assignment]
    inode.parent_dir = weakref.ref(parent)
    if inode.stat_result.st_ino is None:
        parent.filesystem.last_ino += 1
        inode.stat_result.st_ino = parent.filesystem.last_ino
    inode.stat_result.st_dev = parent.stat_result.st_dev
    inode.stat_result.st_nlink += 1
    parent.stat_result.st_nlink += 1
    parent._entries[name] = inode


def detach(parent: FakeDirectory, name: str) -> None:
    inode = parent._entries.pop(name, None)
    if inode is not None:
        inode.stat_result.st_nlink -= 1
        parent.stat_result.st_nlink -= 1


def is_directory(inode: FakeFile) -> bool:
    return stat.S_ISDIR(inode.stat_result.st_mode)


def is_link(inode: FakeFile) -> bool:
    return stat.S_ISLNK(inode.stat_result.st_mode)


def is_pristine(inode: FakeFile, path: str) -> bool:
    """Whether it is what was mounted there, where it was mounted."""
    attributes = inode.__dict__
    return attributes.get("home") == path and not attributes.get("is_modified", False)


def walk(path: str, inode: FakeFile) -> Iterator[tuple[str, FakeFile]]:
    """The inode and all below it, with their paths."""
    yield path, inode
    if isinstance(inode, FakeDirectory):
        for name, child in list(inode.entries.items()):
            yield from walk(f"{path.rstrip('/')}/{name}", child)


def node_of(inode: FakeFile) -> Node:
    result = inode.stat_result
    mode, mtime = stat.S_IMODE(result.st_mode), result.st_mtime
    if is_directory(inode):
        return Node(kind=NodeKind.DIRECTORY, mode=mode, mtime=mtime)
    kind = NodeKind.LINK if is_link(inode) else NodeKind.FILE
    return Node(kind=kind, content=frozen_content(inode), mode=mode, mtime=mtime)


def inode_of(node: Node, filesystem: FakeFilesystem) -> FakeFile:
    """A new inode, not yet in any directory."""
    inode: FakeFile
    if node.kind is NodeKind.DIRECTORY:
        inode = FakeDirectory("", node.mode, filesystem=filesystem)
    else:
        form = stat.S_IFLNK if node.kind is NodeKind.LINK else stat.S_IFREG
        inode = FakeFile("", form | node.mode, filesystem=filesystem)
        inode._byte_contents = node.content
        inode.stat_result.st_size = len(node.content)
    put_on(node, inode)
    return inode


def put_on(node: Node, inode: FakeFile) -> None:
    """Give an inode the permissions and times of a node."""
    result = inode.stat_result
    result.st_mode = stat.S_IFMT(result.st_mode) | node.mode
    result.st_mtime = result.st_atime = result.st_ctime = node.mtime


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: the directory, the last name and what stands there now, if anything."""

    parent: FakeDirectory
    name: str
    inode: FakeFile | None
    path: str


class Tree:
    """The directory tree: where paths lead, and what was mounted."""

    def __init__(self, filesystem: FakeFilesystem) -> None:
        self.filesystem = filesystem
        self._made: dict[str, int] = {}
        self._mounts: dict[str, bool] = {}
        self._is_mounted: dict[str, bool] = {}
        self.reads: Reads | None = None
        """Where what is seen of the files is noted, if anybody wants to know."""

    @property
    def root(self) -> FakeDirectory:
        return self.filesystem.root

    def find(self, path: str, *, follow: bool = True) -> Place:
        """Where the path leads, by the kernel's rules.

        :raises OSError: if a directory on the way is missing, is none, or may not be entered.
        """
        if not path:
            fail(errno.ENOENT, path)
        names = _names(path if path.startswith("/") else f"{self.filesystem.cwd}/{path}")
        trail: list[FakeDirectory] = [self.root]
        reads = self.reads
        links_left = _LINKS_AT_MOST
        while names:
            name = names.pop()
            if name == "..":
                trail = trail[:-1] or trail
                continue
            inode = trail[-1].entries.get(name)
            if reads is not None:
                reads.see(f"{self.path_of(trail[-1]).rstrip('/')}/{name}", Aspect.FORM)
            if inode is not None and is_link(inode) and (names or follow):
                links_left -= 1
                names += self._redirect(inode, trail, path, links_left)
            elif isinstance(inode, FakeDirectory):
                _check_search(inode, names, path)
                trail.append(inode)
            elif names:
                fail(errno.ENOENT if inode is None else errno.ENOTDIR, path)
            else:
                return Place(trail[-1], name, inode, f"{self.path_of(trail[-1]).rstrip('/')}/{name}")
        return self._directory_place(trail)

    def _redirect(self, link: FakeFile, trail: list[FakeDirectory], path: str, links_left: int) -> list[str]:
        if not links_left:
            fail(errno.ELOOP, path)
        target = os.fsdecode(bytes(content_of(link)))
        if target.startswith("/"):
            del trail[1:]
        return _names(target)

    def _directory_place(self, trail: list[FakeDirectory]) -> Place:
        if len(trail) == 1:
            return Place(self.root, "", self.root, "/")
        parent, inode = trail[-2], trail[-1]
        name = str(inode.name)
        return Place(parent, name, inode, f"{self.path_of(parent).rstrip('/')}/{name}")

    def path_of(self, inode: FakeFile) -> str:
        """The path of an inode that has one name; `` if it was removed."""
        names: list[str] = []
        while inode is not self.root:
            parent = inode.parent_dir() if inode.parent_dir else None
            if parent is None or parent._entries.get(inode.name) is not inode:
                return ""
            names.append(str(inode.name))
            inode = parent
        return "/" + "/".join(reversed(names))

    def saw(self, inode: FakeFile, aspects: Aspect) -> None:
        """Something of an inode is seen. What stands nowhere was taken away, which was noted."""
        if self.reads is None:
            return
        if inode.stat_result.st_nlink > 1 and not is_directory(inode):
            self.reads.lose()  # what is done to one name shows at another
        if path := self.path_of(inode):
            self.reads.see(path, aspects)

    def standing(self, path: str) -> FakeFile | None:
        """What stands at a path in which no link is followed, or nothing."""
        inode: FakeFile | None = self.root
        for name in reversed(_names(path)):
            if not isinstance(inode, FakeDirectory):
                return None
            inode = inode.entries.get(name)
        return inode

    def parent_of(self, path: str) -> FakeDirectory:
        parent = self.standing(os.path.dirname(path))
        if not isinstance(parent, FakeDirectory):
            fail(errno.ENOTDIR, path)
        return parent

    # --- what is mounted ----------------------------------------------------------------------

    def mount(self, path: str, *, is_read_only: bool) -> None:
        """Show a real directory at its own path; what is mounted above it stays visible around it."""
        self._mounts[path] = is_read_only
        parent = self.make_directories(os.path.dirname(path))
        name = os.path.basename(path)
        parent.entries.pop(name, None)
        attach(parent, name, self._real(path))

    def make_directories(self, path: str, mode: int = 0o777) -> FakeDirectory:
        """The directory at the path, made with those above it if need be, as part of what is mounted."""
        parent, made = self.root, ""
        for name in reversed(_names(path)):
            made = f"{made}/{name}"
            inode = parent.entries.get(name)
            if not isinstance(inode, FakeDirectory):
                self._made[made] = mode
                inode = self._make(made)
                attach(parent, name, inode)
            parent = inode
        return parent

    def is_mounted(self, path: str) -> bool:
        """Whether anything was mounted at the path."""
        if path not in self._is_mounted:
            real = any(path == root or path.startswith(f"{root}/") for root in self._mounts)
            self._is_mounted[path] = path == "/" or path in self._made or (real and _Disk.lexists(path))
        return self._is_mounted[path]

    def mounted(self, path: str) -> FakeFile:
        """A fresh inode for what was mounted at a path."""
        return self._make(path) if path in self._made else self._real(path)

    def _make(self, path: str) -> FakeDirectory:
        inode = FakeDirectory("", self._made[path], filesystem=self.filesystem)
        inode.stat_result.st_mtime = inode.stat_result.st_ctime = inode.stat_result.st_atime = 0.0
        inode.home = path
        return inode

    def _real(self, path: str) -> FakeFile:
        deepest = max((root for root in self._mounts if f"{path}/".startswith(f"{root}/")), key=len)
        return real_inode(self.filesystem, path, self._mounts[deepest])


def _check_search(directory: FakeDirectory, names: list[str], path: str) -> None:
    is_open_to_all = directory.stat_result.st_mode & 0o111 == 0o111
    if names and not is_open_to_all and not directory.has_permission(stat.S_IXUSR):
        fail(errno.EACCES, path)


def _names(path: str) -> list[str]:
    """The parts of a path, last first."""
    return [name for name in reversed(path.split("/")) if name and name != "."]


def fail(code: int, path: str | None = None) -> NoReturn:
    raise OSError(code, os.strerror(code), path)


def mounts(project: Path, read_only: Sequence[Path]) -> list[tuple[str, bool]]:
    """What to mount, outer directories first, each once; the flag says read-only."""
    found = {_Disk.realpath(path): True for path in read_only}
    found[_Disk.realpath(project)] = False
    known = [item for item in found.items() if _Disk.isdir(item[0])]
    return sorted(known, key=lambda item: (item[0].count("/"), item[0]))
