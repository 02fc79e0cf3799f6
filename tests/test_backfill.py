"""The check `backfill`: intervals that run out of order, at once, again; with Airflow's own backfill and its refusals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import pytest
from dag_projects import Project, project

from pytest_rerunsafe.model import CheckResult, DagInfo, Profile, Verdict
from pytest_rerunsafe.settings import DagSettings, Settings

HEAD = """\
import os, random
from datetime import datetime, timedelta
from pathlib import Path
from airflow.sdk import DAG, Variable, dag, task

def publish(path, text):
    with open(path + ".tmp", "w") as out:
        out.write(text)
    os.replace(path + ".tmp", path)

def read(path):
    return Path(path).read_text() if os.path.exists(path) else ""

def day_before(ds):
    return (datetime.fromisoformat(ds) - timedelta(days=1)).date().isoformat()
"""


def in_dag(body: str, options: str = "") -> str:
    """A DAG file whose only DAG, `d`, has this body."""
    given = f'schedule="@daily", start_date=datetime(2024, 1, 1), {options}'
    return f"{HEAD}\n@dag({given})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


def backfill_of(dags: Project, name: str, source: str, prepare: str = "world.mkdir('/data')") -> CheckResult:
    """The result of the check `backfill` of the only DAG of a file."""
    (dag,) = loaded(dags, name, source, prepare)
    return dags.checker.run(dag, "backfill")


def loaded(
    dags: Project, name: str, source: str, prepare: str = "world.mkdir('/data')"
) -> tuple[DagInfo, ...]:
    file = dags.checker.load(dags.write(name, source, prepare))
    assert not file.error, file.error
    return file.dags


@dataclass(frozen=True, kw_only=True)
class Case:
    """The body of a DAG and what the check finds."""

    name: str
    body: str
    recoveries: frozenset[str] = frozenset()
    """Of the findings, which must be `order-dependent`; none: it is safe."""
    options: str = ""

    def __str__(self) -> str:
        return self.name


RUNNING_TOTAL = """
@task
def add(ds=None):
    total = int(read(f"/data/{day_before(ds)}") or 0) + int(ds[-2:])
    publish(f"/data/{ds}", str(total))
add()
"""
STAGED = """
@task
def extract(ds=None):
    publish("/data/stage", ds)
@task
def load(ds=None):
    publish(f"/data/{ds}", read("/data/stage"))
    if os.path.exists("/data/stage"):
        os.remove("/data/stage")
extract() >> load()
"""

CASES = (
    Case(
        name="own_data",
        body="""
        @task
        def load(ds=None): publish(f"/data/{ds}", ds)
        load()
        """,
    ),
    Case(name="running_total", body=RUNNING_TOTAL, recoveries=frozenset({"backfill-backwards"})),
    # Airflow refuses to run it backwards, and does not run an interval before the one that it builds on.
    Case(
        name="running_total_depending_on_past",
        body=RUNNING_TOTAL,
        options='default_args={"depends_on_past": True}',
    ),
    Case(
        name="latest",
        body="""
        @task
        def load(ds=None):
            publish("/data/latest", ds)
        load()
        """,
        recoveries=frozenset({"backfill-backwards"}),
    ),
    Case(
        name="latest_never_older",
        body="""
        @task
        def load(ds=None): publish("/data/latest", max(ds, read("/data/latest")))
        load()
        """,
    ),
    Case(
        name="variable_of_the_last_day",
        body="""
        @task
        def load(ds=None): Variable.set("last_day", ds)
        load()
        """,
        recoveries=frozenset({"backfill-backwards"}),
    ),
    # Each interval's records are there once: in which order they were added is no difference.
    Case(
        name="one_file_for_all",
        body="""
        @task
        def load(ds=None):
            others = [line for line in read("/data/all.txt").splitlines() if line != ds]
            publish("/data/all.txt", "".join(f"{line}\\n" for line in [*others, ds]))
        load()
        """,
    ),
    Case(name="staged_one_at_a_time", body=STAGED, options="max_active_runs=1"),
    Case(name="staged", body=STAGED, recoveries=frozenset({"catchup"})),
    Case(
        name="made_anew_each_time",
        body="""
        @task
        def load(ds=None): publish(f"/data/{ds}", f'{{"day": "{ds}", "made": "{datetime.now().isoformat()}"}}')
        load()
        """,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_orders_that_matter_are_told_from_those_that_do_not(dags: Project, case: Case) -> None:
    result = backfill_of(dags, case.name, in_dag(case.body, case.options))
    assert {str(finding.rule) for finding in result.findings} <= {"order-dependent"}, result
    assert {str(finding.recovery) for finding in result.findings} == case.recoveries
    assert result.verdict is (Verdict.UNSAFE if case.recoveries else Verdict.SAFE), result


def test_the_finding_names_the_line_and_both_results(dags: Project) -> None:
    source = in_dag(RUNNING_TOTAL)
    (finding,) = backfill_of(dags, "blamed", source).findings
    assert source.splitlines()[finding.line - 1].strip() == 'os.replace(path + ".tmp", path)'
    assert (finding.task_id, finding.crash_point, finding.crash_kind) == ("add", None, None)
    assert [(d.output, d.clean, d.rerun) for d in finding.differences] == [
        ("file:/data/2024-01-02", "3", "2"),
        ("file:/data/2024-01-03", "6", "3"),
    ]


def test_a_task_that_fails_without_the_day_before_is_found(dags: Project) -> None:
    body = """
        @task
        def add(ds=None):
            if ds != "2024-01-01":
                assert read(f"/data/{day_before(ds)}"), "no yesterday"
            publish(f"/data/{ds}", ds)
        add()
        """
    findings = backfill_of(dags, "failing", in_dag(body)).findings
    assert {(str(finding.rule), str(finding.recovery)) for finding in findings} == {
        ("order-dependent", "backfill-backwards")
    }
    assert "no yesterday" in findings[0].summary


def test_what_a_clear_of_one_run_repeats_is_not_blamed_on_the_order(dags: Project) -> None:
    body = """
        @task
        def load(ds=None):
            with open(f"/data/{ds}", "a") as out:
                out.write(f"{ds}\\n")
        load()
        """
    result = backfill_of(dags, "appending", in_dag(body))
    assert {str(finding.rule) for finding in result.findings} == {"duplicate-output"}


# --- recovered late ---------------------------------------------------------------------------

STAGES = """
@task{options}
def extract(ds=None):
    publish("{stage}", ds)
@task{options}
def load(ds=None):
    publish(f"/data/{{ds}}", read("{stage}"))
extract() >> load()
"""
ONE_STAGE, OWN_STAGE = "/data/stage", '/data/stage-" + ds + "'


@pytest.fixture(scope="module")
def thorough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """As `dags`, by the profile that recovers late."""
    settings = Settings(profile=Profile.THOROUGH, dag={"d": DagSettings(ignore=("/data/stage",))})
    yield from project(tmp_path_factory.mktemp("thorough").resolve(), settings)


# One at a time, but for a run that waits for a retry: no order that nobody dies in shows anything.
IN_A_ROW = ("", "max_active_runs=1", "")
IN_A_POOL = ('(retries=1, pool="one", weight_rule="upstream")', "", "; world.set_pool('one', 1)")


@pytest.mark.parametrize(
    ("given", "recovery"),
    [(IN_A_ROW, "clear-downstream-after-newer"), (IN_A_POOL, "retry-after-newer")],
)
def test_a_run_that_recovers_after_newer_ones_meets_what_they_have_left(
    thorough: Project, given: tuple[str, str, str], recovery: str
) -> None:
    of_tasks, of_dag, prepared = given
    name = recovery.partition("-")[0]
    source = in_dag(STAGES.format(stage=ONE_STAGE, options=of_tasks), of_dag)
    result = backfill_of(thorough, f"staged_{name}", source, f"world.mkdir('/data'){prepared}")
    (finding,) = result.findings
    assert (str(finding.rule), str(finding.recovery)) == ("order-dependent", recovery)
    assert (finding.task_id, str(finding.crash_kind)) == ("load", "kill")
    assert [(d.output, d.clean, d.rerun) for d in finding.differences] == [
        ("file:/data/2024-01-01", "2024-01-01", "2024-01-03")
    ]


@pytest.mark.parametrize("options", ["", "(retries=1)"])
def test_a_run_with_data_of_its_own_may_recover_late(thorough: Project, options: str) -> None:
    source = in_dag(STAGES.format(stage=OWN_STAGE, options=options))
    assert backfill_of(thorough, "staged_each", source).verdict is Verdict.SAFE


def test_what_a_death_does_to_a_run_alone_is_not_blamed_on_newer_ones(thorough: Project) -> None:
    body = """
        @task
        def load(ds=None):
            with open(f"/data/{ds}", "w") as out:
                out.write(f"{ds}\\n")
            if not read(f"/data/done-{ds}"):
                publish(f"/data/done-{ds}", ds)
                publish(f"/data/twice-{ds}", read(f"/data/{ds}") * 2)
        load()
        """
    source = in_dag(body)
    (dag,) = loaded(thorough, "alone", source)
    checks = thorough.checker.checks_of(dag)
    assert thorough.checker.run(dag, "crash.load", checks).verdict is Verdict.UNSAFE
    assert thorough.checker.run(dag, "backfill", checks).verdict is Verdict.SAFE


# --- what cannot be tried ---------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["None", '"@once"', '"@continuous", max_active_runs=1'])
def test_a_dag_without_intervals_has_no_such_check(dags: Project, schedule: str) -> None:
    source = f"{HEAD}\nwith DAG('d', schedule={schedule}, start_date=datetime(2024, 1, 1)): task(read)('')\n"
    (dag,) = loaded(dags, "unscheduled", source)
    assert "backfill" not in dags.checker.checks_of(dag)


def test_a_dag_with_one_interval_is_skipped(dags: Project) -> None:
    result = backfill_of(dags, "one", in_dag(RUNNING_TOTAL, "end_date=datetime(2024, 1, 1)"))
    assert (result.verdict, result.reason) == (Verdict.SKIPPED, "the DAG has one interval only")


def test_two_intervals_will_do(dags: Project) -> None:
    result = backfill_of(dags, "two", in_dag(RUNNING_TOTAL, "end_date=datetime(2024, 1, 2)"))
    assert result.verdict is Verdict.UNSAFE


def test_a_later_interval_without_its_input_is_named(dags: Project) -> None:
    body = """
        @task
        def load(ds=None): publish(f"/data/out-{ds}", Path(f"/data/in-{ds}").read_text())
        load()
        """
    result = backfill_of(dags, "inputs", in_dag(body), "world.write('/data/in-2024-01-01', 'x')")
    assert result.verdict is Verdict.UNVERIFIABLE
    assert result.reason is not None
    assert result.reason.startswith("the interval of 2024-01-02 00:00 does not succeed: task load fails")
    assert "world.write('/data/in-2024-01-02', ...)" in result.reason


def test_intervals_that_are_left_to_chance_are_not_blamed_on_the_order(dags: Project) -> None:
    body = """
        @task
        def load(ds=None):
            publish(f"/data/{ds}", random.choice(["a few", "many", "none", "all"]) if ds[-1] != "1" else "one")
        load()
        """
    result = backfill_of(dags, "chance", in_dag(body))
    assert result.verdict is Verdict.UNVERIFIABLE
    assert result.reason is not None
    assert result.reason.startswith("intervals in order do not agree")
    assert "file:/data/2024-01-0" in result.reason


def test_backwards_is_left_out_where_airflow_forbids_it(dags: Project) -> None:
    free = backfill_of(dags, "free", in_dag(STAGED, "max_active_runs=1"))
    bound = in_dag(STAGED, 'max_active_runs=1, default_args={"depends_on_past": True}')
    assert backfill_of(dags, "bound", bound).coverage.recoveries == free.coverage.recoveries - 1


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "recoveries"), [("fast", 2), ("default", 4), ("thorough", 9)])
def test_a_profile_says_how_many_orders_are_tried(tmp_path: Path, profile: str, recoveries: int) -> None:
    settings = Settings(
        profile=Profile(profile),
        dag={"d": DagSettings(logical_date=datetime(2024, 5, 1, tzinfo=timezone.utc))},
    )
    body = """
        @task
        def load(data_interval_start=None, data_interval_end=None, ds=None):
            assert (data_interval_start.day + 1, ds[:7]) == (data_interval_end.day, "2024-05")
            publish(f"/data/{ds}", str(data_interval_end))
        load()
        """
    timetable = 'CronDataIntervalTimetable("@daily", timezone="UTC")'
    source = f"from airflow.timetables.interval import CronDataIntervalTimetable\n{in_dag(body)}"
    source = source.replace('schedule="@daily"', f"schedule={timetable}")
    with contextmanager(project)(tmp_path.resolve(), settings) as made:
        result = backfill_of(made, "d", source)
    assert (result.verdict, result.coverage.recoveries) == (Verdict.SAFE, recoveries)


# --- as a user sees it ------------------------------------------------------------------------


def test_an_order_can_be_replayed(dags: Project) -> None:
    source = in_dag(RUNNING_TOTAL).replace("def d()", "def replayed()").replace("\nd()", "\nreplayed()")
    file = dags.write("replayed", source, "world.mkdir('/data')")
    told = dags.checker.replay("replayed:-:-:backfill-backwards", [file])
    assert told.startswith("No run has crashed. Intervals: backfill-backwards")
    days = [line.partition("scheduled__")[2][:10] for line in told.splitlines() if line.startswith("add of ")]
    assert days == ["2024-01-03", "2024-01-02", "2024-01-01"]
    assert told.endswith("Verdict: unsafe, order-dependent")


def test_a_late_recovery_can_be_replayed(dags: Project) -> None:
    body = STAGES.format(stage=ONE_STAGE, options="")
    source = in_dag(body, "max_active_runs=1").replace("def d()", "def late()").replace("\nd()", "\nlate()")
    file = dags.write("late", source, "world.mkdir('/data')")
    scenario = "late:load@write:/data/2024-01-01.tmp#1:kill:clear-downstream-after-newer"
    told = dags.checker.replay(scenario, [file])
    assert told.startswith("The worker is killed at load@write:/data/2024-01-01.tmp#1.\n")
    ran = [line.partition(",")[0] for line in told.splitlines() if ", try " in line]
    runs = [
        f"{task} of scheduled__2024-01-0{day}T00:00:00+00:00"
        for day in (2, 3)
        for task in ("extract", "load")
    ]
    assert ran == [*runs, "load of scheduled__2024-01-01T00:00:00+00:00"]
    assert told.endswith("Verdict: unsafe, order-dependent")
