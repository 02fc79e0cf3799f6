"""The databases that the file store reconstructs against those that real kills leave on a real disk."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from watched_disk import in_child

from pytest_rerunsafe.explore.fold import apply_file_changes
from pytest_rerunsafe.model import Files, Node, NodeKind
from pytest_rerunsafe.world.files import FileStore

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Snapshot = dict[str, str]
"""What each database holds, as SQL."""
Connect = Callable[..., sqlite3.Connection]
STEPS = 29
"""A kill comes with each statement's begin, and within it after so many steps of SQLite's virtual machine, and so on."""


# --- programs: each runs in an empty folder -----------------------------------------------------


def transactions(connect: Connect) -> None:
    database = connect("x.db")
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a)")
    with database:
        database.executemany("INSERT INTO t (a) VALUES (?)", [(number,) for number in range(5)])
    database.execute("INSERT INTO t (a) VALUES ('rolled back')")
    database.rollback()
    database.execute("DELETE FROM t WHERE a < 2")
    database.execute("SAVEPOINT s")
    database.execute("INSERT INTO t (a) VALUES ('saved')")
    database.execute("RELEASE s")
    database.execute("UPDATE t SET a = a || '!'")
    database.commit()
    database.execute("INSERT INTO t (a) VALUES ('never committed')")


def without_transactions(connect: Connect) -> None:
    database = connect("x.db", isolation_level=None)
    database.executescript("""
        CREATE TABLE t (a UNIQUE);
        INSERT INTO t VALUES (1);
        BEGIN; INSERT INTO t VALUES (2); INSERT INTO t VALUES (3); COMMIT;
        INSERT INTO t VALUES (4);
    """)
    database.executemany("INSERT INTO t VALUES (?)", iter([(5,), (6,)]))
    try:
        database.execute("INSERT OR FAIL INTO t VALUES (7), (1), (8)")
    except sqlite3.IntegrityError:
        database.execute("BEGIN")
        database.execute("DELETE FROM t")


def log(connect: Connect) -> None:
    database = connect("x.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (a)")
    other = connect("x.db")
    for number in range(4):
        with database:
            database.executemany("INSERT INTO t VALUES (?)", [(number,)] * 5)
        assert other.execute("SELECT count(*) FROM t").fetchone() == ((number + 1) * 5,)
        if number == 2:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with other:
        other.execute("DELETE FROM t WHERE a = 1")
    database.execute("DELETE FROM t")


def larger_than_the_cache(connect: Connect) -> None:
    database = connect("x.db")
    database.execute("PRAGMA cache_size = 1")
    database.execute("CREATE TABLE t (a)")
    for commit in (True, False, True):
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 2500,)] * 4)
        database.commit() if commit else database.rollback()
    with database:
        database.execute("DELETE FROM t WHERE rowid % 2")
    database.execute("VACUUM")


def several_databases(connect: Connect) -> None:
    database = connect("x.db")
    database.execute("ATTACH 'y.db' AS y")
    database.execute("CREATE TABLE t (a)")
    database.execute("CREATE TABLE y.u (k TEXT PRIMARY KEY, v) WITHOUT ROWID")
    with database:
        database.execute("INSERT INTO t VALUES (1)")
        database.execute("INSERT INTO u VALUES ('k', 1)")
    database.execute("DETACH y")
    os.replace("y.db", "moved.db")
    with connect("moved.db") as moved:
        moved.execute("UPDATE u SET v = 2")
    database.execute("SELECT * FROM t").fetchall()
    os.remove("x.db")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.execute("INSERT INTO t VALUES ('nobody finds this')")


PROGRAMS = (transactions, without_transactions, log, larger_than_the_cache, several_databases)


# --- on a real disk ---------------------------------------------------------------------------


class Killer:
    """Kills this process at the n-th event of its databases."""

    def __init__(self, left: int) -> None:
        self._left = left

    def count(self, *_: object) -> int:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return 0

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = sqlite3.connect(*arguments, **options)
        connection.set_trace_callback(self.count)
        connection.set_progress_handler(self.count, STEPS)
        return connection


def held(folder: Path) -> Snapshot:
    """What the databases of a folder hold for who opens them next."""
    found = {}
    for path in sorted(folder.glob("*.db")):
        with closing(sqlite3.connect(path)) as database:
            found[path.name] = "\n".join(database.iterdump())
    return found


def states_after_kills(program: Callable[[Connect], None], folder: Path) -> Iterator[Snapshot]:
    """What is on the disk after a kill at each event, and after the whole program."""
    for number in range(10_000):
        place = folder / str(number)
        place.mkdir(parents=True)

        def killed(place: Path = place, number: int = number) -> None:
            os.chdir(place)
            program(Killer(number).connect)
            os.kill(os.getpid(), signal.SIGTERM)  # as good as a kill, and tells that it was the last

        status, _ = in_child(killed)
        yield held(place)
        shutil.rmtree(place)
        if os.WTERMSIG(status) == signal.SIGTERM:
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


# --- in the file store ------------------------------------------------------------------------


def reconstructed_states(program: Callable[[Connect], None], folder: Path) -> list[Files]:
    def recorded() -> list[Files]:
        store = FileStore()
        store.start()
        store.mount(folder, [])
        states: list[Files] = []
        folded: dict[str, Node] = {}

        def note(kind: str, target: str, changes: Any) -> None:
            apply_file_changes(folded, changes)
            states.append(dict(folded))

        store.begin(note, lambda kind, path: None)
        program(sqlite3.connect)
        assert states[-1] == store.state
        return states

    status, states = in_child(recorded)
    assert status == 0
    return states  # type: ignore[no-any-return]


def put_on_disk(files: Files, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, node in files.items():
        if node.kind is NodeKind.FILE:
            (folder / Path(path).name).write_bytes(node.content)
    return folder


def distinct(states: list[Snapshot]) -> list[Snapshot]:
    """Without those that equal the one before."""
    return [state for before, state in zip([None, *states], states, strict=False) if state != before]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_each_kill_leaves_the_databases_that_the_effects_give(
    program: Callable[[Connect], None], tmp_path: Path
) -> None:
    (tmp_path / "world").mkdir()
    files = reconstructed_states(program, tmp_path / "world")
    ours = distinct([held(put_on_disk(state, tmp_path / "state")) for state in files])
    real = distinct(list(states_after_kills(program, tmp_path / "real")))
    assert real == ours
    assert os.listdir(tmp_path / "world") == []
