"""Of attempts that did alike some are crashed for all; whoever did otherwise, or may have, is crashed for himself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import pytest
from dag_projects import Project

from pytest_rerunsafe.explore.representatives import representatives, stand_ins
from pytest_rerunsafe.explore.scenarios import crash_trials
from pytest_rerunsafe.model import (
    Attempt,
    CrashKind,
    DagInfo,
    Effect,
    Location,
    Node,
    NodeKind,
    Outcome,
    Profile,
    Recording,
    TaskInfo,
    Verdict,
    WorldState,
)

NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)
WORLD = WorldState(files={}, rows={}, clock=NOW)
NODE = Node(kind=NodeKind.FILE, content=b"")
RUN = ("d", "r")


def dag(*tasks: TaskInfo) -> DagInfo:
    return DagInfo(dag_id="d", file="d.py", line=1, tasks=tasks, is_scheduled=False, logical_date=NOW)


def task(task_id: str, operator: str = "@task", retries: int = 0) -> TaskInfo:
    return TaskInfo(task_id=task_id, operator=operator, downstream=(), retries=retries, calls_back=False)


def attempt(task_id: str, map_index: int = -1, state: str = "success", may_retry: bool = False) -> Attempt:
    return Attempt(
        run=RUN,
        task_id=task_id,
        map_index=map_index,
        try_number=1,
        started=NOW,
        state=state,
        may_retry=may_retry,
    )


def effect(kind: str = "create", line: int | None = 1) -> Effect:
    stack = () if line is None else (Location(file="d.py", line=line, function="f"),)
    return Effect(kind=kind, target="/o", files=(("/o", NODE),), stack=stack)


def recording(*ran: tuple[Attempt, Sequence[Effect]]) -> Recording:
    running = Effect(kind="state", target="running", rows=((("task_instance", 1), ("running",)),))
    effects = [replace(one, attempt=index) for index, (_, own) in enumerate(ran) for one in (running, *own)]
    attempts = tuple(each for each, _ in ran)
    outcome = Outcome(run_state="success", task_states={}, attempts=attempts, outputs={})
    return Recording(
        initial=WORLD, effects=tuple(effects), final=WORLD, run=RUN, outcome=outcome, situations={}
    )


@pytest.mark.parametrize(
    ("size", "chosen"), [(1, (0,)), (3, (0, 1, 2)), (5, (0, 1, 2, 4)), (101, (0, 1, 50, 100))]
)
def test_first_second_middle_and_last_stand_for_all(size: int, chosen: tuple[int, ...]) -> None:
    assert representatives(range(size)) == chosen


NAMES = [f"t{number}" for number in range(9)]
ALIKE = recording(*((attempt(name), [effect()]) for name in NAMES))


def test_tasks_that_did_alike_stand_for_each_other() -> None:
    found = stand_ins(dag(*map(task, NAMES)), ALIKE, Profile.DEFAULT)
    assert found == dict.fromkeys(range(9), (0, 1, 4, 8))


def test_of_four_each_is_crashed() -> None:
    run = recording(*((attempt(name), [effect()]) for name in NAMES[:4]))
    found = stand_ins(dag(*map(task, NAMES[:4])), run, Profile.DEFAULT)
    assert found == dict.fromkeys(range(4), (0, 1, 2, 3))


def test_in_thorough_each_stands_for_itself() -> None:
    found = stand_ins(dag(*map(task, NAMES)), ALIKE, Profile.THOROUGH)
    assert found == {index: (index,) for index in range(9)}


def test_instances_of_a_mapped_task_stand_for_each_other_whatever_made_their_changes() -> None:
    run = recording(*((attempt("t", index), [effect(line=None)]) for index in range(9)))
    assert stand_ins(dag(task("t")), run, Profile.FAST) == dict.fromkeys(range(9), (0, 1, 4, 8))


OTHERS = {
    "another line": (task("other"), attempt("other"), [effect(line=2)]),
    "another kind of change": (task("other"), attempt("other"), [effect("rename")]),
    "one change more": (task("other"), attempt("other"), [effect(), effect()]),
    "no change": (task("other"), attempt("other"), []),
    "a library's change": (task("other"), attempt("other"), [effect(line=None)]),
    "another operator": (task("other", "PythonOperator"), attempt("other"), [effect()]),
    "retries": (task("other", retries=1), attempt("other"), [effect()]),
    "a retry left": (task("other"), attempt("other", may_retry=True), [effect()]),
    "another end": (task("other"), attempt("other", state="skipped"), [effect()]),
    "a handler": (task("other"), replace(attempt("other"), heeds=(CrashKind.SIGTERM,)), [effect()]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_who_did_otherwise_is_crashed_for_himself(case: str) -> None:
    other, ran, effects = OTHERS[case]
    run = recording(*((attempt(name), [effect()]) for name in NAMES), (ran, effects))
    assert stand_ins(dag(*map(task, NAMES), other), run, Profile.DEFAULT)[9] == (9,)


@pytest.mark.parametrize("effects", [[], [effect(line=None)], [effect(), effect("write", line=None)]])
def test_of_tasks_whose_code_is_not_known_each_is_crashed(effects: list[Effect]) -> None:
    run = recording(*((attempt(name), effects) for name in NAMES))
    found = stand_ins(dag(*map(task, NAMES)), run, Profile.DEFAULT)
    assert found == {index: (index,) for index in range(9)}


def test_what_is_not_crashed_counts_as_not_explored() -> None:
    tasks = dag(*map(task, NAMES))
    first, third = (crash_trials(tasks, ALIKE, name, Profile.DEFAULT) for name in ("t0", "t2"))
    assert (first.distinct, first.explored, first.stand_ins) == (2, 2, ())
    assert (third.distinct, third.explored, third.trials) == (1, 0, ())
    assert third.stand_ins == ("t0", "t1", "t4", "t8")


LOADS = """
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def {name}():
        @task
        def load(number):
            with open(f"/{{number}}", "{mode}") as file:
                file.write("line")

        for number in range(6):
            load.override(task_id=f"load_{{number}}")(number)

    {name}()
"""


def test_a_task_that_others_stand_for_says_so(dags: Project) -> None:
    found = dags.check("many_loads", LOADS.format(name="many_loads", mode="w"))["crash.load_3"]
    assert found.verdict is Verdict.SAFE
    assert (found.coverage.distinct_states, found.coverage.explored, found.coverage.recoveries) == (3, 0, 0)
    assert not found.coverage.exhaustive
    assert found.crash_map == "---"
    assert found.notes == (
        "load_3 is not crashed itself: it did what load_0, load_1, load_2, load_5 did, which are.",
    )


def test_every_task_is_rerun_whether_it_is_crashed_or_not(dags: Project) -> None:
    found = dags.check("many_appends", LOADS.format(name="many_appends", mode="a"))
    unsafe = [check for check, result in found.results.items() if result.verdict is Verdict.UNSAFE]
    assert unsafe == ["rerun", *(f"crash.load_{number}" for number in (0, 1, 2, 5))]
    assert {finding.task_id for finding in found["rerun"].findings} == {f"load_{n}" for n in range(6)}
