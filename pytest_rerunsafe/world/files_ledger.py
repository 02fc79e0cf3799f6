"""What differs from the mounted files, kept up change by change; decides nothing about file operations."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pyfakefs.fake_file import FakeDirectory, FakeFile

from pytest_rerunsafe.model import FileChange, Files, Node, NodeKind, Splice
from pytest_rerunsafe.world.files_reads import Aspect, Times
from pytest_rerunsafe.world.files_tree import (
    Tree,
    attach,
    detach,
    frozen_content,
    inode_of,
    is_pristine,
    node_of,
    put_on,
    thawed_content,
    walk,
)

OnEffect = Callable[[str, str, "tuple[FileChange, ...]"], None]
"""Kind, target path and changes of one effect."""
OnRead = Callable[[str, "bytes | bytearray"], None]
"""A path and the whole content that stands there."""
OnComing = Callable[[str, str], None]
"""Kind and target of a change that is about to be made; what it raises, the operation raises instead."""

_ABSENT = Node(kind=NodeKind.ABSENT, mode=0)
_DIRECTORY = Node(kind=NodeKind.DIRECTORY, mode=0o755)


class Ledger:
    """The difference to the mounted files and the effects that made it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.saw = tree.saw
        self.on_effect: OnEffect | None = None
        self.on_read: OnRead | None = None
        self.on_coming: OnComing | None = None
        self._held: dict[str, FakeFile] = {}
        self._gone: set[str] = set()
        self._nodes: dict[str, Node] = {}
        self._stale: dict[str, None] = {}
        self._touched: set[str] = set()
        self._snapshot: Files | None = None

    # --- what happened ------------------------------------------------------------------------

    def coming(self, kind: str, target: str) -> None:
        """The operation has been found to be possible, and will now be done."""
        if self.on_coming is not None:
            self.on_coming(kind, target)

    def _change_coming(self, kind: str, inode: FakeFile) -> None:
        if self.on_coming is not None and (paths := self.paths_of(inode)):
            self.on_coming(kind, paths[0])

    def left(self, path: str, inode: FakeFile) -> None:
        """The inode, with all below it, no longer stands at the path."""
        for below, child in walk(path, inode):
            self._held.pop(below, None)
            if child.__dict__.get("home") == below:
                self._gone.add(below)
            self._touch(below)
        if inode.stat_result.st_nlink > 0 and not isinstance(inode, FakeDirectory):
            self._rename_to_a_remaining_link(inode)

    def _rename_to_a_remaining_link(self, inode: FakeFile) -> None:
        paths = [path for path, held in self._held.items() if held is inode]
        if paths:
            inode.name = os.path.basename(min(paths))  # type: ignore[assignment]
            inode.parent_dir = weakref.ref(self._tree.parent_of(min(paths)))

    def entered(self, path: str, inode: FakeFile) -> None:
        """The inode, with all below it, now stands at the path."""
        for below, child in walk(path, inode):
            if is_pristine(child, below):
                self._gone.discard(below)
            else:
                self._held[below] = child
            self._touch(below)

    def changed(self, inode: FakeFile) -> None:
        """Permissions or times of the inode changed."""
        for path in self.paths_of(inode):
            self._hold(path, inode)

    def read(self, inode: FakeFile, content: bytes | bytearray) -> None:
        """A part of a file was read, or all; of one that is as it was mounted nobody wants to know."""
        self._tree.saw(inode, Aspect.CONTENT)
        attributes = inode.__dict__
        if self.on_read is not None and ("home" not in attributes or attributes.get("is_modified")):
            for path in self.paths_of(inode):
                self.on_read(path, content)

    def write(self, inode: FakeFile, offset: int, data: bytes) -> None:
        """Put the data into a file and publish it as one effect, unless nothing changed."""
        self._tree.saw(inode, Aspect.ALL)
        content = thawed_content(inode)
        size = len(content)
        if offset > size:
            offset, data = size, bytes(offset - size) + data
        removed = min(len(data), size - offset)
        if removed == len(data) and content[offset : offset + removed] == data:
            return
        self._change_coming("write", inode)
        content[offset : offset + removed] = data
        self._spliced("write", inode, Splice(offset=offset, removed=removed, data=data, mtime=time.time()))

    def resize(self, inode: FakeFile, size: int) -> None:
        """Cut or extend a file and publish it as one effect, unless it has that size."""
        self._tree.saw(inode, Aspect.ALL)
        old = inode.stat_result.st_size
        if size == old:
            return
        self._change_coming("truncate", inode)
        if size == 0:
            inode._byte_contents = b""
        content = thawed_content(inode)
        content[size:] = b"\0" * (size - len(content))
        kept = min(old, size)
        data = bytes(size - kept)
        change = Splice(offset=kept, removed=old - kept, data=data, mtime=time.time())
        self._spliced("truncate", inode, change)

    def commit(self, contents: Sequence[tuple[FakeFile, bytes]]) -> None:
        """Give files other contents, all of it as one effect that is whole or not at all."""
        changes: list[FileChange] = []
        for inode, content in contents:
            self._tree.saw(inode, Aspect.ALL)
            result, mtime = inode.stat_result, time.time()
            splices = tuple(splices_between(frozen_content(inode), content, mtime))
            inode._byte_contents = content
            result.st_size, result.st_mtime, result.st_ctime = len(content), mtime, mtime
            for path in self.paths_of(inode):
                changes += self._splices_or_node(path, inode, splices)
        if changes:
            self._emit("commit", changes[0][0], tuple(changes))

    def overwrite(self, inode: FakeFile) -> None:
        """Cut a file that is to be written anew, as `resize` to nothing; its times are new in any case."""
        paths = self.paths_of(inode)
        if all(path in self._held for path in paths):
            for path in paths:
                self._stale[path] = self._snapshot = None
                if self._tree.reads is not None:
                    self._tree.reads.overwrite(path)
            put_on(replace(node_of(inode), mtime=time.time()), inode)
        self.resize(inode, 0)

    def _spliced(self, kind: str, inode: FakeFile, change: Splice) -> None:
        result = inode.stat_result
        result.st_size += len(change.data) - change.removed
        result.st_mtime = result.st_ctime = change.mtime
        paths = self.paths_of(inode)
        if not paths:
            return
        changes = [found for path in paths for found in self._splices_or_node(path, inode, (change,))]
        self._emit(kind, paths[0], tuple(changes))

    def _splices_or_node(self, path: str, inode: FakeFile, changes: Sequence[Splice]) -> list[FileChange]:
        if path in self._held:
            self._stale[path] = None
            return [(path, change) for change in changes]
        self._hold(path, inode)
        self._touched.discard(path)
        return [(path, self._now(path))]

    def paths_of(self, inode: FakeFile) -> list[str]:
        """All names of an inode, sorted; none if it was removed or never had one."""
        if inode.stat_result.st_nlink > 1 and not isinstance(inode, FakeDirectory):
            return sorted(path for path, held in self._held.items() if held is inode)
        path = self._tree.path_of(inode) if inode.stat_result.st_nlink else ""
        return [path] if path else []

    def sync(self, inode: FakeFile) -> None:
        """Report that what stands there is durable even if the power goes; no content changes by that."""
        paths = self.paths_of(inode)
        if paths:
            self.synced(paths[0])

    def synced(self, path: str) -> None:
        """The same by the path; empty: everything."""
        if self.on_effect is not None:
            self.on_effect("sync", path, ())

    def publish(self, kind: str, target: str) -> None:
        """Make one effect of all that was reported since the last one."""
        changes = tuple((path, self._now(path)) for path in sorted(self._touched))
        self._touched.clear()
        self._emit(kind, target, changes)

    def _emit(self, kind: str, target: str, changes: tuple[FileChange, ...]) -> None:
        self._snapshot = None
        if self.on_effect is not None and changes:
            self.on_effect(kind, target, changes)

    def _hold(self, path: str, inode: FakeFile) -> None:
        inode.is_modified = True
        self._held[path] = inode
        self._touch(path)

    def _touch(self, path: str) -> None:
        self._touched.add(path)
        self._stale[path] = None
        if self._tree.reads is not None:
            self._tree.reads.see(path, Aspect.ALL)

    def _now(self, path: str) -> Node | None:
        """What the state says of a path."""
        if path in self._stale:
            del self._stale[path]
            self._renew(path)
        return self._nodes.get(path)

    def _renew(self, path: str) -> None:
        inode = self._held.get(path)
        if inode is not None:
            self._nodes[path] = node_of(inode)
        elif path in self._gone:
            self._nodes[path] = _ABSENT
        else:
            self._nodes.pop(path, None)

    # --- the state ----------------------------------------------------------------------------

    @property
    def state(self) -> Files:
        if self._snapshot is None:
            for path in self._stale:
                self._renew(path)
            self._stale.clear()
            self._snapshot = MappingProxyType(dict(self._nodes))
        return self._snapshot

    @property
    def times(self) -> Times | None:
        """The times of what differs from the mounted files; None if one file has several names."""
        found: dict[str, tuple[int, int]] = {}
        for path, inode in self._held.items():
            result: Any = inode.stat_result
            if result.st_nlink > 1 and not isinstance(inode, FakeDirectory):
                return None
            found[path] = (result._st_atime_ns, result._st_ctime_ns)
        return found

    def set_times(self, path: str, times: tuple[int, int]) -> None:
        """Give what stands at the path the times that it had once."""
        result: Any = self._held[path].stat_result
        result._st_atime_ns, result._st_ctime_ns = times

    def restore(self, files: Files) -> None:
        """Make the tree equal to a state, touching only what differs from the present one."""
        present, wanted = self.state, self._with_parents(files)
        differing = {path for path in {*present, *wanted} if self._differs(path, present, wanted)}
        order = sorted(self._with_contents(differing, wanted))
        for path in reversed(order):
            self._take_away(path, wanted.get(path))
        for path in order:
            self._put(path, wanted.get(path))
        self._touched.clear()
        self._stale.clear()
        self._snapshot = None

    def _with_parents(self, files: Files) -> dict[str, Node]:
        """The state with the directories that its files need; a caller may leave them out."""
        wanted = dict(files)
        for path in files:
            parent = os.path.dirname(path)
            while parent not in wanted and not self._tree.is_mounted(parent):
                wanted[parent] = _DIRECTORY
                parent = os.path.dirname(parent)
        return wanted

    def _differs(self, path: str, present: Files, wanted: Files) -> bool:
        old, new = present.get(path), wanted.get(path)
        if old is not new and (old is None or new is None or old != new or old.mtime != new.mtime):
            return True
        inode = self._held.get(path)
        # A state does not say which names are one file, so two names are made two files.
        return inode is not None and inode.stat_result.st_nlink > 1 and not isinstance(inode, FakeDirectory)

    def _with_contents(self, differing: set[str], wanted: Files) -> set[str]:
        """The paths with all those below a directory that is put in place of what stands there."""
        going = [f"{path}/" for path in sorted(differing) if self._is_going(path, wanted.get(path))]
        if not going:
            return differing
        prefixes = tuple(going)
        return differing | {path for path in {*self._nodes, *wanted} if path.startswith(prefixes)}

    def _is_going(self, path: str, node: Node | None) -> bool:
        if node is None and path in self._gone:
            return True  # What was mounted there comes back with all that was mounted below.
        inode = self._tree.standing(path)
        return isinstance(inode, FakeDirectory) and not _can_stay(inode, path, node)

    def _take_away(self, path: str, node: Node | None) -> None:
        inode = self._tree.standing(path)
        if inode is None or _can_stay(inode, path, node):
            return
        self._held.pop(path, None)
        self._nodes.pop(path, None)
        if inode.__dict__.get("home") == path:
            self._gone.add(path)
        detach(self._tree.parent_of(path), os.path.basename(path))

    def _put(self, path: str, node: Node | None) -> None:
        self._take_away(path, node)  # A folder that was put back has brought its contents.
        if node is None:
            self._put_back(path)
        elif node.kind is not NodeKind.ABSENT:
            self._put_in(path, node)
        if node is None:
            self._nodes.pop(path, None)
        else:
            self._nodes[path] = node

    def _put_back(self, path: str) -> None:
        """Let what was mounted at the path, if anything, be seen again."""
        self._held.pop(path, None)
        inode = self._tree.standing(path)
        if inode is not None:
            put_on(node_of(self._tree.mounted(path)), inode)
            inode.is_modified = False
        elif path in self._gone:
            attach(self._tree.parent_of(path), os.path.basename(path), self._tree.mounted(path))
        self._gone.discard(path)

    def _put_in(self, path: str, node: Node) -> None:
        inode = self._tree.standing(path)
        if inode is None:
            inode = inode_of(node, self._tree.filesystem)
            attach(self._tree.parent_of(path), os.path.basename(path), inode)
        else:
            put_on(node, inode)
        inode.is_modified = True
        self._held[path] = inode


_PAGE, _PIECE = 4096, 64


def splices_between(old: bytes, new: bytes, mtime: float) -> Iterator[Splice]:
    """What makes one content another, most of which is alike and in its place: pieces of pages."""
    size = min(len(old), len(new))
    start = stop = 0
    for place in _pieces(old, new, size):
        if place > stop:
            yield from _splice(old, new, start, stop, mtime)
            start = place
        stop = min(place + _PIECE, size)
    yield from _splice(old, new, start, stop, mtime)
    if len(old) != len(new):
        yield Splice(offset=size, removed=len(old) - size, data=new[size:], mtime=mtime)


def _pieces(old: bytes, new: bytes, size: int) -> Iterator[int]:
    """Where the pieces begin that differ."""
    for page in range(0, size, _PAGE):
        if old[page : page + _PAGE] != new[page : page + _PAGE]:
            for place in range(page, min(page + _PAGE, size), _PIECE):
                if old[place : place + _PIECE] != new[place : place + _PIECE]:
                    yield place


def _splice(old: bytes, new: bytes, start: int, stop: int, mtime: float) -> Iterator[Splice]:
    if old[start:stop] != new[start:stop]:
        yield Splice(offset=start, removed=stop - start, data=new[start:stop], mtime=mtime)


def _can_stay(inode: FakeFile, path: str, node: Node | None) -> bool:
    """Whether restoring needs no other inode at the path: only directories stay, others may be below them."""
    if not isinstance(inode, FakeDirectory):
        return False
    if node is None:
        return bool(inode.__dict__.get("home") == path)
    return node.kind is NodeKind.DIRECTORY
