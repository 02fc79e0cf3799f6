"""The file store of the world: its state as a value, and every durable change of a run as an effect."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_rerunsafe.model import Files, Node
from pytest_rerunsafe.world.databases import Databases
from pytest_rerunsafe.world.databases_python import Module
from pytest_rerunsafe.world.files_calls import Calls, OnFailure
from pytest_rerunsafe.world.files_ledger import OnComing, OnEffect, OnRead
from pytest_rerunsafe.world.files_patches import OnUnsupported, Patches
from pytest_rerunsafe.world.files_reads import Reads, Seen, Times, View
from pytest_rerunsafe.world.files_tree import mounts
from pytest_rerunsafe.world.scratch import Scratch

_TEMPORARY = "/tmp"
_UMASK = 0o022


@dataclass(frozen=True, slots=True)
class Passage:
    """What some code has seen of the files, and what it has made of them."""

    seen: Seen
    nodes: dict[str, Node | None]
    """What stands now where something has changed; None for what is as it was mounted."""
    times: Times


class FileStore:
    """The files that a run sees: the real project and interpreter underneath, all changes in memory."""

    def __init__(
        self,
        *,
        skip_modules: Sequence[str] = (),
        on_unsupported: OnUnsupported = lambda what: None,
        lifted: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Inside `lifted()`, the store may reach the real world."""
        self._patches = Patches(skip_modules, on_unsupported)
        self._on_unsupported = on_unsupported
        self._lifted = lifted
        self._databases: Databases | None = None
        self.scratch: Scratch | None = None
        """Where databases are while they are open."""
        self._started: Calls | None = None
        self._home = "/"

    @property
    def _calls(self) -> Calls:
        assert self._started is not None, "the file store was not started"
        return self._started

    def start(self) -> None:
        """Let all code of this process work on the fake file system, but for the modules to skip."""
        self.scratch = Scratch()
        self._started = self._patches.apply()
        self._databases = Databases(self._started, self.scratch, self._lifted)
        self._databases.before_commit = partial(self._started.ledger.coming, "commit")
        module = Module(self._databases, self._on_unsupported)
        self._patches.replace((sqlite3, sqlite3.dbapi2), module.names)
        self.hide(self.scratch.lock)

    def stop(self) -> None:
        """Undo `start`; modules imported since then are forgotten, for they hold the fakes."""
        self.drop_open_files()
        self._patches.undo()
        self._started = self._databases = None
        if self.scratch is not None:
            self.scratch.remove()

    def mount(self, project: Path, read_only: Sequence[Path]) -> None:
        """Show the project, to be changed in memory only, and folders that nobody can change; go there."""
        tree = self._calls.tree
        for path, is_read_only in mounts(project, read_only):
            tree.mount(path, is_read_only=is_read_only)
        tree.make_directories(_TEMPORARY)
        self._home = os.path.realpath(project)
        self._calls.filesystem.cwd = self._home

    def hide(self, fd: int) -> None:
        """From now on a descriptor of this process is as good as closed for code on the fake file system."""
        self._calls.hidden.add(fd)

    def begin(
        self,
        on_effect: OnEffect | None,
        on_failure: OnFailure,
        on_read: OnRead | None = None,
        on_coming: OnComing | None = None,
    ) -> None:
        """From now on each durable change is reported, before and after, if anybody wants to know, each read of a file that is
        not as it was mounted, and each file operation that raises.
        """
        self._calls.ledger.on_effect = on_effect
        self._calls.ledger.on_coming = on_coming
        self._calls.ledger.on_read = on_read
        self._calls.on_failure = on_failure

    def end(self) -> None:
        self._calls.ledger.on_effect = self._calls.ledger.on_coming = self._calls.ledger.on_read = None
        self._calls.on_failure = None

    @property
    def state(self) -> Files:
        """What differs from the mounted files; never changes afterwards."""
        return self._calls.ledger.state

    def restore(self, files: Files) -> None:
        """Make the files as they were in a state, with nothing open, in the project's folder."""
        self.drop_open_files()
        self._calls.ledger.restore(files)
        self._calls.filesystem.cwd = self._home
        self._calls.filesystem.umask = _UMASK

    def drop_open_files(self) -> None:
        """What a kill does: unflushed buffers are gone, closing those files later does nothing."""
        self._calls.descriptors.drop()
        if self._databases is not None:
            self._databases.drop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, another process works on the files; afterwards this one has open what it had, and is where it was."""
        filesystem = self._calls.filesystem
        before = filesystem.cwd, filesystem.umask
        filesystem.cwd, filesystem.umask = self._home, _UMASK
        try:
            with self._calls.descriptors.aside():
                yield
        finally:
            filesystem.cwd, filesystem.umask = before

    # --- what code sees, and what it does -----------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[Callable[[], Passage | None]]:
        """Inside, what is seen is noted; gives a function for afterwards, which tells of it, None if not all was noted.

        Whoever watches outside of it notes that too.
        """
        ledger, tree = self._calls.ledger, self._calls.tree
        files, times, umask = self.state, ledger.times, self._calls.filesystem.umask
        outer, tree.reads = tree.reads, Reads()
        reads = tree.reads
        if times is None or umask != _UMASK or self._calls.filesystem.cwd != self._home:
            reads.lose()

        def passage() -> Passage | None:
            now, now_times = self.state, ledger.times
            if not reads.is_whole or times is None or now_times is None:
                return None
            if self._calls.filesystem.umask != umask or self._calls.filesystem.cwd != self._home:
                return None
            seen = Seen(reads.aspects, View(files, times).values(reads.aspects))
            changed = {path: now.get(path) for path in {*files, *now} if files.get(path) is not now.get(path)}
            return Passage(seen, changed, {path: now_times[path] for path in changed if path in now_times})

        try:
            yield passage
        finally:
            tree.reads = outer
            if outer is not None:
                outer.take_in(reads.aspects)
                outer.is_whole &= reads.is_whole

    @property
    def has_open(self) -> bool:
        """Whether any file or database is open."""
        return self._calls.descriptors.has_open or (self._databases is not None and self._databases.has_open)

    def see_again(self, seen: Seen) -> None:
        """Take note that somebody sees what was seen once."""
        if self._calls.tree.reads is not None:
            self._calls.tree.reads.take_in(seen.aspects)

    def view(self) -> View | None:
        """The files as they can be seen now; None if that is not all that can be."""
        times = self._calls.ledger.times
        is_usual = self._calls.filesystem.umask == _UMASK and self._calls.filesystem.cwd == self._home
        return View(self.state, times) if is_usual and times is not None else None

    def pass_again(self, passage: Passage) -> None:
        """Make the changes that were made once where the same was seen."""
        files = {**self.state, **passage.nodes}
        self._calls.ledger.restore({path: node for path, node in files.items() if node is not None})
        self.see_again(passage.seen)
        for path, times in passage.times.items():
            self._calls.ledger.set_times(path, times)
