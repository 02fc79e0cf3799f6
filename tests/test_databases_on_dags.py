"""Rules broken by way of an SQLite database, each with its twin that differs only in the fix; and hostile DAGs."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import textwrap
from collections.abc import Callable

import pytest
from dag_projects import Project, Verdicts

from pytest_rerunsafe.model import Verdict
from pytest_rerunsafe.world import scratch

INPUTS = """
import sqlite3
world.mkdir("/data")
with sqlite3.connect("/data/shop.db") as database:
    database.executescript('''
        CREATE TABLE orders (name TEXT, cents INTEGER, loaded_at TEXT DEFAULT CURRENT_TIMESTAMP);
        CREATE TABLE keyed (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT);
        CREATE TABLE staging (id INTEGER, name TEXT);
        INSERT INTO staging VALUES (1, 'a'), (2, 'b'), (3, 'c');
    ''')
"""


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


Check = Callable[[str], Verdicts]


@pytest.fixture
def check(dags: Project) -> Check:
    """The verdicts on a DAG file; each has a name of its own, for what is known of a file is kept."""
    return lambda source: dags.check(f"database_{next(_NUMBERS)}", source, INPUTS)


_NUMBERS = itertools.count()
CONNECT = 'database = sqlite3.connect("/data/shop.db")'


def dag(*lines: str) -> str:
    """A DAG whose only task does this."""
    body = textwrap.indent("\n".join(lines), " " * 8)
    head = "import os, sqlite3, threading\nfrom airflow.sdk import DAG, task\n\nwith DAG('orders'):\n    @task\n    def load():\n"
    return f"{head}{body}\n    load()\n"


INSERT = (
    "database.executemany('INSERT INTO orders (name, cents) VALUES (?, ?)', [('a', 1), ('b', 2), ('c', 3)])"
)
KEYED = "database.executemany('INSERT INTO keyed VALUES (?, ?)', [(1, 'a'), (2, 'b')])"
STAGED = "rows = database.execute('SELECT id, name FROM staging').fetchall()"
MOVED = "database.executemany('INSERT INTO keyed VALUES (?, ?)', rows)"
COUNT = "done = database.execute('SELECT count(*) FROM orders').fetchone()[0]"
ONE = "    database.execute('INSERT INTO orders (name, cents) VALUES (?, ?)', (f'row {number}', number))"

UNSAFE = {
    "inserts again": (
        (CONNECT, f"with database: {INSERT}"),
        "duplicate-output",
        "`orders`: all 3 rows twice",
    ),
    "a key is there": (
        (CONNECT, f"with database: {KEYED}"),
        "rerun-fails",
        "UNIQUE constraint failed: keyed.id",
    ),
    "deletes first": (
        (
            CONNECT,
            STAGED,
            "with database: database.execute('DELETE FROM staging')",
            f"with database: {MOVED}",
        ),
        "lost-output",
        "table `keyed`: all 3 rows missing",
    ),
    "takes a part for all": (
        (CONNECT, COUNT, "for number in range(0 if done else 3):", ONE, "    database.commit()"),
        "partial-output-accepted",
        "table `orders`: row 3 missing",
    ),
    "takes an empty file for the database": (
        (
            "is_new = not os.path.exists('/data/new.db')",
            "database = sqlite3.connect('/data/new.db')",
            "if is_new: database.execute('CREATE TABLE t (a)')",
            "with database: database.execute('INSERT OR REPLACE INTO t (rowid, a) VALUES (1, 1)')",
        ),
        "rerun-fails",
        "no such table: t",
    ),
    "creates a table": (
        (CONNECT, "database.execute('CREATE TABLE report (day TEXT)')"),
        "rerun-fails",
        "table report already exists",
    ),
}
SAFE = {
    "deletes and inserts in one transaction": (
        CONNECT,
        "with database:",
        "    database.execute('DELETE FROM orders')",
        f"    {INSERT}",
        "    database.execute('DELETE FROM counted')",
        "    database.executemany('INSERT INTO counted (name) VALUES (?)', [('a',), ('b',)])",
    ),
    "replaces by key": (CONNECT, f"with database: {KEYED.replace('INSERT', 'INSERT OR REPLACE')}"),
    "moves in one transaction": (
        *(CONNECT, STAGED, "with database:", "    database.execute('DELETE FROM staging')"),
        f"    {MOVED}",
    ),
    "all or nothing": (CONNECT, COUNT, "for number in range(0 if done else 3):", ONE, "database.commit()"),
    "creates a table unless it is there": (CONNECT, "database.execute('CREATE TABLE IF NOT EXISTS t (day)')"),
    "in a log": (
        *(CONNECT, "assert database.execute('PRAGMA journal_mode = WAL').fetchone() == ('wal',)"),
        "other = sqlite3.connect('/data/shop.db')",
        "reading = other.execute('SELECT * FROM staging')",
        "with database:",
        "    database.execute('DELETE FROM orders')",
        f"    {INSERT}",
        "assert len(reading.fetchall()) == 3",
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_a_rerun_breaks_is_found(check: Check, name: str) -> None:
    lines, rule, what = UNSAFE[name]
    verdicts = check(dag(*lines))
    assert verdicts.rules == {rule}
    found = [
        *(f.summary for f in verdicts.findings),
        *(d.summary for f in verdicts.findings for d in f.differences),
    ]
    assert any(what in summary for summary in found), found


@pytest.mark.parametrize("name", SAFE)
def test_what_is_right_is_safe(check: Check, name: str) -> None:
    verdicts = check(dag(*SAFE[name]))
    assert verdicts.worst is Verdict.SAFE, verdicts.findings


def test_a_killed_transaction_is_no_state(check: Check) -> None:
    lines = ["database.execute('BEGIN')", *[ONE.strip().replace("number", str(n)) for n in range(20)]]
    verdicts = check(dag(CONNECT, *lines, "database.commit()"))
    (finding,) = verdicts["crash.load"].findings
    assert verdicts["crash.load"].coverage.distinct_states == 2
    assert finding.crash_point == "load@commit:/data/shop.db#1"
    assert finding.last_effect == "committed a transaction to /data/shop.db"
    assert verdicts["clean"].masked == ("/data/shop.db: time in `orders.loaded_at`",)


def test_a_task_that_reads_a_database_is_run_again_when_that_has_changed(dags: Project) -> None:
    source = f"""
import sqlite3
from airflow.sdk import DAG, task

with DAG("orders"):
    @task
    def load():
        {CONNECT}
        with database: {INSERT}
    @task
    def report():
        {CONNECT}
        (total,) = database.execute("SELECT sum(cents) FROM orders").fetchone()
        with open("/data/total", "w") as file:
            file.write(str(total))
    load() >> report()
"""
    (dag,) = dags.checker.load(dags.write("reads_database", source, INPUTS)).dags
    rerun = dags.checker.outcome(dag, "orders:-:-:clear-run")
    assert rerun.outputs["file:/data/total"].content == b"12"


SQLALCHEMY = """
from airflow.sdk import DAG, task
from sqlalchemy import Integer, String, create_engine, delete
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

class Base(DeclarativeBase):
    pass

class Order(Base):
    __tablename__ = "sold"
    id = mapped_column(Integer, primary_key=True)
    name = mapped_column(String)

with DAG("orders"):
    @task
    def load():
        engine = create_engine("sqlite:////data/shop.db")
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            DELETE
            session.add_all([Order(name="a"), Order(name="b")])
            session.commit()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM sold").scalar() >= 2
    load()
"""


def test_sqlalchemy_works_on_it(check: Check) -> None:
    unsafe = check(SQLALCHEMY.replace("DELETE", "pass"))
    assert unsafe.rules == {"duplicate-output"}
    safe = check(SQLALCHEMY.replace("DELETE", "session.execute(delete(Order))"))
    assert safe.worst is Verdict.SAFE, safe.findings


HOOK = """
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.sqlite.hooks.sqlite import SqliteHook
from airflow.sdk import DAG, task

with DAG("orders"):
    replace = SQLExecuteQueryOperator(
        task_id="replace",
        conn_id="shop",
        sql=["DELETE FROM keyed", "INSERT INTO keyed VALUES (1, 'a'), (2, 'b')"],
    )
    @task
    def load():
        hook = SqliteHook(sqlite_conn_id="shop")
        DELETE
        hook.insert_rows("orders", [("a", 1), ("b", 2)], target_fields=["name", "cents"])
        assert hook.get_records("SELECT id FROM keyed ORDER BY id") == [(1,), (2,)]
    replace >> load()
"""
CONNECTION = "world.set_connection('shop', 'sqlite:///data/shop.db')\n"


@pytest.mark.skipif(
    not _is_installed("apache-airflow-providers-sqlite"), reason="needs Airflow's SQLite hook"
)
def test_the_hook_of_airflow_works_on_it(dags: Project) -> None:
    unsafe = dags.check("database_hook_unsafe", HOOK.replace("DELETE\n", "pass\n"), INPUTS + CONNECTION)
    assert unsafe.rules == {"duplicate-output"}
    delete = "hook.run('DELETE FROM orders')"
    safe = dags.check("database_hook_safe", HOOK.replace("DELETE\n", f"{delete}\n"), INPUTS + CONNECTION)
    assert safe.worst is Verdict.SAFE, safe.findings


# --- hostile ones -----------------------------------------------------------------------------


def test_a_process_that_ends_within_a_transaction_leaves_nothing_of_it(check: Check) -> None:
    lines = (CONNECT, "globals()['kept'] = database", "database.execute('BEGIN IMMEDIATE')", INSERT)
    ends = {
        "os._exit(0)": Verdict.ERROR,
        "return": Verdict.SAFE,
        "raise ValueError": Verdict.ERROR,
    }
    for end, worst in ends.items():
        verdicts = check(dag(*lines, end))
        assert verdicts.worst is worst, (end, verdicts.results)


def test_connections_that_lock_each_other_fail_without_waiting(check: Check) -> None:
    lines = (
        *(
            CONNECT,
            "import time",
            "began = time.time()",
            "other = sqlite3.connect('/data/shop.db', timeout=3600)",
        ),
        *(
            INSERT,
            "try:",
            "    other.execute('DELETE FROM orders')",
            "except sqlite3.OperationalError as error:",
        ),
        "    assert str(error) == 'database is locked' and time.time() - began >= 3600",
    )
    assert check(dag(*lines)).worst is Verdict.SAFE


REACHING = {
    "thread": (
        "threading.Thread(target=lambda: sqlite3.connect('/data/t.db')).start()",
        "a thread made changes",
    ),
    "fork": (f"{CONNECT}; os.fork()", "forking a process"),
    "core": ("import _sqlite3; _sqlite3.connect('/data/shop.db')", "opening the SQLite file /data/shop.db"),
}


@pytest.mark.parametrize("name", REACHING)
def test_what_cannot_be_followed_is_told(check: Check, name: str) -> None:
    act, what = REACHING[name]
    verdicts = check(dag(act))
    assert verdicts["clean"].verdict is Verdict.UNVERIFIABLE
    assert what in (verdicts["clean"].reason or "")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks for the folder there")
def test_nothing_is_left_of_a_worker_that_died(dags: Project, check: Check) -> None:
    segfault = "import faulthandler; faulthandler._sigsegv()"
    verdicts = check(dag(CONNECT, "database.execute('BEGIN IMMEDIATE')", INSERT, segfault))
    assert "SIGSEGV" in (verdicts["clean"].reason or "")
    assert dags.checker._zygote is not None
    files = f"/proc/{dags.checker._zygote._pid}/fd"
    targets = [os.readlink(f"{files}/{fd}") for fd in os.listdir(files)]
    (folder,) = {target for target in targets if scratch._PREFIX in target}
    assert [name for _, _, names in os.walk(folder) for name in names] == []
