"""What a task asks Airflow about runs, tasks, XComs and assets is answered as the server answers it."""

from __future__ import annotations

import textwrap
from importlib.metadata import version
from typing import get_args

import pytest
from dag_projects import Project

from pytest_rerunsafe.fixtures import Run

HEAD = """\
from datetime import datetime, timezone
from airflow.sdk import Asset, AssetAlias, dag, get_current_context, task

def day(number):
    return datetime(2024, 1, number, tzinfo=timezone.utc)

"""
AIRFLOW = tuple(version("apache-airflow-core").split(".")[:2])
PEOPLE = {"CreateHITLDetailPayload", "UpdateHITLDetail", "GetHITLDetailResponse", "AwaitInputTask"}
"""What only a person can answer."""


def run_of(dags: Project, name: str, body: str, intervals: int = 3) -> Run:
    """Daily runs of the only DAG of a file, which fail if they are told something wrong."""
    source = f'{HEAD}@dag(schedule="@daily", start_date=day(1))\ndef {name}():\n'
    file = dags.checker.load(
        dags.write(name, f"{source}{textwrap.indent(textwrap.dedent(body), '    ')}\n{name}()\n")
    )
    assert not file.error, file.error
    (dag,) = file.dags
    return Run(dags.checker, dag, dags.checker.begin(dag, intervals))


@pytest.mark.filterwarnings("ignore")  # of what Airflow's server imports
def test_every_message_is_answered_but_those_to_people() -> None:
    from airflow.sdk.execution_time import comms

    from pytest_rerunsafe.airflow.answers import _ANSWERS

    messages = {message.__name__ for message in get_args(get_args(comms.ToSupervisor)[0])}
    of_the_log = {"ResendLoggingFD"}
    assert messages - _ANSWERS.keys() == (PEOPLE & messages) | of_the_log


RUNS = """
@task
def first(): return 1
@task
def check(ds, ti, dag_run, prev_start_date_success, prev_end_date_success,
          prev_data_interval_start_success, prev_data_interval_end_success):
    me = ti.dag_id
    assert ti.get_task_states(me, run_ids=[dag_run.run_id])[dag_run.run_id] == {"first": "success", "check": "running"}
    assert ti.get_first_reschedule_date(get_current_context()) is None
    if ds != "2024-01-03":
        return
    before = ti.get_previous_dagrun()
    assert before.logical_date == day(2)
    assert ti.get_previous_dagrun(state="success").logical_date == day(2)
    assert ti.get_previous_dagrun(state="failed") is None
    assert ti.get_dagrun_state(me, before.run_id) == "success"
    assert prev_data_interval_start_success == prev_data_interval_end_success == day(2)
    assert before.start_date <= prev_start_date_success < prev_end_date_success, (prev_start_date_success, prev_end_date_success)
    assert prev_end_date_success <= dag_run.start_date, (prev_end_date_success, dag_run.start_date)
    assert ti.get_dr_count(me) == 3
    assert ti.get_dr_count(me, states=["success"]) == 2
    assert ti.get_dr_count(me, logical_dates=[day(1), day(9)]) == 1
    assert ti.get_dr_count(me, run_ids=[before.run_id]) == 1
    assert ti.get_ti_count(me) == 6
    assert ti.get_ti_count(me, task_ids=["first"], states=["success"]) == 3
    assert ti.get_ti_count(me, logical_dates=[day(1)]) == 2
    assert ti.get_task_states(me, logical_dates=[day(1)]) == {
        ti.get_previous_dagrun().run_id.replace("-02T", "-01T"): {"first": "success", "check": "success"}
    }
    assert ti.xcom_pull(task_ids="first") == 1
    assert ti.xcom_pull(task_ids="check", include_prior_dates=True) is None
    MORE
first() >> check()
"""
MORE = """
    assert ti.get_previous_ti().logical_date == day(2)
    assert ti.get_previous_ti(state="failed") is None
    assert {crumb["task_id"] for crumb in ti.get_task_breadcrumbs(me, before.run_id)} == {"first", "check"}
    assert ti.get_dag(me).dag_id == me
"""


def test_runs_and_tasks_before(dags: Project) -> None:
    more = textwrap.dedent(MORE).strip().replace("\n", "\n    ") if AIRFLOW >= ("3", "2") else "pass"
    run = run_of(dags, "asks_runs", RUNS.replace("MORE", more))
    assert run.state == "success", run.errors


MAPPED = """
@task
def part(number): return number * 10
@task
def use(values):
    assert len(values) == 4
    assert list(values) == [0, 10, 20, 30]
    assert (values[0], values[-1]) == (0, 30)
    assert (values[1:3], values[::2], values[-2:]) == ([10, 20], [0, 20], [20, 30])
    try:
        values[4]
    except IndexError:
        pass
    else:
        raise AssertionError
use(part.expand(number=[0, 1, 2, 3]))
"""


def test_xcoms_of_a_mapped_task_by_index_and_slice(dags: Project) -> None:
    run = run_of(dags, "asks_xcoms", MAPPED, intervals=1)
    assert run.state == "success", run.errors


ASSETS = """
@task(outlets=[Asset(name="orders", uri="s3://bucket/orders"), AssetAlias("any")])
def make(ds, outlet_events):
    outlet_events[Asset(name="orders", uri="s3://bucket/orders")].extra = {"ds": ds}
    outlet_events[AssetAlias("any")].add(Asset("items"), extra={"n": ds})
@task(inlets=[Asset(name="orders", uri="s3://bucket/orders"), AssetAlias("any"), Asset.ref(name="orders"),
              Asset.ref(uri="s3://bucket/orders")])
def use(ds, inlet_events):
    if ds != "2024-01-03":
        return
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    for asked in (Asset(name="orders", uri="s3://bucket/orders"), Asset.ref(name="orders"),
                  Asset.ref(uri="s3://bucket/orders")):
        assert [event.extra["ds"] for event in inlet_events[asked]] == days
    assert [event.extra["n"] for event in inlet_events[AssetAlias("any")]] == days
    assert {event.source_task_id for event in inlet_events[AssetAlias("any")]} == {"make"}
    last = inlet_events[Asset(name="orders", uri="s3://bucket/orders")][-1]
    assert (last.source_dag_id, last.source_run_id[:10]) == ("asks_assets", "scheduled_")
make() >> use()
"""


def test_events_of_assets_and_aliases(dags: Project) -> None:
    run = run_of(dags, "asks_assets", ASSETS)
    assert run.state == "success", run.errors
