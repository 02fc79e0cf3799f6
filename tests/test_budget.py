"""Checks that may take only so long: what is cut off is counted, named and never called safe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from dag_projects import Project, Verdicts, _prepare

from pytest_rerunsafe.budget import Budget, Left
from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.explore.jobs import Job, RecoverJob
from pytest_rerunsafe.explore.messages import Answer, Cut
from pytest_rerunsafe.model import RecoveryKind, Verdict
from pytest_rerunsafe.settings import DagSettings, Settings

# --- the time itself --------------------------------------------------------------------------


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_only_time_that_is_spent_counts() -> None:
    watch = Watch()
    budget = Budget(10, watch, processes=1)
    with budget.spending():
        watch.now += 3
        assert budget.left() == 7
    watch.now += 100
    assert budget.left() == 7
    with budget.spending():
        watch.now += 9
    assert budget.left() == -2


def share(part: int, whole: int, processes: int = 1) -> float:
    left = Budget(12, Watch(), processes).share(part, whole)
    assert left is not None
    return left()


def test_checks_that_come_later_keep_their_share() -> None:
    assert share(2, 6) == 4
    assert share(6, 6) == 12


def test_processes_that_share_the_checks_spend_at_the_same_time() -> None:
    assert share(1, 6, processes=3) == 6
    assert share(3, 6, processes=3) == 12


def test_without_a_bound_there_is_nothing_to_share() -> None:
    budget = Budget(None, Watch(), processes=1)
    assert budget.share(1, 2) is None
    assert budget.left() == inf


# --- checks -----------------------------------------------------------------------------------


class Stingy(Checker):
    """Has a number of trials done before the time is up, in the order in which they are asked for."""

    trials = 0

    def _run(self, file: str, jobs: Sequence[Job], left: Left | None = None) -> list[Answer]:
        done = len(jobs) if left is None else min(self.trials, len(jobs))
        if left is not None:
            self.trials -= done
        return [*super()._run(file, jobs[:done]), *[Cut()] * (len(jobs) - done)]


SETTINGS = Settings(budget=60, dag={"no_time": DagSettings(budget=1e-9)})


@pytest.fixture(scope="module")
def stingy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, int], Verdicts]]:
    root = tmp_path_factory.mktemp("stingy").resolve()
    project = Project(root, SETTINGS)
    project.checker = checker = Stingy(settings=SETTINGS, rootdir=root, prepare=_prepare)

    def check(name: str, source: str, trials: int) -> Verdicts:
        checker.trials = trials
        (dag,) = checker.load(project.write(name, source)).dags
        checks = checker.checks_of(dag)
        return Verdicts.of({each: checker.run(dag, each, checks) for each in checks})

    yield check
    checker.close()


SAFE = """
    import os
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def {name}():
        @task
        def first():
            with open("/first.tmp", "w") as file:
                file.write("1")
            os.replace("/first.tmp", "/first")

        @task
        def second():
            with open("/second", "w") as file:
                file.write("2")

        first() >> second()

    {name}()
"""


def test_what_is_cut_off_is_counted_named_and_not_safe(stingy: Callable[..., Verdicts]) -> None:
    found = stingy("half", SAFE.format(name="half"), 4)
    assert {check: result.verdict for check, result in found.results.items()} == {
        "clean": Verdict.SAFE,
        "rerun": Verdict.SAFE,
        "crash.first": Verdict.UNVERIFIABLE,
        "crash.second": Verdict.UNVERIFIABLE,
    }
    first, second = found["crash.first"], found["crash.second"]
    assert first.reason == (
        "15 of 18 scenarios were not tried in the budget of 60 s: first@create:/first.tmp (5), first@rename:/first (5), "
        "first@state:running (3), first@write:/first.tmp (2). Raise the budget (--rerun-safety-budget), or choose a "
        "profile that explores less."
    )
    coverage = first.coverage
    assert (coverage.distinct_states, coverage.explored, coverage.recoveries) == (4, 1, 3)
    assert not coverage.exhaustive
    assert (second.coverage.explored, second.coverage.recoveries, second.coverage.exhaustive) == (0, 0, False)


MARKER_LAST = """
    import os
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def marker_last():
        @task
        def write(number):
            with open(f"/{number}", "w") as file:
                file.write("line")

        @task
        def publish():
            if not os.path.exists("/done"):
                with open("/out", "a") as file:
                    file.write("line")
                open("/done", "w").close()

        [write.override(task_id=f"write_{number}", retries=number)(number) for number in range(9)] >> publish()

    marker_last()
"""


def test_what_is_likely_to_fail_comes_first_in_whatever_task_it_is(stingy: Callable[..., Verdicts]) -> None:
    reruns_and_two_states = 11 + 2
    found = stingy("marker_last", MARKER_LAST, reruns_and_two_states)
    assert found["rerun"].verdict is Verdict.SAFE
    assert found["crash.publish"].verdict is Verdict.UNSAFE
    assert [found[f"crash.write_{number}"].coverage.explored for number in range(9)] == [0] * 9


APPEND = """
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def {name}():
        @task
        def load():
            with open("/out", "a") as file:
                file.write("line")

        load()

    {name}()
"""


@pytest.mark.parametrize(
    ("name", "source"), [("enough", SAFE.format(name="enough")), ("loads", APPEND.format(name="loads"))]
)
def test_with_time_enough_all_is_as_without_a_bound(
    stingy: Callable[..., Verdicts], dags: Project, name: str, source: str
) -> None:
    bounded, free = stingy(name, source, 1_000), dags.check(name, source)
    assert bounded.results.keys() == free.results.keys()
    for check, result in free.results.items():
        assert replace(bounded[check], duration_s=0) == replace(result, duration_s=0)


def test_what_is_found_is_unsafe_and_what_was_not_tried_is_told(stingy: Callable[..., Verdicts]) -> None:
    found = stingy("append", APPEND.format(name="append"), 2)
    crash = found["crash.load"]
    assert crash.verdict is Verdict.UNSAFE or found["rerun"].verdict is Verdict.UNSAFE
    assert crash.reason is not None
    assert "of 10 scenarios were not tried" in crash.reason


def test_no_time_at_all_leaves_the_clean_runs(stingy: Callable[..., Verdicts]) -> None:
    source = SAFE.format(name="no_time").replace("schedule=None", "schedule='@daily'")
    found = stingy("no_time", source, 0)
    assert found["clean"].verdict is Verdict.SAFE
    rest = [result for check, result in found.results.items() if check != "clean"]
    assert {result.verdict for result in rest} == {Verdict.UNVERIFIABLE}
    assert sum(result.coverage.recoveries for result in rest) == 0
    assert found["backfill"].reason == (
        "nothing of it was tried in the budget of 1e-09 s. Raise the budget (--rerun-safety-budget), "
        "or choose a profile that explores less."
    )


def test_a_budget_is_kept_by_the_clock(tmp_path: Path) -> None:
    watch = Watch()
    asked: list[Job] = []

    class Timed(Checker):
        """Each time that something is run takes half an hour."""

        def _run(self, file: str, jobs: Sequence[Job], left: Left | None = None) -> list[Answer]:
            watch.now += 1_800
            asked.extend(job for job in jobs if isinstance(job, RecoverJob))
            return super()._run(file, jobs, left)

    project = Project(tmp_path.resolve(), Settings())
    checker = Timed(settings=Settings(budget=3_600), rootdir=project.root, prepare=_prepare, clock=watch)
    try:
        (dag,) = checker.load(project.write("timed", APPEND.format(name="timed"))).dags
        results = [checker.run(dag, check) for check in ("clean", "crash.load")]
    finally:
        checker.close()
    assert asked, "after half an hour there is time left"
    assert results[1].verdict is Verdict.UNVERIFIABLE, "after an hour there is none"
    assert results[1].coverage.recoveries == 0


def test_a_replay_has_all_the_time_it_needs(tmp_path: Path) -> None:
    project = Project(tmp_path.resolve(), Settings())
    checker = Checker(settings=Settings(budget=1e-9), rootdir=project.root, prepare=_prepare)
    try:
        (dag,) = checker.load(project.write("again", APPEND.format(name="again"))).dags
        story = checker.replay(f"again:load@state:running#1:kill:{RecoveryKind.CLEAR_DOWNSTREAM}", [dag.file])
    finally:
        checker.close()
    assert story.endswith("Verdict: as after a clean run"), story
