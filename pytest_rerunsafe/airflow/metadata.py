"""Airflow's metadata database as a store: in memory, its rows as an immutable value, its changes as deltas."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, ItemsView, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import sqlalchemy
from airflow import settings
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from ..model import Row, RowChange, RowKey, Rows, RunKey


class _Connection(sqlite3.Connection):
    """One connection for the whole process; Airflow disposes of its engine after a fork, which must not lose the database."""

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Table:
    columns: tuple[str, ...]
    select: str
    insert: str
    delete: str
    keeps_rowid: bool
    """Whether the rowid is a column of its own, not one of `columns`."""


_MOST_ANSWERS = 20_000


def _timestamp() -> str:
    return datetime.now(tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Airflow answered in some state, and what that changed."""

    value: Any
    error: Exception | None
    changes: tuple[RowChange, ...]


def _digest(item: tuple[RowKey, Row]) -> int:
    """A number whose sum over all rows tells states apart."""
    return hash(item) + (hash((item, None)) << 64)


class MetadataStore:
    """The database: `capture` tells what changed, `restore` makes it equal to a value, `ask` puts a question to Airflow."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", factory=_Connection, check_same_thread=False)
        # SQLite's own looks at the real clock; Airflow compares dates with it.
        self._connection.create_function("current_timestamp", 0, _timestamp)
        self._install_engine()
        self._create_tables()
        self._tables = {name: self._describe(name) for name in self._table_names()}
        self._watch()
        self._mirror: dict[RowKey, Row] = dict(self._read_all())
        self._digest = sum(map(_digest, self._mirror.items()))
        self._changes: list[RowChange] = []
        self.uses = 0
        """How often somebody has turned to the database for himself."""
        sqlalchemy.event.listen(settings.engine, "checkout", self._used)
        self._known: dict[tuple[int, object], _Answer] = {}
        self.aside: Callable[[], AbstractContextManager[object]] = nullcontext
        """Put around whatever Airflow does, so that it depends on the rows and the clock alone."""

    def _install_engine(self) -> None:
        engine = sqlalchemy.create_engine("sqlite://", creator=lambda: self._connection, poolclass=StaticPool)
        sessions = sqlalchemy.orm.sessionmaker(engine, autoflush=False, expire_on_commit=False)
        settings.engine = engine
        settings.NonScopedSession = sessions
        settings.Session = sqlalchemy.orm.scoped_session(sessions)

    def _used(self, *_: object) -> None:
        self.uses += 1

    @contextmanager
    def known_use(self) -> Iterator[None]:
        """Inside, use of the database does not count."""
        before = self.uses
        try:
            yield
        finally:
            self.uses = before

    def _create_tables(self) -> None:
        from airflow.models.base import Base
        from airflow.models.tasklog import LogTemplate
        from airflow.utils import db

        db.import_all_models() if hasattr(db, "import_all_models") else None
        Base.metadata.create_all(settings.engine)
        with session() as s:
            s.add(LogTemplate(filename="{{ ti.task_id }}", elasticsearch_id="{{ ti.task_id }}"))
        db.add_default_pool_if_not_exists()

    def _table_names(self) -> tuple[str, ...]:
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return tuple(name for (name,) in found if not name.startswith("sqlite_"))

    def _describe(self, name: str) -> _Table:
        info = self._connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        keys = [column for column in info if column[5]]
        is_alias = len(keys) == 1 and keys[0][2].upper() == "INTEGER"
        columns = tuple(column[1] for column in info)
        written = columns if is_alias else ("rowid", *columns)
        listed = ", ".join(f'"{column}"' for column in written)
        return _Table(
            columns=columns,
            select=f'SELECT * FROM "{name}" WHERE rowid = ?',
            insert=f'INSERT INTO "{name}" ({listed}) VALUES ({", ".join("?" * len(written))})',
            delete=f'DELETE FROM "{name}" WHERE rowid = ?',
            keeps_rowid=not is_alias,
        )

    def _watch(self) -> None:
        """Let triggers note each row that a statement touches, whoever sent it: the ORM, bulk updates, the user's SQL."""
        run = self._connection.execute
        run("PRAGMA temp_store = MEMORY")  # sorting large rows would need a file
        run("PRAGMA recursive_triggers = ON")  # without it a REPLACE deletes unseen
        run("CREATE TEMP TABLE touched (tbl TEXT, rid INTEGER)")
        for name in self._tables:
            for event, side in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")):
                run(
                    f'CREATE TEMP TRIGGER "touched_{name}_{event}_{side}" AFTER {event} ON main."{name}" '
                    f"BEGIN INSERT INTO touched VALUES ('{name}', {side}.rowid); END"
                )
        self._connection.commit()

    def _read_all(self) -> Iterator[tuple[RowKey, Row]]:
        for name in self._tables:
            for rowid, *row in self._connection.execute(f'SELECT rowid, * FROM "{name}"'):
                yield (name, rowid), tuple(row)

    @property
    def rows(self) -> Rows:
        """Every row of the database, as of the last capture or restore."""
        return MappingProxyType(dict(self._mirror))

    def row(self, key: RowKey) -> Row | None:
        """One row as of the last capture or restore; None if there is none."""
        return self._mirror.get(key)

    def items(self) -> ItemsView[RowKey, Row]:
        """Every row by its key, as the database is now."""
        self._collect()
        return self._mirror.items()

    def table(self, name: str) -> tuple[Row, ...]:
        """The rows of one table as of the last capture or restore."""
        return tuple(row for key, row in self._mirror.items() if key[0] == name)

    def columns(self, table: str) -> tuple[str, ...]:
        """The names of a table's columns."""
        return self._tables[table].columns

    def capture(self) -> tuple[RowChange, ...]:
        """What changed since the last capture or restore, in the order of the changes; None stands for a row that went."""
        self._collect()
        changes = tuple(self._changes)
        self._changes.clear()
        return changes

    def _collect(self) -> list[RowChange]:
        """Take note of the rows that were touched; those that changed, sorted by table and rowid."""
        touched = self._connection.execute(
            "SELECT DISTINCT tbl, rid FROM touched ORDER BY tbl, rid"
        ).fetchall()
        if not touched:
            return []
        self._connection.execute("DELETE FROM touched")
        self._connection.commit()
        changes = [change for key in touched if (change := self._read_again(key)) is not None]
        self._note(changes)
        self._changes += changes
        return changes

    def _read_again(self, key: RowKey) -> RowChange | None:
        table, rowid = key
        row: Row | None = self._connection.execute(self._tables[table].select, (rowid,)).fetchone()
        return None if row == self._mirror.get(key) else (key, row)

    def _note(self, changes: Iterable[RowChange]) -> None:
        """Keep the mirror and its digest up to date."""
        for key, row in changes:
            if (before := self._mirror.pop(key, None)) is not None:
                self._digest -= _digest((key, before))
            if row is not None:
                self._mirror[key] = row
                self._digest += _digest((key, row))

    def ask(self, question: Hashable, function: Callable[[], Any]) -> Any:
        """What Airflow answers in the present state, changes included.

        Airflow's part in a run is a function of the rows, the clock and the question, and recoveries ask the same ones
        from the same rows again and again: each is put to Airflow once. `question` must tell all but the rows.
        """
        self._collect()
        key = (self._digest, question)
        answer = self._known.get(key)
        if answer is None:
            if len(self._known) >= _MOST_ANSWERS:
                self._known.clear()
            answer = self._known[key] = self._put(function)
        else:
            self._change(answer.changes)
        if answer.error is not None:
            raise answer.error.with_traceback(None)  # else each raise would make it longer
        return answer.value

    def _put(self, function: Callable[[], Any]) -> _Answer:
        value = error = None
        with self.aside(), self.known_use():
            try:
                value = function()
            except Exception as raised:  # an answer as well: `ask` raises it, each time
                error = raised
        return _Answer(value, error, tuple(self._collect()))

    def _change(self, changes: Sequence[RowChange]) -> None:
        """Make changes that Airflow has made before."""
        self._write(changes)
        self._note(changes)
        self._changes += changes

    def _write(self, changes: Iterable[RowChange]) -> None:
        run = self._connection.execute
        run("PRAGMA foreign_keys = OFF")
        # All deletions first: two rows may have swapped the values of a unique column.
        for key, _ in changes:
            if key in self._mirror:
                run(self._tables[key[0]].delete, (key[1],))
        for key, row in changes:
            if row is not None:
                self._insert(key, row)
        run("DELETE FROM touched")
        self._connection.commit()
        run("PRAGMA foreign_keys = ON")

    def restore(self, rows: Rows) -> None:
        """Make the database equal to `rows`; touches only the rows that differ."""
        self._forget_sessions()
        self.capture()
        mirror = self._mirror
        changes: list[RowChange] = [(key, None) for key in mirror.keys() - rows.keys()]
        changes += [(key, row) for key, row in rows.items() if (b := mirror.get(key)) is not row and b != row]
        self._write(changes)
        self._note(changes)

    def _insert(self, key: RowKey, row: Row) -> None:
        table = self._tables[key[0]]
        self._connection.execute(table.insert, (key[1], *row) if table.keeps_rowid else row)

    def _forget_sessions(self) -> None:
        self._connection.rollback()
        assert settings.Session is not None, "set when the engine was installed"
        settings.Session.remove()

    def states(self) -> list[Row]:
        """The states of all DagRuns and task instances."""
        tasks = "SELECT dag_id, run_id, task_id, map_index, state FROM task_instance ORDER BY 1, 2, 3, 4"
        runs = "SELECT dag_id, run_id, '', -1, state FROM dag_run ORDER BY 1, 2"
        return self.select(tasks) + self.select(runs)

    def state_of(self, run: RunKey, task_id: str, map_index: int) -> object:
        """The state of one task instance; None if there is none."""
        wanted = "dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ?"
        found = self.select(f"SELECT state FROM task_instance WHERE {wanted}", (*run, task_id, map_index))
        return found[0][0] if found else None

    def select(self, statement: str, parameters: tuple[object, ...] = ()) -> list[Row]:
        """The rows that a statement of ours finds."""
        return self._connection.execute(statement, parameters).fetchall()


@contextmanager
def session() -> Iterator[Session]:
    """A session of Airflow's own that commits at the end."""
    from airflow.utils.session import create_session

    with create_session() as opened:
        yield opened
