"""What tells that the order of sets matters to code, and what comes of interpreters with other orders."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from datetime import datetime, timezone
from types import CodeType

import pytest
from dag_projects import Project
from test_points import recording
from test_rules_on_dags import in_dag

from pytest_rerunsafe.clean import CleanRuns, judge_clean_runs
from pytest_rerunsafe.compare.counting import Counting
from pytest_rerunsafe.explore.messages import Done
from pytest_rerunsafe.explore.sources import depends_on_hashes, mentions_sets
from pytest_rerunsafe.explore.zygote import Zygote
from pytest_rerunsafe.model import DagInfo, Recording, Rule, Verdict
from pytest_rerunsafe.study import HASH_SEEDS


def function(body: str) -> CodeType:
    """The code of a function with this body."""
    module = compile(f"def f(rows, a, b):\n{textwrap.indent(body, '    ')}\n", "x.py", "exec")
    return next(const for const in module.co_consts if isinstance(const, CodeType))


@pytest.mark.parametrize(
    "body",
    [
        "return {a, b}",
        "return [x for x in {'a', 'b'}]",
        "for x in {'a', 'b'}: pass",
        "return set(rows)",
        "return frozenset(rows)",
        "return hash(a) % 4",
        "return {*rows}",
        "return a.keys() & b.keys()",
        "return a.keys() - b",
        "return a.union(b)",
        "a |= b.items()",
    ],
)
def test_code_that_makes_sets_or_asks_for_hashes(body: str) -> None:
    code = function(body)
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    assert any(map(depends_on_hashes, (code, *inner)))


@pytest.mark.parametrize(
    "body",
    [
        "return [*rows]",
        "return {a: b}",
        "return a in {'a', 'b'}",
        "return a - b",
        "return a.keys()",
        "return {x: 1 for x in rows}",
        "return tuple(rows)",
    ],
)
def test_code_that_does_not(body: str) -> None:
    assert not depends_on_hashes(function(body))


@pytest.mark.parametrize(
    ("source", "does"),
    [
        ("x = {1, 2}", True),
        ("x = {y for y in z}", True),
        ("def f(): return set()", True),
        ("x = hash('a')", True),
        ("x = {}", False),
        ("x = {1: 2}", False),
        ("x = f'{y}'", False),
        ("x.set()", False),
        ("x = {", False),
        ("\0", False),
    ],
)
def test_text_that_mentions_sets(source: str, does: bool) -> None:
    assert mentions_sets(source) is does


@pytest.mark.parametrize(("line", "seeds"), [("{1}", [*HASH_SEEDS]), ("{}", [])])
def test_other_interpreters_begin_when_a_file_is_loaded_that_mentions_sets(
    dags: Project, monkeypatch: pytest.MonkeyPatch, line: str, seeds: list[int]
) -> None:
    begun: list[int] = []
    monkeypatch.setattr(dags.checker, "_others", {})
    monkeypatch.setattr(Zygote, "begin", lambda rootdir, seed: begun.append(seed))
    body = "@task\ndef t():\n    return 1\nt()\n"
    dags.load(f"mentions_{len(seeds)}", f"{in_dag(body)}\nX = {line}\n")
    assert begun == seeds


TASKS = """
    @task
    def name(word: str):
        assert {word}
        with open("/data/log", "a") as log:
            log.write(f"{word}\\n")
    [name.override(task_id=f"name_{word}")(word) for word in ("ann", "bob", "cy", "dee", "eve")]
"""


def test_airflow_runs_tasks_in_one_order_whatever_that_of_sets_is(dags: Project) -> None:
    (dag,) = dags.checker.load(dags.write("tasks_side_by_side", in_dag(TASKS), "world.mkdir('/data')")).dags
    result = dags.checker.run(dag, "clean")
    assert (result.verdict, result.findings, result.notes) == (Verdict.SAFE, (), ())


def test_what_a_fresh_interpreter_cannot_run_is_a_note(dags: Project) -> None:
    """As a conftest.py may put stand-ins for modules in place, of which a fresh interpreter does not know."""
    source = in_dag(
        """
        import sys
        @task
        def write():
            assert "dag_projects" in sys.modules, "no tests"
            Path("/data/out").write_text(str({1, 2}))
        write()
        """
    )
    (dag,) = dags.checker.load(dags.write("knows_pytest", source, "world.mkdir('/data')")).dags
    result = dags.checker.run(dag, "clean")
    assert result.verdict is Verdict.SAFE
    (note,) = result.notes
    assert note == (
        "the order of sets was not varied: in an interpreter without your conftest.py, AssertionError: no tests"
    )


DAG = DagInfo(
    dag_id="d",
    file="/d.py",
    line=1,
    tasks=(),
    is_scheduled=False,
    logical_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
)
FINE = recording()
FAILED = replace(
    FINE,
    outcome=replace(
        FINE.outcome,
        run_state="failed",
        attempts=tuple(
            replace(each, state="failed", error="KeyError: 'x'") for each in FINE.outcome.attempts
        ),
    ),
)


def judged(*orders: Recording) -> CleanRuns:
    return judge_clean_runs(DAG, "d.py", [Done(FINE)] * 3, Counting(), [*map(Done, orders)])


def test_a_run_that_fails_by_one_order_of_sets_alone_is_a_finding() -> None:
    (finding,) = judged(FINE, FAILED).findings
    assert (finding.rule, finding.summary) == (
        Rule.NONDETERMINISTIC_OUTPUT,
        "a second clean run fails: KeyError: 'x'",
    )
    clean = judged(FAILED, FAILED)
    assert (clean.verdict, clean.findings, len(clean.notes)) == (Verdict.SAFE, (), 1)
    assert judged(FINE, FINE).notes == ()
