"""Clears and marks by hand and by name: the options mean what the installed Airflow means by them."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from dag_projects import Project, Verdicts, project

from pytest_rerunsafe.explore.recoveries import after_crash
from pytest_rerunsafe.fixtures import RerunSafetyError, Run
from pytest_rerunsafe.model import Profile, RecoveryKind, Verdict
from pytest_rerunsafe.settings import DagSettings, Settings

HEAD = """\
import os
from datetime import datetime
from pathlib import Path
from airflow.sdk import DAG, Variable, dag, get_current_context, task
"""
PIPELINE = """
@dag(schedule="@daily", start_date=datetime(2024, 1, 1))
def pipeline():
    @task
    def extract(): return [1, 2, 3]
    @task
    def convert(number): Path(f"/data/{number}").write_text("x")
    @task
    def load(): Path("/data/out").write_text("x")
    @task
    def publish(ds=None): Path("/data/published").write_text(ds)
    convert.expand(number=extract()) >> load() >> publish()
pipeline()
"""
FAILING = """
@dag(schedule=None, start_date=datetime(2024, 1, 1))
def failing():
    @task
    def extract(): pass
    @task
    def load():
        raise RuntimeError("no warehouse")
    @task
    def publish(): Path("/data/published").write_text("x")
    extract() >> load() >> publish()
failing()
"""
EVERYTHING = ["extract", "convert[0]", "convert[1]", "convert[2]", "load", "publish"]


def run_of(dags: Project, name: str, body: str, intervals: int = 1) -> Run:
    """A run of the only DAG of a file."""
    file = dags.checker.load(dags.write(name, HEAD + body, "world.mkdir('/data')"))
    assert not file.error, file.error
    (dag,) = file.dags
    return Run(dags.checker, dag, dags.checker.begin(dag, intervals))


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=timezone.utc)


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rerun"),
    [
        ({}, EVERYTHING),
        ({"task_ids": ["load"]}, ["load"]),
        ({"task_ids": ["extract", "publish"]}, ["extract", "publish"]),
        ({"task_ids": ["load"], "downstream": True}, ["load", "publish"]),
        ({"task_ids": ["load"], "upstream": True}, EVERYTHING[:-1]),
        ({"task_ids": [("convert", 1)]}, ["convert[1]"]),
        ({"only_failed": True}, []),
        ({"only_running": True}, []),
        ({"pattern": "ish"}, ["publish"]),
        ({"pattern": "^publish$"}, []),  # no regular expression, whatever the command line's option is called
        ({"pattern": "loa", "downstream": True}, ["load", "publish"]),
        ({"task_ids": ["load"], "start": day(1), "end": day(1)}, ["load"]),
        ({"task_ids": ["load"], "start": day(2), "end": day(9)}, []),
    ],
)
def test_a_clear_reruns_what_airflow_selects(
    dags: Project, options: dict[str, Any], rerun: list[str]
) -> None:
    run = run_of(dags, "pipeline", PIPELINE)
    assert sorted(run.attempts) == sorted(EVERYTHING)
    assert sorted(run.clear(**options)) == sorted(rerun)
    assert sorted(run.attempts) == sorted(rerun)
    assert run.state == "success"


def test_past_and_future_reach_other_runs(dags: Project) -> None:
    run = run_of(dags, "pipeline", PIPELINE, intervals=3)
    assert run.clear(task_ids=["publish"], past=True) == ("publish",)
    assert run.outputs["file:/data/published"] == b"2024-01-01"
    cleared = run.clear(task_ids=["publish"], future=True)
    assert [name.rpartition("/")[2] for name in cleared] == ["publish"] * 3
    assert run.attempts == ("publish",) * 3


def test_a_failed_task_is_cleared_or_marked_and_the_run_goes_on(dags: Project) -> None:
    run = run_of(dags, "failing", FAILING)
    assert dict(run.states) == {"extract": "success", "load": "failed", "publish": "upstream_failed"}
    assert run.clear(only_failed=True) == ("load", "publish")
    assert (run.state, run.attempts) == ("failed", ("load",))
    assert run.mark("load", "success") == ("load", "publish")
    assert (run.state, run.attempts) == ("success", ("publish",))
    assert run.outputs["file:/data/published"] == b"x"


def test_a_task_that_is_marked_failed_can_be_cleared_as_such(dags: Project) -> None:
    run = run_of(dags, "pipeline", PIPELINE)
    assert run.mark("load", "failed") == ("load",)
    assert (run.attempts, run.states["load"]) == ((), "failed")
    assert run.clear(only_failed=True) == ("load",)


def test_a_backfill_reprocesses_what_it_is_told_to(dags: Project) -> None:
    run = run_of(dags, "pipeline", PIPELINE, intervals=2)
    assert run.backfill(day(1), day(2)) == ()
    run.mark("", "failed")
    run.backfill(day(1), day(2), reprocess="failed")
    assert sorted(run.attempts) == sorted(EVERYTHING)
    run.backfill(day(1), day(2), reprocess="completed", backwards=True, max_active_runs=1)
    assert sorted(run.attempts) == sorted(EVERYTHING * 2)
    assert run.outputs["file:/data/published"] == b"2024-01-01"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda run: run.clear(recursive=True), "Airflow 3 does not follow ExternalTaskMarker"),
        (lambda run: run.clear(only_failed=True, only_running=True), "only_failed and only_running both"),
        (lambda run: run.clear(pattern="a", task_ids=["load"]), "a pattern goes with"),
        (lambda run: run.mark("laod", "failed"), "no task 'laod' in pipeline; tasks: convert, extract, load"),
        (lambda run: run.mark("", "skipped"), "a run cannot be marked 'skipped'; states: success, failed"),
        (lambda run: run.mark("load", "sucess"), "'sucess' is not a valid TaskInstanceState"),
        (lambda run: run.backfill(day(1), day(2), reprocess="all"), "'all' is not a valid ReprocessBehavior"),
    ],
)
def test_what_cannot_be_done_is_said(dags: Project, call: Any, why: str) -> None:
    run = run_of(dags, "pipeline", PIPELINE)
    with pytest.raises(RerunSafetyError, match=why):
        call(run)


SUITE = """
import sys
import pytest
from pytest_rerunsafe.fixtures import RerunSafetyError

def test_checked(rerun_safety):
    rerun_safety.check("pipeline", "clean", "rerun")
    assert rerun_safety.explore("appending", "rerun").verdict == "unsafe"
    assert not any(name.partition(".")[0] == "airflow" for name in sys.modules)

def test_found(rerun_safety):
    rerun_safety.check("appending")

def test_by_hand(rerun_safety):
    run = rerun_safety.run("appending")
    assert run.clear() == ("append",)
    assert run.outputs["file:/data/out"] == b"xx"

def test_unknown(rerun_safety):
    with pytest.raises(RerunSafetyError, match="no DAG 'pipline'; DAGs: appending, pipeline"):
        rerun_safety.run("pipline")
    with pytest.raises(RerunSafetyError, match="no check 'crash' of appending; checks: clean, rerun, crash.append"):
        rerun_safety.explore("appending", "crash")
"""
APPENDING = """
@dag(schedule=None)
def appending():
    @task
    def append():
        with open("/data/out", "a") as out: out.write("x")
    append()
appending()
"""
PREPARE = """
def pytest_rerun_safety_prepare(dag, world):
    world.mkdir("/data")
"""


def test_a_test_suite_uses_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.mkdir("dags")
    (pytester.path / "dags" / "dags.py").write_text(HEAD + PIPELINE + APPENDING)
    pytester.makeconftest(PREPARE)
    pytester.makepyfile(test_suite=SUITE)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_suite.py")
    done.assert_outcomes(passed=3, failed=1)
    done.stdout.fnmatch_lines(
        [
            "*unsafe: duplicate-output in append:*",
            "FAILED test_suite.py::test_found - *unsafe: duplicate-output*",
        ]
    )


# --- by name ----------------------------------------------------------------------------------

CONSUMING = """
@dag(schedule=None, start_date=datetime(2024, 1, 1))
def consuming():
    @task
    def fetch(): Path("/data/inbox").write_text("x")
    @task
    def load(): os.replace("/data/inbox", "/data/out")
    @task
    def tell(): Path("/data/told").write_text(Path("/data/out").read_text())
    fetch() >> load() >> tell()
consuming()
"""


_NUMBERS = count()


def configured(dags: Project, settings: DagSettings, name: str, body: str, prepare: str) -> Verdicts:
    """The checks of the DAG of that name with settings of its own, and thus with an id of its own."""
    dag_id = f"{name}_{next(_NUMBERS)}"
    dags.dag_settings[dag_id] = settings
    return dags.check(dag_id, HEAD + body.replace(name, dag_id), prepare)


def recoveries(dags: Project, settings: DagSettings, name: str, body: str, check: str) -> set[str]:
    """Those that a check's findings name; fails if the check could not be done."""
    result = configured(dags, settings, name, body, "world.mkdir('/data')")[check]
    assert result.verdict in (Verdict.SAFE, Verdict.UNSAFE), result
    return {str(finding.recovery) for finding in result.findings}


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (
            RecoveryKind.CLEAR_TASK,
            {"clear-task"},
        ),  # although Airflow calls the run a success, for `tell` is one
        (RecoveryKind.CLEAR_DOWNSTREAM, {"clear-downstream"}),
        (RecoveryKind.CLEAR_UPSTREAM, set[str]()),  # what it consumes is fetched again
        (RecoveryKind.CLEAR_RUN, set[str]()),
    ],
)
def test_only_the_recoveries_that_are_named_are_tried(
    dags: Project, chosen: RecoveryKind, found: set[str]
) -> None:
    settings = DagSettings(recoveries=(chosen,), outputs=("/data/out", "/data/told"))
    assert recoveries(dags, settings, "consuming", CONSUMING, "rerun") == found


def test_a_check_without_a_named_recovery_is_skipped(dags: Project) -> None:
    settings = DagSettings(recoveries=(RecoveryKind.RETRY,))
    verdicts = configured(dags, settings, "consuming", CONSUMING, "world.mkdir('/data')")
    reasons = {check: result.reason for check, result in verdicts.results.items() if result.reason}
    assert reasons == dict.fromkeys(
        ("rerun", "crash.fetch", "crash.load", "crash.tell"), "`recoveries` names none that this check tries"
    )


def test_a_task_marked_success_lacks_its_output(dags: Project) -> None:
    settings = DagSettings(recoveries=(RecoveryKind.MARK_SUCCESS,))
    assert recoveries(dags, settings, "pipeline", PIPELINE, "crash.load") == {"mark-success"}


def test_thorough_tries_all_clears_that_differ(tmp_path: Path) -> None:
    settings = Settings(profile=Profile.THOROUGH)
    with contextmanager(project)(tmp_path.resolve(), settings) as made:
        file = made.checker.load(made.write("consuming", HEAD + CONSUMING, "world.mkdir('/data')"))
        # `load` alone, with what is above, below, and both; of the others two of these select the same; the run twice.
        assert made.checker.run(file.dags[0], "rerun").coverage.recoveries == 4 + 2 + 2 + 2
        # `tell` has all others above it and nothing below.
        options: dict[str, Any] = {"may_retry": False, "profile": Profile.THOROUGH, "chosen": ()}
        assert after_crash(file.dags[0], "tell", -1, **options) == (
            RecoveryKind.CLEAR_DOWNSTREAM,
            RecoveryKind.CLEAR_RUN,
            RecoveryKind.CLEAR_RUN_DAY_LATER,
            RecoveryKind.CLEAR_RUNNING,
            RecoveryKind.CLEAR_FAILED,
        )


def test_a_task_that_is_cleared_while_it_runs_runs_again_without_a_retry(dags: Project) -> None:
    settings = DagSettings(recoveries=(RecoveryKind.CLEAR_RUNNING,))
    assert recoveries(dags, settings, "appending", APPENDING, "crash.append") == {"clear-running"}


ALL_DONE = """
@dag(schedule=None, start_date=datetime(2024, 1, 1))
def all_done():
    @task
    def first(): pass
    @task
    def middle(): Path("/data/middle").write_text("x")
    @task(trigger_rule="all_done")
    def last(): pass
    first() >> middle() >> last()
all_done()
"""


def test_what_could_not_run_is_cleared_too_although_the_run_is_a_success(dags: Project) -> None:
    # Airflow's clear of `first` leaves `middle` as it is, upstream_failed, and `last` makes the run a success.
    (dag,) = dags.checker.load(dags.write("all_done", HEAD + ALL_DONE, "world.mkdir('/data')")).dags
    assert dags.checker.run(dag, "crash.first").verdict is Verdict.SAFE


# --- another worker ---------------------------------------------------------------------------

STAGING = """
@dag(schedule=None, start_date=datetime(2024, 1, 1))
def staging():
    @task
    def extract(): Path("/scratch/stage").write_text("x")
    @task(retries=1)
    def load(): Path("/data/out").write_text(Path("/scratch/stage").read_text())
    extract() >> load()
staging()
"""
WHOLE = STAGING.replace('Path("/scratch/stage").read_text()', '"x"')
SCRATCH = "world.mkdir('/data'); world.write('/scratch/there', 'before the run')"


@pytest.mark.parametrize(
    ("local", "body", "rules"),
    [
        ((), STAGING, set[str]()),
        (("/scratch",), STAGING, {"worker-local-state"}),
        (("/scratch/stage",), STAGING, {"worker-local-state"}),
        (("/scratch/there", "/scra"), STAGING, set[str]()),
        (("/scratch",), WHOLE, set[str]()),
        (("/scratch",), WHOLE.replace('out").write_text', 'out").open("a").write'), {"duplicate-output"}),
    ],
)
def test_a_rerun_elsewhere_has_no_local_files_of_the_first_worker(
    dags: Project, local: tuple[str, ...], body: str, rules: set[str]
) -> None:
    verdicts = configured(dags, DagSettings(local=local), "staging", body, SCRATCH)
    checks = [verdicts[check] for check in ("rerun", "crash.load")]
    assert {str(finding.rule) for result in checks for finding in result.findings} == rules
    assert {finding.task_id for result in checks for finding in result.findings} <= {"load"}
