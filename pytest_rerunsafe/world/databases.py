"""SQLite files of the world: each is opened as a private copy, and what is committed there becomes an effect."""

from __future__ import annotations

import io
import os
import sqlite3
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from typing import Any
from urllib.parse import quote

from pyfakefs.fake_file import FakeFile

from pytest_rerunsafe.world.databases_functions import Functions
from pytest_rerunsafe.world.databases_sql import quoted
from pytest_rerunsafe.world.files_calls import Calls
from pytest_rerunsafe.world.files_reads import Aspect
from pytest_rerunsafe.world.files_tree import frozen_content, is_directory
from pytest_rerunsafe.world.guard import real_files_allowed
from pytest_rerunsafe.world.scratch import Scratch

RealConnection = sqlite3.Connection
RealCursor = sqlite3.Cursor
_FLAGS = {"ro": os.O_RDONLY, "rw": os.O_RDWR, "rwc": os.O_RDWR | os.O_CREAT}


class Copy:
    """The real file that stands for a file of the world while it is open as a database."""

    def __init__(self, inode: FakeFile, place: str, path: str, *, is_read_only: bool) -> None:
        self.inode = inode
        self.place = place
        """Where the file stood in the world when it was opened."""
        self.path = path
        """Where SQLite has opened the copy."""
        self.file = path
        """Where the copy is: elsewhere, once the file has left its place, for SQLite looks and writes no more then."""
        self.is_read_only = is_read_only
        self.known = b""
        """What is committed in the one and stands in the other."""

    def uri(self, options: Sequence[tuple[str, str]] = ()) -> str:
        """As SQLite opens it: without making it anew, for somebody may have taken it away."""
        mode = "ro" if self.is_read_only else "rw"
        more = "".join(f"&{name}={quote(value)}" for name, value in options)
        return f"file:{quote(self.path)}?mode={mode}{more}"


class Databases:
    """The SQLite files of one process that are open."""

    def __init__(
        self, calls: Calls, scratch: Scratch, lifted: Callable[[], AbstractContextManager[object]]
    ) -> None:
        self._calls = calls
        self._scratch = scratch
        self._lifted = lifted
        self._copies: dict[tuple[int, str], Copy] = {}
        self._made = 0
        self._folder: tuple[int, str] | None = None
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._at_work = 0
        self._allowed = ExitStack()
        self.functions = Functions()
        self.before_commit: Callable[[str], None] = lambda path: None
        """Called with a path before its commit becomes an effect; if it raises, nothing was committed."""

    # --- opening ------------------------------------------------------------------------------

    def open(self, path: str, mode: str) -> Copy:
        """The copy of the file at a path; an empty file is made there if there is none and `mode` says so.

        :raises sqlite3.OperationalError: as SQLite does, if the file cannot be opened.
        """
        inode, can_write = self._inode(path, mode)
        self._calls.tree.saw(inode, Aspect.ALL)
        self._calls.ledger.read(inode, frozen_content(inode))
        place = self._calls.tree.find(path).path
        copy = self._copies.get((id(inode), place))
        is_other = copy is not None and not self._is_open(copy) and copy.known != frozen_content(inode)
        if copy is None or copy.file != copy.path or is_other:
            copy = self._copies[id(inode), place] = self._copied(inode, place)
        self.refresh((copy,))
        if can_write:
            return copy
        reader = Copy(inode, place, copy.path, is_read_only=True)
        reader.known = copy.known
        return reader

    def _inode(self, path: str, mode: str) -> tuple[FakeFile, bool]:
        flags = _FLAGS.get(mode, _FLAGS["rwc"])
        with suppress(OSError):
            return self._opened(path, flags), flags != os.O_RDONLY
        try:
            return self._calls.attempt("open", path, self._opened, path, os.O_RDONLY), False
        except OSError as error:
            raise sqlite3.OperationalError("unable to open database file") from error

    def _opened(self, path: str, flags: int) -> FakeFile:
        fd = self._calls.open(path, flags, 0o644)
        inode = self._calls.descriptors.get(fd).inode
        self._calls.descriptors.close(fd)
        if is_directory(inode):
            raise IsADirectoryError(path)
        return inode

    def _copied(self, inode: FakeFile, place: str) -> Copy:
        with self.real():
            folder = self._own_folder()
            self._made += 1
            copy = Copy(inode, place, f"{folder}/{self._made}.db", is_read_only=False)
            copy.known = frozen_content(inode)
            _write(copy.path, copy.known)
        return copy

    def _own_folder(self) -> str:
        pid = os.getpid()
        if self._folder is None or self._folder[0] != pid:
            self._folder = pid, self._scratch.of_process(pid)
            with suppress(FileExistsError):
                os.mkdir(self._folder[1], 0o700)
        return self._folder[1]

    def path_of(self, copy: Copy) -> str:
        """Where the file stands now; `` if it was removed."""
        return next(iter(self._calls.ledger.paths_of(copy.inode)), "")

    def _is_open(self, copy: Copy) -> bool:
        return any(copy.inode is other.inode for each in self._connections for other in each.copies.values())

    def add(self, connection: Any) -> None:
        """Follow a connection from now on."""
        self._connections.add(connection)

    # --- following ----------------------------------------------------------------------------

    def refresh(self, copies: Sequence[Copy]) -> None:
        """Let what has been done to files past SQLite show in it."""
        for copy in copies:
            if copy.file == copy.path and self._calls.tree.standing(copy.place) is not copy.inode:
                self._move(copy)
            content = frozen_content(copy.inode)
            if content is not copy.known and content != copy.known:
                with self.real():
                    _write(copy.file, content)
                copy.known = content

    def _move(self, copy: Copy) -> None:
        moved = f"{copy.path}.moved"
        with self.real(), suppress(FileNotFoundError):  # for who only reads it, it is the same file
            os.rename(copy.path, moved)
        copy.file = moved

    def publish(self, connection: Any) -> None:
        """Make what a connection has committed since the last time one effect."""
        changed = []
        for schema, copy in list(connection.copies.items()):
            content = None if copy.is_read_only else self._committed(connection, schema, copy)
            if content is not None and content != copy.known:
                changed.append((copy, content))
        self._publish(changed)

    def publish_file(self, copy: Copy) -> None:
        """The same of a file that no connection holds open."""
        content = self._read_anew(copy)
        if content is not None and content != copy.known:
            self._publish([(copy, content)])

    def _publish(self, changed: Sequence[tuple[Copy, bytes]]) -> None:
        paths = [path for copy, _ in changed for path in self._calls.ledger.paths_of(copy.inode)]
        try:
            for path in paths:
                self.before_commit(path)
        except BaseException:
            for copy, _ in changed:
                with self.real():
                    _write(copy.file, copy.known)
            raise
        if changed:
            self._calls.ledger.commit([(copy.inode, content) for copy, content in changed])
        for copy, content in changed:
            copy.known = content

    def _committed(self, connection: Any, schema: str, copy: Copy) -> bytes | None:
        """What is committed in a database; None if nothing can have been since the last time.

        The connection is asked itself, for nobody else may read what it holds in exclusive mode. But not within a
        transaction: there it would see more than is committed, and hold a lock from then on.
        """
        if not connection.in_transaction:
            return self._if_unlocked(connection, schema, copy)
        return self._read_anew(copy) if getattr(connection, "autocommit", True) is False else None

    def _read_anew(self, copy: Copy) -> bytes | None:
        with self.real(), closing(RealConnection(copy.uri(), timeout=0, uri=True)) as reader:
            return self._if_unlocked(reader, "main", copy)

    def _if_unlocked(self, connection: Any, schema: str, copy: Copy) -> bytes | None:
        """What is committed; None if somebody holds the lock under which more than that may be in the file."""
        pages = RealCursor(connection)
        try:
            pages.execute(f"PRAGMA {quoted(schema)}.page_count").fetchall()
        except sqlite3.OperationalError:
            return None
        finally:
            pages.close()
        return with_log(_read(copy.file), _read(f"{copy.path}-wal"))

    def failed(self, copies: Sequence[Copy], error: sqlite3.Error, timeout_s: float) -> None:
        """A statement has raised: who waited for a lock has waited in vain, for its holder waits for him to go on."""
        if str(error) == "database is locked" and timeout_s > 0:
            time.sleep(timeout_s)
        if self._calls.on_failure is not None:
            self._calls.on_failure("execute", self.path_of(copies[0]))

    # --- the real files -----------------------------------------------------------------------

    @contextmanager
    def real(self) -> Iterator[None]:
        """Inside, this is our own work on real files: nothing of the DAG's runs here."""
        with self._lifted(), self.writing():
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, SQLite may write into its copies; code of the DAG that it calls is still held by the wall."""
        with self._lock, self._lifted():
            if self._at_work == 0:
                self._allowed.enter_context(real_files_allowed())
            self._at_work += 1
        try:
            yield
        finally:
            with self._lock, self._lifted():
                self._at_work -= 1
                if self._at_work == 0:
                    self._allowed.close()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Inside `writing`, code of the DAG runs for longer."""
        with self._lock, self._lifted():
            self._allowed.close()
        try:
            yield
        finally:
            with self._lock, self._lifted():
                self._allowed.enter_context(real_files_allowed())

    @property
    def has_open(self) -> bool:
        """Whether any file is open, or was in this process."""
        return bool(self._connections or self._copies)

    def drop(self) -> None:
        """What the end of the process does: transactions are gone, connections do nothing any more."""
        with self._lifted():
            for connection in list(self._connections):
                with suppress(sqlite3.Error):  # another thread's
                    RealConnection.close(connection)
                connection.copies = {}
            self._connections.clear()
            if self._copies:
                self._copies.clear()
                self._scratch.remove(os.getpid())
                self._folder = None


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(fd, 0)
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
    finally:
        os.close(fd)


def _read(path: str) -> bytes:
    with suppress(FileNotFoundError), io.FileIO(path) as file:
        return file.readall()
    return b""


_LOG_HEADER, _FRAME_HEADER = struct.Struct(">II II II II"), struct.Struct(">II II II")


def with_log(content: bytes, log: bytes) -> bytes:
    """A database with the transactions in its write-ahead log, as who opens it next will see it.

    The format is that of https://www.sqlite.org/fileformat2.html#the_write_ahead_log.
    """
    if len(log) < _LOG_HEADER.size:
        return content
    _, _, size, _, *salts = _LOG_HEADER.unpack_from(log)[:6]
    pages, pending = bytearray(content), dict[int, int]()
    for place in range(_LOG_HEADER.size, len(log) - size - _FRAME_HEADER.size + 1, size + _FRAME_HEADER.size):
        number, count, *frame_salts = _FRAME_HEADER.unpack_from(log, place)[:4]
        if frame_salts != salts:  # of the time before the log was begun anew
            break
        pending[number] = place + _FRAME_HEADER.size
        if count:  # the last frame of a transaction says how many pages there are then
            pages += bytes(max(0, count * size - len(pages)))
            for page, start in pending.items():
                pages[(page - 1) * size : page * size] = log[start : start + size]
            del pages[count * size :]
            pending.clear()
    return bytes(pages)
