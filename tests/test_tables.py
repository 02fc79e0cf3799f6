"""Databases compared by what their tables hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pytest_rerunsafe.compare.differences import diff_outputs
from pytest_rerunsafe.compare.effects import outputs_of_effect
from pytest_rerunsafe.compare.formats import is_same
from pytest_rerunsafe.compare.rules import Evidence, classify
from pytest_rerunsafe.compare.volatile import Volatility, find_volatile
from pytest_rerunsafe.model import Difference, Effect, Output, Rule, Splice
from pytest_rerunsafe.world import databases_dump
from pytest_rerunsafe.world.databases_dump import dumped

NAME = "file:/data/x.db"
ORDERS = "CREATE TABLE orders (day TEXT, cents INTEGER)"
KEYED = "CREATE TABLE orders (id INTEGER PRIMARY KEY, day TEXT)"
COUNTED = "CREATE TABLE orders (id INTEGER NOT NULL, day TEXT, PRIMARY KEY (id))"
COUNTING = "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT)"


class Maker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def content(self, *statements: str) -> bytes:
        """The bytes of a database that these make."""
        path = self._folder / "made.db"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.executescript(statement)
        return path.read_bytes()

    def output(self, *statements: str) -> dict[str, Output]:
        return {NAME: Output(name=NAME, content=dumped(self.content(*statements)))}

    def differences(self, clean: Sequence[str], rerun: Sequence[str]) -> tuple[Difference, ...]:
        return diff_outputs(self.output(*clean), self.output(*rerun), Volatility.none())

    def summary(self, clean: Sequence[str], rerun: Sequence[str]) -> str:
        """What differs, in words; empty if nothing does."""
        found = self.differences(clean, rerun)
        return found[0].summary if found else ""


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def insert(*values: str) -> str:
    return f"INSERT INTO orders VALUES {', '.join(values)}"


# --- the dump ---------------------------------------------------------------------------------


DUMP = """\
{"(format)": "SQLite"}
{"(schema)": {"by_day": "CREATE INDEX by_day ON orders (day)"}}
{"(schema)": {"orders": "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT)"}}
{"(schema)": {"w": "CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID"}}
{"(autoincrement)": {"orders": "id"}}
{"orders": {"id": 1, "day": "a\\nb"}}
{"orders": {"id": 2, "day": null}}
{"w": {"k": "é", "v": {"hex": "00ff"}}}
{"w": {"k": "ü", "v": 1.5}}
"""


@pytest.mark.parametrize("has_deserialize", [True, False])
def test_a_dump_holds_schema_and_rows(
    made: Maker, monkeypatch: pytest.MonkeyPatch, has_deserialize: bool
) -> None:
    if not has_deserialize:
        monkeypatch.setattr(databases_dump, "_DESERIALIZE", None)
    content = made.content(
        "PRAGMA journal_mode = WAL",
        COUNTING,
        "CREATE INDEX by_day ON orders (day)",
        "INSERT INTO orders (day) VALUES ('a\nb'), (NULL)",
        "CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO w VALUES ('ü', 1.5), ('é', x'00ff')",
    )
    assert content[18:20] == b"\2\2"
    databases_dump._dumped.cache_clear()
    assert dumped(content).decode() == DUMP
    databases_dump._dumped.cache_clear()


def test_what_is_no_database_stays_as_it_is(made: Maker) -> None:
    damaged = made.content(ORDERS, insert("('a', 1)"))[:5000]
    for content in (b"", b"text", b"SQLite format 3\0", damaged):
        assert dumped(content) == content


def test_of_a_virtual_table_its_rows_are_dumped(made: Maker) -> None:
    try:
        content = made.content("CREATE VIRTUAL TABLE f USING fts5(x)", "INSERT INTO f VALUES ('word')")
    except sqlite3.OperationalError:
        pytest.skip("SQLite was built without FTS5")
    assert dumped(content).decode().splitlines()[1:] == [
        '{"(schema)": {"f": "CREATE VIRTUAL TABLE f USING fts5(x)"}}',
        '{"f": {"x": "word"}}',
    ]


# --- what differs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clean", "rerun", "summary"),
    [
        ([ORDERS, insert("('a', 1)", "('b', 2)")], [ORDERS, insert("('b', 2)"), insert("('a', 1)")], ""),
        (
            [ORDERS, insert("('a', 1)")],
            [ORDERS, *[insert("('a', 1)")] * 2],
            "table `orders`: the only row twice",
        ),
        (
            [ORDERS, insert("('a', 1)", "('b', 2)", "('c', 3)")],
            [ORDERS, insert("('a', 1)", "('b', 2)", "('c', 3)", "('b', 2)")],
            "table `orders`: 1 of 3 rows twice",
        ),
        (
            [ORDERS, insert("('a', 1)", "('b', 2)", "('c', 3)")],
            [ORDERS, insert("('a', 1)")],
            "table `orders`: rows 2 to 3 missing",
        ),
        ([ORDERS, insert("('a', 1)")], [ORDERS, insert("('a', 2)")], "table `orders`: the only row differs"),
        ([ORDERS, "CREATE TABLE b (x)"], ["CREATE TABLE b (x)"], "table `orders` is missing"),
        (["CREATE TABLE b (x)"], [ORDERS, "CREATE TABLE b (x)"], "extra table `orders`"),
        ([ORDERS], [ORDERS, "CREATE INDEX i ON orders (day)"], "extra index `i`"),
        ([ORDERS], ["CREATE TABLE orders (day)"], "table `orders` is defined otherwise"),
        (
            [ORDERS, "CREATE TABLE b (x)", insert("('a', 1)")],
            ["CREATE TABLE b (x)", "INSERT INTO b VALUES (1)"],
            "table `orders` is missing, and 1 more",
        ),
    ],
)
def test_differences_are_told_by_table(made: Maker, clean: list[str], rerun: list[str], summary: str) -> None:
    assert made.summary(clean, rerun) == summary


def test_only_the_rows_that_differ_are_shown(made: Maker) -> None:
    rows = insert("('a', 1)", "('b', 2)", "('c', 3)")
    (found,) = made.differences([ORDERS, rows], [ORDERS, rows, "UPDATE orders SET cents = 5 WHERE day = 'b'"])
    assert found.clean == '...\norders: {"day": "b", "cents": 2}\n...'
    assert found.rerun == '...\norders: {"day": "b", "cents": 5}\n...'


@pytest.mark.parametrize("table", [KEYED, COUNTED, COUNTING])
def test_keys_that_sqlite_makes_may_be_other_ones(made: Maker, table: str) -> None:
    clean = [table, insert("(1, 'a')", "(2, 'b')")]
    assert made.summary(clean, [table, insert("(7, 'a')", "(8, 'b')")]) == ""
    twice = [*clean, insert("(3, 'a')", "(4, 'b')")]
    assert made.summary(clean, twice) == "table `orders`: all 2 rows twice"
    (found,) = made.differences(clean, [table, insert("(1, 'a')")])
    assert (found.summary, found.clean) == (
        "table `orders`: row 2 missing",
        '...\norders: {"id": 2, "day": "b"}',
    )


def test_a_key_of_another_row_counts_unless_sqlite_alone_makes_them(made: Maker) -> None:
    clean, rerun = insert("(1, 'a')", "(2, 'b')"), insert("(1, 'b')", "(2, 'a')")
    assert made.summary([KEYED, clean], [KEYED, rerun]) == "table `orders`: all 2 rows differ"
    assert made.summary([COUNTING, clean], [COUNTING, rerun]) == ""
    only = "CREATE TABLE done (id INTEGER PRIMARY KEY)"
    done = [[only, f"INSERT INTO done VALUES ({number})"] for number in (1, 2)]
    assert made.summary(*done) == "table `done`: the only row differs"


LINES = "CREATE TABLE lines (id INTEGER PRIMARY KEY, of INTEGER REFERENCES orders, amount)"


def test_a_row_that_refers_to_another_by_such_a_key_follows_it(made: Maker) -> None:
    def filled(numbers: tuple[int, int], *lines: tuple[int, int, int]) -> list[str]:
        one, other = numbers
        rows = ", ".join(map(str, lines))
        return [KEYED, LINES, insert(f"({one}, 'a')", f"({other}, 'b')"), f"INSERT INTO lines VALUES {rows}"]

    clean = filled((1, 2), (1, 1, 10), (2, 2, 20))
    assert made.summary(clean, filled((7, 8), (1, 7, 10), (2, 8, 20))) == ""
    assert made.summary(clean, filled((7, 8), (5, 7, 10), (6, 8, 20))) == ""
    # The same rows, and one of them refers to another than before; or to none.
    assert made.summary(clean, filled((7, 8), (1, 8, 10), (2, 8, 20))) == "table `lines`: row 1 differs"
    assert made.summary(clean, filled((7, 8), (1, 1, 10), (2, 8, 20))) == "table `lines`: row 1 differs"


def test_rows_that_refer_to_each_other_in_a_circle_are_compared(made: Maker) -> None:
    tree = "CREATE TABLE tree (id INTEGER PRIMARY KEY, above INTEGER REFERENCES tree (id), name)"
    clean = [tree, "INSERT INTO tree VALUES (1, 2, 'a'), (2, 1, 'b')"]
    assert made.summary(clean, clean) == ""
    other = [tree, "INSERT INTO tree VALUES (1, 2, 'a'), (2, 1, 'c')"]
    assert made.summary(clean, other) == "table `tree`: row 2 differs"


def test_a_database_and_what_is_none_are_compared_as_bytes(made: Maker) -> None:
    clean = made.output(ORDERS)
    for content, summary in ((b"", "file is empty"), (b"text", "differs from byte 1 on")):
        (found,) = diff_outputs(clean, {NAME: Output(name=NAME, content=content)}, Volatility.none())
        assert found.summary.startswith(summary)


def test_a_torn_copy_is_damaged(made: Maker) -> None:
    clean, torn = made.output(ORDERS), made.content(ORDERS)[:4096]
    (found,) = diff_outputs(clean, {NAME: Output(name=NAME, content=dumped(torn))}, Volatility.none())
    assert found.summary == "file is damaged: no SQLite file that can be read"


def test_times_and_ids_are_masked_cell_by_cell(made: Maker) -> None:
    table = "CREATE TABLE orders (key TEXT PRIMARY KEY, at TEXT, n INTEGER) WITHOUT ROWID"
    runs = [
        made.output(table, insert(f"('{one}', '{day} 10:00:00', 1)", f"('{two}', '{day} 10:00:01', 2)"))
        for one, two, day in [
            ("6f1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "9a1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "2024-01-01"),
            ("6f1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "9a1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "2024-03-05"),
            ("ff1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "0a1c8f4e-0b5e-4b8e-9f60-0d0c7f3b1a2d", "2024-01-01"),
        ]
    ]
    volatility = find_volatile(*runs)
    assert volatility.problems == ()
    assert volatility.places() == (f"{NAME[5:]}: time in `orders.at`, id in `orders.key`",)
    masked = [volatility.mask(NAME, run[NAME].content) for run in runs]
    assert all(is_same(NAME, masked[0], other) for other in masked[1:])


def test_a_commit_changes_a_file_once_however_many_pages_it_changes() -> None:
    changes = tuple((path, Splice(offset=0, removed=1, data=b"x")) for path in ("/data/x.db", "/y", "/y"))
    assert outputs_of_effect(Effect(kind="commit", target="/y", files=changes)) == (NAME, "file:/y")


# --- rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("crash", "rerun", "rule"),
    [
        ([KEYED], [KEYED, *[insert("(NULL, 'a')", "(NULL, 'b')")] * 2], Rule.DUPLICATE_OUTPUT),
        ([KEYED, insert("(1, 'a')")], [KEYED, insert("(1, 'a')")], Rule.PARTIAL_OUTPUT_ACCEPTED),
        ([KEYED], [KEYED], Rule.LOST_OUTPUT),
        ([], [KEYED, insert("(1, 'a')")], Rule.LOST_OUTPUT),
        ([KEYED, insert("(9, 'z')")], [KEYED, insert("(1, 'a')", "(2, 'b')", "(9, 'z')")], Rule.STALE_OUTPUT),
        ([], [KEYED, insert("(1, 'a')", "(2, 'c')")], Rule.WRONG_OUTPUT),
    ],
)
def test_rules_judge_rows(made: Maker, crash: list[str], rerun: list[str], rule: Rule) -> None:
    clean, after = made.output(KEYED, insert("(1, 'a')", "(2, 'b')")), made.output(*rerun)
    evidence = Evidence(
        clean=clean,
        rerun=after,
        crash=made.output(*crash),
        differences=diff_outputs(clean, after, Volatility.none()),
        written_after=(NAME,),
    )
    assert classify(evidence) is rule
