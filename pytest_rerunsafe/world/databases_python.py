"""What user code gets for `sqlite3`: CPython's own classes, on the private copies of the world's databases."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote

from pytest_rerunsafe.world import databases_sql as sql_texts
from pytest_rerunsafe.world.databases import Copy, Databases, RealConnection, RealCursor

_OK, _DENY, _ATTACH = sqlite3.SQLITE_OK, sqlite3.SQLITE_DENY, sqlite3.SQLITE_ATTACH
_POSITIONS = (
    *("timeout", "detect_types", "isolation_level", "check_same_thread"),
    *("factory", "cached_statements", "uri"),
)
"""The parameters of `sqlite3.connect` after the first."""
_MEMORY = ":memory:"
_LEVEL: Any = vars(RealConnection)["isolation_level"]
_AUTOCOMMIT: Any = vars(RealConnection).get("autocommit")


def _has_uris() -> bool:
    """Whether this SQLite takes `file:` for a URI without being asked to."""
    found = RealConnection(_MEMORY).execute("PRAGMA compile_options")
    return any(option == "USE_URI" for (option,) in found)


class Module:
    """The names of `sqlite3` that are replaced."""

    def __init__(self, databases: Databases, on_unsupported: Callable[[str], None]) -> None:
        self.databases = databases
        self.on_unsupported = on_unsupported
        self.has_uris = _has_uris()
        names = {"_module": self, "__module__": "sqlite3"}
        self.Cursor: Any = type("Cursor", (FollowedCursor, RealCursor), dict(names))
        self.Connection: Any = type("Connection", (FollowedConnection, RealConnection), dict(names))

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """As `sqlite3.connect`."""
        place = _POSITIONS.index("factory") + 1
        factory = arguments[place] if len(arguments) > place else options.get("factory", self.Connection)
        return _followed(factory, self.Connection)(*arguments, **options)

    @property
    def names(self) -> dict[str, Any]:
        """What to put there, by name."""
        return {"connect": self.connect, "Connection": self.Connection, "Cursor": self.Cursor}

    # --- where names lead ---------------------------------------------------------------------

    def locate(self, name: Any, is_uri: bool) -> tuple[str, dict[str, str]]:
        """The path in the world that a database's name means, and the options with it; `` if it is in memory."""
        text = os.fsdecode(name)
        options: dict[str, str] = {}
        if (is_uri or self.has_uris) and text.startswith("file:"):
            text, _, query = text.removeprefix("file:").partition("#")[0].partition("?")
            options = dict(parse_qsl(query, keep_blank_values=True))
            text = unquote(text)
            if text.startswith("//"):
                authority, _, text = text[2:].partition("/")
                if authority not in ("", "localhost"):
                    raise sqlite3.OperationalError(f"invalid uri authority: {authority}")
                text = f"/{text}"
        is_in_memory = (
            text in ("", _MEMORY) or options.get("mode") == "memory" or options.get("vfs") == "memdb"
        )
        return ("" if is_in_memory else text), options

    def open(self, path: str, options: dict[str, str]) -> tuple[Copy, str]:
        """The copy of a database and the URI of it."""
        copy = self.databases.open(path, options.get("mode", "rwc"))
        kept = [(name, value) for name, value in options.items() if name not in ("mode", "vfs")]
        return copy, copy.uri(kept)


def _followed(factory: Any, base: Any) -> Any:
    """The class that a user gave, with ours between it and CPython's."""
    if not isinstance(factory, type) or issubclass(factory, base):
        return factory
    if issubclass(base, factory):
        return base
    return type(factory.__name__, (factory, base), {"__module__": factory.__module__})


def _authorizer(connection: weakref.ref[FollowedConnection]) -> Callable[..., Any]:
    """A callback that does not keep the connection alive: that ends, with its locks, when nobody has it any more."""

    def authorize(*arguments: Any) -> Any:
        found = connection()
        return _DENY if found is None else found.authorize(*arguments)

    return authorize


class FollowedConnection:
    """Over `sqlite3.Connection`: opens copies, and tells when something may have been committed."""

    _module: Module
    copies: dict[str, Copy]

    def __init__(self, database: Any, *arguments: Any, **options: Any) -> None:
        self.copies = {}
        self._may_attach = False
        self._authorizer: Any = None
        options |= dict(zip(_POSITIONS, arguments, strict=False))
        options.pop("factory", None)
        self._is_uri = bool(options.get("uri", False))
        self._timeout_s = float(options.get("timeout", 5.0))
        path, given = self._module.locate(database, self._is_uri)
        name = database
        if path:
            copy, name = self._module.open(path, given)
            options["uri"] = True
        elif not given:
            name = _MEMORY
        if threading.active_count() == 1:
            options["timeout"] = 0  # nobody gives up a lock while this thread waits
        with self._module.databases.real():
            super().__init__(name, **options)  # type: ignore[call-arg]
            raw: Any = RealCursor(self)  # type: ignore[arg-type]
            raw.execute("PRAGMA temp_store = MEMORY").close()
        if path:
            self.copies["main"] = copy
            self._module.databases.add(self)
        self._real("set_authorizer", _authorizer(weakref.ref(self)))
        self._module.databases.functions.install(
            lambda *args, **kw: self._real("create_function", *args, **kw)
        )

    def _real(self, name: str, /, *arguments: Any, **options: Any) -> Any:
        return getattr(RealConnection, name)(self, *arguments, **options)

    def follow(self, call: Callable[..., Any], *arguments: Any, may_commit: bool = True) -> Any:
        """Make a call that may read or change databases."""
        if not self.copies:
            return call(*arguments)
        databases, copies = self._module.databases, tuple(self.copies.values())
        databases.refresh(copies)
        try:
            with databases.writing():
                return call(*arguments)
        except sqlite3.Error as error:
            databases.failed(copies, error, self._timeout_s)
            raise
        finally:
            if may_commit:
                databases.publish(self)

    # --- what commits -------------------------------------------------------------------------

    def cursor(self, factory: Any = None) -> Any:
        cls = self._module.Cursor if factory is None else _followed(factory, self._module.Cursor)
        return super().cursor(cls)  # type: ignore[misc]

    def execute(self, *arguments: Any) -> Any:
        return self.cursor().execute(*arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self.cursor().executemany(*arguments)

    def executescript(self, *arguments: Any) -> Any:
        return self.cursor().executescript(*arguments)

    def commit(self) -> None:
        self.follow(super().commit)  # type: ignore[misc]

    def rollback(self) -> None:
        self.follow(super().rollback)  # type: ignore[misc]

    def close(self) -> None:
        self.follow(super().close, may_commit=False)  # type: ignore[misc]

    def __exit__(self, *arguments: Any) -> Any:
        return self.follow(super().__exit__, *arguments)  # type: ignore[misc]

    def backup(self, target: Any, **options: Any) -> None:
        def copy() -> None:
            self.follow(lambda: self._real("backup", target, **options), may_commit=False)

        if isinstance(target, FollowedConnection):
            target.follow(copy)
        else:
            copy()

    if hasattr(RealConnection, "blobopen"):  # CPython 3.10 has none of these

        def deserialize(self, data: Any, /, *, name: str = "main") -> None:
            self._real("deserialize", data, name=name)
            self.copies.pop(name, None)

        def blobopen(self, *arguments: Any, **options: Any) -> Any:
            if self.copies and not options.get("readonly"):
                self._module.on_unsupported("writing into a blob in place")
                raise sqlite3.NotSupportedError(
                    "blobopen for writing is not supported in the rerun-safety world"
                )
            return self._real("blobopen", *arguments, **options)

    def script_begins(self) -> Any:
        """As `executescript`: end the transaction; gives the isolation level, which is none from now on."""
        level = self.isolation_level
        if getattr(self, "autocommit", -1) == -1:
            if self.in_transaction:  # type: ignore[attr-defined]
                self.commit()
            _LEVEL.__set__(self, None)
        return level

    def script_ends(self, level: Any) -> None:
        if getattr(self, "autocommit", -1) == -1:
            _LEVEL.__set__(self, level)

    @property
    def isolation_level(self) -> Any:
        return _LEVEL.__get__(self)

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        self.follow(_LEVEL.__set__, self, level)

    if _AUTOCOMMIT is not None:

        @property
        def autocommit(self) -> Any:
            return _AUTOCOMMIT.__get__(self)

        @autocommit.setter
        def autocommit(self, value: Any) -> None:
            self.follow(_AUTOCOMMIT.__set__, self, value)

    # --- what reaches beyond it ---------------------------------------------------------------

    def set_authorizer(self, callback: Any) -> None:
        self._authorizer = callback

    def authorize(self, action: int, *arguments: Any) -> Any:
        """Whether SQLite may do something: what is to be attached has been opened before, if it may be."""
        if action == _ATTACH and not self._may_attach and arguments[0] not in ("", _MEMORY):
            self._module.on_unsupported(f"opening the SQLite file {arguments[0]} by SQL")
            return _DENY
        return _OK if self._authorizer is None else self._authorizer(action, *arguments)

    def reach(self, statement: Any, parameters: Any, run: Callable[..., Any]) -> Any:
        """Run in the stead of a statement that reaches beyond its database what stays in the world."""
        match statement:
            case sql_texts.Setting():
                return run(*self._set(statement.name, statement.value))
            case sql_texts.Attach():
                return self._attach(statement, parameters, run)
            case _:
                file = self._values((statement.file,), parameters)[0]
                path, options = self._module.locate(file, self._is_uri)
                if not path:
                    return self._attaching(run, f"VACUUM {statement.schema} INTO ?", (file,))
                copy, uri = self._module.open(path, options)
                result = self._attaching(run, f"VACUUM {statement.schema} INTO ?", (uri,))
                self._module.databases.publish_file(copy)
                return result

    def _attach(self, statement: sql_texts.Attach, parameters: Any, run: Callable[..., Any]) -> Any:
        file, name = self._values((statement.file, statement.name), parameters)
        path, options = self._module.locate(file, self._is_uri)
        copy, uri = self._module.open(path, options) if path else (None, file or _MEMORY)
        result = self._attaching(run, "ATTACH ? AS ?", (uri, name))
        if copy is not None:
            self.copies[str(name)] = copy
            self._module.databases.add(self)
        return result

    def _values(self, expressions: tuple[str, ...], parameters: Any) -> Any:
        raw: Any = RealCursor(self)  # type: ignore[arg-type]
        try:
            return raw.execute(f"SELECT {', '.join(expressions)}", parameters).fetchone()
        finally:
            raw.close()

    def _attaching(self, run: Callable[..., Any], sql: str, parameters: tuple[Any, ...]) -> Any:
        self._may_attach = True
        try:
            with self._module.databases.writing():
                return run(sql, parameters)
        finally:
            self._may_attach = False

    def _set(self, name: str, value: str | None) -> tuple[str, tuple[Any, ...]]:
        """The statement in place of a PRAGMA, and its parameters."""
        if name == "database_list":
            path_of = self._module.databases.path_of
            return sql_texts.database_list([(name, path_of(copy)) for name, copy in self.copies.items()])
        if name != "busy_timeout":
            return "SELECT 0 WHERE 0", ()
        if value is not None:
            self._timeout_s = max(0, int(value)) / 1000
        return "SELECT ? AS timeout", (round(self._timeout_s * 1000),)


class FollowedCursor:
    """Over `sqlite3.Cursor`."""

    _module: Module
    connection: Any
    _may_commit = True

    def _follow(self, call: Callable[..., Any], *arguments: Any) -> Any:
        connection = self.connection
        if not isinstance(connection, FollowedConnection):
            return call(*arguments)
        return connection.follow(call, *arguments, may_commit=self._may_commit)

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        real: Any = super().execute  # type: ignore[misc]
        if not isinstance(sql, str):
            return real(sql, parameters)
        self._may_commit = not sql_texts.only_reads(sql)
        statement = sql_texts.reaching(sql)
        if statement is None:
            return self._follow(real, sql, parameters)
        return self.connection.reach(statement, parameters, lambda *arguments: self._follow(real, *arguments))

    def executemany(self, sql: Any, rows: Any, /) -> Any:
        self._may_commit = True
        return self._follow(super().executemany, sql, self._handed_over(rows))  # type: ignore[misc]

    def _handed_over(self, rows: Iterable[Any]) -> Iterable[Any]:
        """The rows, one by one: outside of a transaction each is a commit."""
        connection = self.connection
        if not connection.copies or (connection.in_transaction and isinstance(rows, list | tuple)):
            return rows
        databases: Databases = self._module.databases

        def hand_over() -> Iterator[Any]:
            given = iter(rows)
            while True:
                if not connection.in_transaction:
                    databases.publish(connection)
                try:
                    with databases.resting():
                        row = next(given)
                except StopIteration:
                    return
                yield row

        return hand_over()

    def executescript(self, script: Any, /) -> Any:
        connection = self.connection
        if not isinstance(script, str):
            return super().executescript(script)  # type: ignore[misc]
        level = connection.script_begins()
        try:
            cursor = connection.cursor()
            for statement in sql_texts.statements(script):
                cursor.execute(statement)
                cursor.row_factory = None
                cursor.fetchall()
        finally:
            connection.script_ends(level)
        return self

    def __next__(self) -> Any:
        real: Any = super().__next__  # type: ignore[misc]
        return self._follow(real) if self._may_commit else real()

    def fetchone(self) -> Any:
        real: Any = super().fetchone  # type: ignore[misc]
        return self._follow(real) if self._may_commit else real()

    def fetchmany(self, *arguments: Any, **options: Any) -> Any:
        real: Any = super().fetchmany  # type: ignore[misc]
        return self._follow(lambda: real(*arguments, **options))

    def fetchall(self) -> Any:
        return self._follow(super().fetchall)  # type: ignore[misc]

    def close(self) -> None:
        self._follow(super().close)  # type: ignore[misc]
