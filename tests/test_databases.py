"""SQLite files of the world: what is an effect, what a kill leaves, and what user code meets."""

from __future__ import annotations

import gc
import glob
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from test_files import DIRECTORY, World

from pytest_rerunsafe.model import Files, NodeKind
from pytest_rerunsafe.world import scratch
from pytest_rerunsafe.world.databases import with_log
from pytest_rerunsafe.world.files import FileStore
from pytest_rerunsafe.world.guard import limit_resources

PATH = "/data/x.db"
real_connect = sqlite3.connect
RealConnection: Any = sqlite3.Connection
RealCursor: Any = sqlite3.Cursor


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A project with a database `in.db`, and an empty `/data`."""
    project = tmp_path / "project"
    project.mkdir()
    with closing(real_connect(project / "in.db")) as real, real:
        real.execute("CREATE TABLE t (a)")
        real.execute("INSERT INTO t VALUES (1)")
    before = (project / "in.db").read_bytes()
    unsupported: list[str] = []
    store = FileStore(on_unsupported=unsupported.append)
    store.start()
    try:
        store.mount(project, [])
        result = World(store, project)
        result.unsupported = unsupported
        result.restore({"/data": DIRECTORY})
        yield result
    finally:
        store.stop()
    assert sqlite3.connect is real_connect
    assert (project / "in.db").read_bytes() == before
    assert sorted(os.listdir(project)) == ["in.db"]


def made(path: str = PATH, **options: Any) -> sqlite3.Connection:
    """A connection to a database with the empty table `t`."""
    connection: sqlite3.Connection = sqlite3.connect(path, **options)
    connection.execute("CREATE TABLE t (a)")
    return connection


def rows(path: str = PATH) -> list[Any]:
    """What a new connection sees in `t`."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT a FROM t ORDER BY rowid")]


def killed(world: World) -> list[Any]:
    """What is in `t` after a kill now."""
    world.restore(world.folded())
    return rows()


# --- effects ----------------------------------------------------------------------------------


def test_connecting_makes_an_empty_file_and_a_commit_is_one_effect(world: World) -> None:
    connection = sqlite3.connect(PATH)
    assert world.steps == [("create", PATH)]
    assert world.durable(PATH) == b""
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.executemany("INSERT INTO t VALUES (?)", [(2,), (3,)])
    assert world.steps[1:] == [("commit", PATH)]
    connection.commit()
    connection.commit()
    connection.execute("SELECT * FROM t").fetchall()
    assert world.steps[2:] == [("commit", PATH)]
    assert world.folded() == world.store.state


def test_a_commit_carries_only_what_it_changes(world: World) -> None:
    with made() as connection:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 1000)
    world.begin()
    with connection:
        connection.execute("INSERT INTO t VALUES (1)")
    ((_, _, changes),) = world.effects
    assert sum(len(change.data) for _, change in changes) < 1000  # type: ignore[union-attr, misc]
    assert world.folded() == world.store.state


def test_a_smaller_database_is_cut(world: World) -> None:
    with made() as connection:
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * 1000)
    world.begin()
    with connection:
        connection.execute("DELETE FROM t")
    connection.execute("VACUUM")
    assert world.kinds == ["commit", "commit"]
    assert len(world.durable(PATH) or b"") == 2 * 4096
    assert world.folded() == world.store.state


def test_without_transactions_each_row_is_a_commit(world: World) -> None:
    connection = made(isolation_level=None)
    world.begin()
    written = []

    def values() -> Iterator[tuple[int]]:
        for number in range(3):
            written.append(len(world.effects))
            yield (number,)

    connection.executemany("INSERT INTO t VALUES (?)", values())
    assert written == [0, 1, 2]
    assert world.kinds == ["commit"] * 3
    connection.execute("INSERT INTO t VALUES (3), (4) RETURNING a").fetchall()
    assert world.kinds == ["commit"] * 4


def test_a_script_commits_where_it_says_so(world: World) -> None:
    connection = made()
    connection.execute("INSERT INTO t VALUES (0)")
    world.begin()
    connection.executescript("""
        -- ends the transaction; each of these is one:
        INSERT INTO t VALUES (1); INSERT INTO t VALUES ('a;b');
        BEGIN; INSERT INTO t VALUES (3); INSERT INTO t VALUES (4); COMMIT;
        CREATE TRIGGER u AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;
        SELECT * FROM t;
        BEGIN; INSERT INTO t VALUES (5)""")
    assert world.kinds == ["commit"] * 5
    assert connection.in_transaction
    assert not connection.isolation_level
    assert killed(world) == [0, 1, "a;b", 3, 4]


@pytest.mark.parametrize(
    "commit",
    [
        lambda connection: connection.commit(),
        lambda connection: connection.execute("COMMIT"),
        lambda connection: connection.__exit__(None, None, None),
        lambda connection: setattr(connection, "isolation_level", None),
        lambda connection: connection.executescript(""),
    ],
    ids=["commit", "COMMIT", "exit", "isolation level", "script"],
)
def test_whatever_commits_is_seen(world: World, commit: Callable[[Any], None]) -> None:
    connection = made()
    connection.execute("INSERT INTO t VALUES (1)")
    world.begin()
    commit(connection)
    assert world.kinds == ["commit"]
    assert killed(world) == [1]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="CPython has no such attribute")
def test_the_attribute_autocommit_is_followed(world: World) -> None:
    connection = sqlite3.connect(PATH, autocommit=False)  # type: ignore[call-overload]
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    world.begin()
    connection.commit()
    assert world.kinds == ["commit"]
    connection.execute("INSERT INTO t VALUES (2)")
    assert world.kinds == ["commit"]
    connection.autocommit = True
    assert world.kinds == ["commit", "commit"]
    other = sqlite3.connect(PATH, timeout=0)
    with other:
        other.execute("INSERT INTO t VALUES (3)")
    assert killed(world) == [1, 2, 3]


def test_a_commit_over_several_databases_is_one_effect(world: World) -> None:
    connection = made()
    connection.execute("ATTACH DATABASE ? AS ?", ("/data/y.db", "y"))
    connection.execute("-- so\nattach'/data/as z.db'as\"z\";")
    connection.execute("CREATE TABLE y.t (a)")
    connection.executescript("/* and by a script */ ATTACH '/data/w.db' AS w; CREATE TABLE w.t (a);")
    world.begin()
    with connection:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("INSERT INTO y.t VALUES (2)")
    ((kind, target, changes),) = world.effects
    assert (kind, target) == ("commit", PATH)
    assert {path for path, _ in changes} == {PATH, "/data/y.db"}
    assert [(schema, path) for _, schema, path in connection.execute("PRAGMA database_list")] == [
        ("main", PATH),
        ("y", "/data/y.db"),
        ("z", "/data/as z.db"),
        ("w", "/data/w.db"),
    ]
    connection.execute("DETACH y")
    with connection:
        connection.execute("INSERT INTO t VALUES (3)")
    assert sorted(os.listdir("/data")) == ["as z.db", "w.db", "x.db", "y.db"]
    world.restore(world.folded())
    assert (rows(), rows("/data/y.db")) == ([1, 3], [2])


def test_a_database_in_memory_has_no_effects_but_may_attach_a_file(world: World) -> None:
    for name, options in ((":memory:", {}), ("", {}), ("file:m?mode=memory&cache=shared", {"uri": True})):
        made(name, **options).execute("INSERT INTO t VALUES (1)")
    assert world.effects == []
    connection = sqlite3.connect(":memory:")
    connection.execute(f"ATTACH '{PATH}' AS disk")
    connection.execute("CREATE TABLE disk.t (a)")
    assert world.steps == [("create", PATH), ("commit", PATH)]


def test_vacuum_and_backup_into_files(world: World) -> None:
    with made() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    world.begin()
    connection.execute("VACUUM INTO '/data/copy.db'")
    assert world.steps == [("create", "/data/copy.db"), ("commit", "/data/copy.db")]
    with closing(sqlite3.connect("/data/backup.db")) as target:
        connection.backup(target)
    assert world.steps[2:] == [("create", "/data/backup.db"), ("commit", "/data/backup.db")]
    assert rows("/data/copy.db") == rows("/data/backup.db") == [1]


def test_a_fault_before_a_commit_leaves_nothing_of_it(world: World) -> None:
    connection = made()
    databases: Any = world.store._databases
    databases.before_commit = lambda path: (_ for _ in ()).throw(sqlite3.OperationalError(f"no: {path}"))
    connection.execute("INSERT INTO t VALUES (1)")
    world.begin()
    with pytest.raises(sqlite3.OperationalError, match=f"no: {PATH}"):
        connection.commit()
    databases.before_commit = lambda path: None
    assert connection.execute("SELECT * FROM t").fetchall() == []
    with connection:
        connection.execute("INSERT INTO t VALUES (2)")
    assert world.kinds == ["commit"]
    assert killed(world) == [2]


# --- a kill -----------------------------------------------------------------------------------


def test_a_killed_transaction_is_gone_and_its_locks_with_it(world: World) -> None:
    with made() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("PRAGMA cache_size = 1")
    connection.executemany(
        "INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100
    )  # more than fits: it is on the disk
    assert killed(world) == [1]
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.commit()
    with sqlite3.connect(PATH, timeout=0) as other:
        other.execute("INSERT INTO t VALUES (2)")
    assert rows() == [1, 2]


def test_what_others_commit_is_told_from_what_is_only_on_the_disk(world: World) -> None:
    connection, other = made(), sqlite3.connect("/data/y.db", isolation_level=None)
    other.execute("CREATE TABLE t (a)")
    other.execute(f"ATTACH '{PATH}' AS x")
    connection.execute("PRAGMA cache_size = 1")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    world.begin()
    other.execute("INSERT INTO main.t VALUES (1)")
    assert world.steps == [("commit", "/data/y.db")]
    connection.rollback()
    assert world.steps == [("commit", "/data/y.db")]


def test_a_log_is_read_as_who_opens_the_database_next_reads_it(world: World) -> None:
    connection = made()
    assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    with connection:
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(1000)])
    reader = sqlite3.connect(PATH)
    old = reader.execute("SELECT count(*) FROM t")
    connection.execute("PRAGMA cache_size = 1")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    assert old.fetchone() == (1000,)
    assert os.listdir("/data") == ["x.db"]
    kinds = [*world.kinds]
    connection.rollback()
    with connection:
        connection.execute("DELETE FROM t WHERE a > 1")
    assert world.kinds == [*kinds, "commit"]
    assert killed(world) == [0, 1]
    with closing(sqlite3.connect(PATH)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)


def test_a_log_that_was_begun_anew_counts_only_from_there(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(real_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        for number in range(50):
            with connection:
                connection.execute("INSERT INTO t VALUES (?)", ("x" * 500,))
            if number == 40:
                connection.execute("PRAGMA wal_checkpoint(RESTART)")
        content = with_log(path.read_bytes(), Path(f"{path}-wal").read_bytes())
    (tmp_path / "copy.db").write_bytes(content)
    with closing(real_connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM t").fetchone() == (50,)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# --- locks ------------------------------------------------------------------------------------


def test_who_waits_for_a_lock_waits_by_the_clock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    first, second = made(), sqlite3.connect(PATH, timeout=7)
    first.execute("INSERT INTO t VALUES (1)")
    assert second.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        second.execute("INSERT INTO t VALUES (2)")
    assert second.execute("PRAGMA busy_timeout = 1500").fetchone() == (1500,)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        second.execute("INSERT INTO t VALUES (2)")
    assert second.execute("PRAGMA busy_timeout").fetchone() == (1500,)
    assert waits == [7, 1.5]
    assert RealCursor(second).execute("PRAGMA busy_timeout").fetchone() == (0,)
    assert world.failures == [("execute", PATH)] * 2
    first.commit()
    with second:
        second.execute("INSERT INTO t VALUES (2)")
    assert killed(world) == [1, 2]


def test_a_connection_that_nobody_has_any_more_ends_as_in_life(world: World, tmp_path: Path) -> None:
    def is_free(path: str) -> bool:
        gc.collect()  # so that it does not happen in between
        sqlite3.connect(path).execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # from CPython 3.11 on it waits for the garbage collector
                return False
        return True

    def is_free_in_life() -> bool:
        world.store.stop()
        return is_free(str(tmp_path / "x.db"))

    assert is_free(PATH) is in_child(is_free_in_life)


def test_a_reader_holds_a_commit_up(world: World) -> None:
    first, second = made(timeout=0), sqlite3.connect(PATH)
    with first:
        first.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    reading = second.execute("SELECT * FROM t")
    first.execute("INSERT INTO t VALUES (3)")
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        first.commit()
    assert len(reading.fetchall()) == 2
    first.commit()
    assert killed(world) == [1, 2, 3]


# --- as a file --------------------------------------------------------------------------------


def test_a_database_is_a_file_like_any_other(world: World) -> None:
    with made() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    with open(PATH, "rb") as file:
        assert file.read(16) == b"SQLite format 3\0"
    assert os.path.getsize(PATH) == 2 * 4096
    shutil.copy(PATH, "/data/copy.db")
    os.replace(PATH, "/data/moved.db")
    assert not os.path.exists(PATH)
    world.begin()
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):  # as in life, when the file has moved
            connection.execute("INSERT INTO t VALUES (2)")
    connection.rollback()
    assert world.effects == []
    with sqlite3.connect("/data/moved.db") as moved:
        moved.execute("INSERT INTO t VALUES (3)")
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,), (3,)]
    shutil.copy("/data/copy.db", PATH)
    assert (rows(), rows("/data/copy.db"), rows("/data/moved.db")) == ([1], [1], [1, 3])
    os.remove("/data/moved.db")
    assert sorted(os.listdir("/data")) == ["copy.db", "x.db"]


def test_what_is_done_to_a_file_shows_in_an_open_connection(world: World) -> None:
    with made() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    content = Path(PATH).read_bytes()
    with connection:
        connection.execute("INSERT INTO t VALUES (2)")
    Path(PATH).write_bytes(content)
    assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]


def test_a_database_of_the_project_changes_in_the_world_only(world: World) -> None:
    with sqlite3.connect("in.db") as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    path = str(world.project / "in.db")
    assert world.steps == [("commit", path)]
    assert rows(path) == [1, 2]
    world.restore({"/data": DIRECTORY})
    assert rows(path) == [1]


def test_a_state_with_a_database_is_restored(world: World) -> None:
    with made() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    state: Files = world.store.state
    with connection:
        connection.execute("INSERT INTO t VALUES (2)")
    assert state[PATH].kind is NodeKind.FILE
    world.restore(state)
    assert rows() == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/nowhere/x.db", "unable to open database file"),
        ("/data", "unable to open database file"),
        ("file:/data/none.db?mode=rw", "unable to open database file"),
        ("file:/data/none.db?mode=ro", "unable to open database file"),
        ("file://data/x.db", "invalid uri authority: data"),
    ],
)
def test_what_cannot_be_opened_fails_as_in_life(world: World, name: str, message: str) -> None:
    with pytest.raises(sqlite3.OperationalError, match=message):
        sqlite3.connect(name, uri=True)
    assert world.effects == []
    assert [kind for kind, _ in world.failures] == (["open"] if "unable" in message else [])


def test_names_of_all_kinds_lead_to_the_file(world: World) -> None:
    made().close()
    world.begin()
    for name in (
        Path(PATH),
        PATH.encode(),
        f"file:{PATH}",
        f"file://localhost{PATH}?mode=rw",
        "file:%2fdata/x.db",
    ):
        with closing(sqlite3.connect(name, uri=True)) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
    with closing(sqlite3.connect(f"file:{PATH}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == []
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("INSERT INTO t VALUES (1)")
    os.chmod(PATH, 0o444)
    with (
        closing(sqlite3.connect(PATH)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("INSERT INTO t VALUES (1)")
    assert world.kinds == ["chmod"]


# --- what user code meets ---------------------------------------------------------------------


def test_classes_of_ones_own_work(world: World) -> None:
    class Mine(sqlite3.Connection):
        calls = 0

        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            self.calls += 1
            return super().execute(*arguments)

    class Rows(sqlite3.Cursor):
        pass

    connection = sqlite3.connect(PATH, 5.0, 0, "DEFERRED", True, Mine)
    connection.row_factory = sqlite3.Row
    connection.execute("CREATE TABLE t (a)")
    connection.cursor(Rows).execute("INSERT INTO t VALUES (1)")
    connection.commit()
    assert (type(connection), connection.calls) == (Mine, 1)
    assert isinstance(connection.cursor(Rows), Rows)
    assert world.kinds == ["create", "commit", "commit"]
    assert dict(connection.execute("SELECT * FROM t").fetchone()) == {"a": 1}
    assert isinstance(connection.execute("SELECT 1"), sqlite3.Cursor)


def test_a_class_that_a_library_made_before_is_followed(world: World) -> None:
    class Earlier(RealConnection):  # type: ignore[misc]
        def commit(self) -> None:
            world.effects.clear()
            super().commit()

    connection = sqlite3.connect(PATH, factory=Earlier)
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    assert isinstance(connection, Earlier)
    assert world.kinds == ["commit"]


def test_times_and_random_numbers_are_those_of_python(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.25)
    monkeypatch.setattr("pytest_rerunsafe.world.databases_functions.os.urandom", lambda size: b"\1" * size)
    connection = sqlite3.connect(PATH)
    connection.execute("CREATE TABLE t (a, b DEFAULT CURRENT_TIMESTAMP, c DEFAULT (date('now', '+1 day')))")
    connection.execute("CREATE INDEX i ON t (date(b))")
    connection.execute("INSERT INTO t (a) VALUES (1)")
    now = "2023-11-14 22:13:20"
    assert connection.execute("SELECT * FROM t").fetchall() == [(1, now, "2023-11-15")]
    asked = "datetime(), datetime('now'), strftime('%s', 'now'), strftime('%H'), time('12:00'), current_time"
    assert connection.execute(f"SELECT {asked}").fetchone() == (
        *(now, now, "1700000000", "22"),
        *("12:00:00", "22:13:20"),
    )
    assert connection.execute("SELECT random(), hex(randomblob(3))").fetchone() == (
        0x0101010101010101,
        "010101",
    )


def test_what_cannot_be_followed_is_told(world: World) -> None:
    connection = made()
    with pytest.raises(sqlite3.DatabaseError, match="authoriz"):
        RealCursor(connection).execute("ATTACH '/etc/x.db' AS y")
    assert world.unsupported == ["opening the SQLite file /etc/x.db by SQL"]
    if hasattr(connection, "blobopen"):
        connection.execute("INSERT INTO t VALUES (zeroblob(3))")
        with pytest.raises(sqlite3.NotSupportedError, match="blobopen"):
            connection.blobopen("t", "a", 1)
        assert connection.blobopen("t", "a", 1, readonly=True).read() == b"\0\0\0"


def test_an_authorizer_of_ones_own_is_asked(world: World) -> None:
    connection = made()
    connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action == 21 else sqlite3.SQLITE_OK)
    with pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT * FROM t")
    connection.set_authorizer(None)
    assert connection.execute("SELECT * FROM t").fetchall() == []


# --- the real files underneath ----------------------------------------------------------------


def in_memory() -> set[str]:
    """The private folders that there are."""
    return {
        path
        for parent in ("/dev/shm", tempfile.gettempdir())
        for path in glob.glob(f"{parent}/{scratch._PREFIX}*")
    }


def test_databases_are_written_while_nothing_else_may_be(tmp_path: Path) -> None:
    def body() -> list[Any]:
        store = FileStore()
        store.start()
        store.mount(tmp_path, [])
        limit_resources()
        store.restore({"/data": DIRECTORY})
        connection = made()
        with connection:
            connection.executemany("INSERT INTO t VALUES (?)", ((number,) for number in range(3)))
        return rows()

    assert in_child(body) == [0, 1, 2]


def test_nothing_is_left_of_a_store_nor_of_processes_that_were_killed() -> None:
    before = in_memory()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        store = FileStore()
        store.start()
        store.restore({"/data": DIRECTORY})
        made().execute("INSERT INTO t VALUES (1)")
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    (left,) = {path for path in in_memory() - before if glob.glob(f"{path}/{pid}")}
    os.utime(left, (0, 0))
    other = scratch.Scratch()
    assert os.path.isdir(left)  # its process lives
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.utime(left)
    scratch.Scratch().remove()
    assert os.path.isdir(left)  # it is young
    os.utime(left, (0, 0))
    scratch.Scratch().remove()
    other.remove()
    assert left not in in_memory()


def test_a_process_leaves_its_folder_to_who_waits_for_it() -> None:
    own = scratch.Scratch()
    os.mkdir(own.of_process(1))
    Path(own.of_process(1), "1.db").write_text("left")
    own.remove(1)
    assert not os.path.exists(own.of_process(1))
    own.remove()
    assert not os.path.exists(os.path.dirname(own.of_process(1)))
