"""What is to be done about findings: the pattern that fits, with place and names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_rules import CKPT, CSV, MARK, ROWS, TABLE, evidence

from pytest_rerunsafe.compare.remedies import remedy
from pytest_rerunsafe.compare.rules import Evidence
from pytest_rerunsafe.model import Difference, Location, Rule

HERE = Location(file="dags/a.py", line=31)
FOUND = (Difference(output=CSV, clean="", rerun="", summary=""),)
GONE = Difference(output="file:/d/1f.csv", clean="1", rerun=None, summary="file is missing")
DATABASE = (Difference(output="file:/d/shop.db", clean="", rerun="", summary=""),)
RUNS = (Difference(output="runs:child", clean="1", rerun="2", summary=""),)
TWICE = evidence({CSV: TABLE}, {CSV: TABLE * 2})
SECOND = evidence({MARK: b""}, {MARK: b"", CSV: TABLE})
TOLD = evidence({CSV: TABLE, CKPT: b"10"}, {CSV: b"", CKPT: b"10"}, {CSV: b"", CKPT: b"10"}, CSV, CKPT)


@pytest.mark.parametrize(
    ("rule", "differences", "found", "words"),
    [
        (
            Rule.DUPLICATE_OUTPUT,
            FOUND,
            TWICE,
            ("dags/a.py:31 adds to /d/out.csv", "os.replace", "derive from"),
        ),
        (Rule.DUPLICATE_OUTPUT, FOUND, SECOND, ("one name for all attempts", "dags/a.py:31", "out.csv")),
        (
            Rule.DUPLICATE_OUTPUT,
            DATABASE,
            TWICE,
            ("Delete", "insert them in the same transaction", "dags/a.py:31"),
        ),
        (Rule.DUPLICATE_OUTPUT, RUNS, TWICE, ("trigger_run_id", "logical_date")),
        (Rule.PARTIAL_OUTPUT_ACCEPTED, FOUND, TWICE, ("dags/a.py:31", "/d/out.csv.tmp", "os.replace")),
        (Rule.DAMAGED_CHECKPOINT, (), TWICE, ("dags/a.py:31", "os.replace")),
        (Rule.LOST_OUTPUT, FOUND, TOLD, ("Flush and close /d/out.csv before /d/ckpt.json",)),
        (
            Rule.CLOCK_DEPENDENT,
            FOUND,
            TWICE,
            ("logical_date", "datetime.now()", "dags/a.py:31", "/d/out.csv"),
        ),
        (Rule.STALE_OUTPUT, FOUND, TWICE, ("/d/out.csv", "dags/a.py:31", "start of each attempt")),
        (
            Rule.STALE_OUTPUT,
            FOUND,
            replace(TWICE, is_by_callback=True),
            ("dags/a.py:31 is called when", "nothing takes /d/out.csv back"),
        ),
        (Rule.NONDETERMINISTIC_OUTPUT, (GONE,), TWICE, ("name /d/1f.csv by run_id", "uuid5")),
    ],
)
def test_a_remedy_names_the_place_the_file_and_the_pattern(
    rule: Rule, differences: tuple[Difference, ...], found: Evidence, words: tuple[str, ...]
) -> None:
    text = remedy(rule, HERE, differences, evidence=found)
    for word in words:
        assert word in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("error", "word"),
    [
        ("Traceback\n  File\nFileExistsError: [Errno 17] File exists: '/d'", "exist_ok=True"),
        ("FileNotFoundError: no", "Keep what is gone"),
        ("sqlite3.IntegrityError: UNIQUE constraint failed", "ON CONFLICT"),
        ("sqlite3.OperationalError: no such table: orders", "CREATE TABLE IF NOT EXISTS"),
    ],
)
def test_what_a_rerun_fails_of_tells_what_to_do(error: str, word: str) -> None:
    text = remedy(Rule.RERUN_FAILS, HERE, (), error=error)
    assert word in text
    assert "dags/a.py:31" in text


def test_what_was_taken_away_first_is_named() -> None:
    lost = evidence({CSV: TABLE}, {CSV: b"".join(ROWS[:2])})
    assert "takes something away" in remedy(Rule.LOST_OUTPUT, HERE, FOUND, evidence=lost, last_kind="unlink")
    assert remedy(Rule.LOST_OUTPUT, HERE, FOUND, evidence=lost, last_kind="write") == ""


def test_the_order_of_sets_is_mended_by_sorting() -> None:
    assert "Sort the set" in remedy(Rule.NONDETERMINISTIC_OUTPUT, HERE, FOUND, is_by_sets=True)


@pytest.mark.parametrize(
    "rule", [Rule.RERUN_FAILS, Rule.WRONG_OUTPUT, Rule.PARSE_SIDE_EFFECT, Rule.STALE_XCOM]
)
def test_where_no_more_can_be_said_the_rule_speaks(rule: Rule) -> None:
    assert remedy(rule, HERE, FOUND, evidence=TWICE, error="ValueError: x") == ""
