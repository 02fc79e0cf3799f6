"""DAGs that set each other off or wait for each other: they run together, and a rerun of one may repeat what others do."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

HEAD = """\
import json
from datetime import datetime, timedelta
from airflow.sdk import Asset, AssetAlias, Metadata, dag, task, get_current_context
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskMarker, ExternalTaskSensor

def publish(path, text, mode="w"):
    with open(path, mode) as out:
        out.write(text)
"""
DAILY = 'schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False'
ON_DEMAND = "schedule=None, start_date=datetime(2024, 1, 1)"


def a_dag(name: str, body: str, options: str = DAILY) -> str:
    """A DAG file with one DAG of that body."""
    return f"{HEAD}\n@dag({options})\ndef {name}():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n{name}()\n"


def trigger(**options: str) -> str:
    """A DAG that triggers `child`."""
    given = "".join(f", {name}={value}" for name, value in options.items())
    return a_dag("parent", f"TriggerDagRunOperator(task_id='start', trigger_dag_id='child'{given})")


def child(mode: str = "w") -> str:
    """The triggered DAG; its output says what it was given."""
    return a_dag(
        "child",
        f"""
        @task
        def load():
            conf = get_current_context()["dag_run"].conf
            publish("/data/child", json.dumps(conf) + "\\n", "{mode}")
        load()
        """,
        ON_DEMAND,
    )


DATA = "world.mkdir('/data')"


def outputs(found: object) -> set[str]:
    return {difference.output for finding in found for difference in finding.differences}  # type: ignore[attr-defined]


def test_each_rerun_of_a_trigger_makes_another_run(dags: Project) -> None:
    found = dags.check_among("t1", {"a": trigger(), "b": child()}, "parent", DATA)
    assert found["clean"].verdict is Verdict.SAFE, found["clean"].reason
    (finding,) = found["rerun"].findings
    assert (str(finding.rule), finding.task_id) == ("duplicate-output", "start")
    assert finding.summary == "runs:child: the only record twice"
    assert found["crash.start"].verdict is Verdict.UNSAFE


FIXED = "'child_{{ ds }}'"


def test_a_run_that_is_reset_is_the_same_run(dags: Project) -> None:
    parent = trigger(trigger_run_id=FIXED, reset_dag_run="True")
    found = dags.check_among("t2", {"a": parent, "b": child()}, "parent", DATA)
    assert found.sampled.worst is Verdict.SAFE, found.sampled.results


def test_what_a_triggered_run_writes_counts(dags: Project) -> None:
    parent = trigger(trigger_run_id=FIXED, reset_dag_run="True")
    found = dags.check_among("t3", {"a": parent, "b": child("a")}, "parent", DATA)
    assert found.sampled.rules == {"duplicate-output"}
    assert outputs(found.sampled.findings) == {"file:/data/child"}
    assert {finding.task_id for finding in found["rerun"].findings} == {"child.load"}


def test_a_run_that_is_there_already(dags: Project) -> None:
    failing = dags.check_among("t4", {"a": trigger(trigger_run_id=FIXED), "b": child()}, "parent", DATA)
    assert failing.sampled.rules == {"rerun-fails"}
    parent = trigger(trigger_run_id=FIXED, skip_when_already_exists="True")
    assert dags.check_among("t5", {"a": parent, "b": child("a")}, "parent", DATA).worst is Verdict.SAFE


def test_the_triggered_run_gets_what_it_is_given(dags: Project) -> None:
    parent = trigger(trigger_run_id=FIXED, conf="{'day': '{{ ds }}'}", reset_dag_run="True")
    strict = child().replace("publish", 'assert conf == {"day": "2024-01-01"}, conf\n        publish', 2)
    strict = strict.replace('assert conf == {"day": "2024-01-01"}, conf\n        publish', "publish", 1)
    found = dags.check_among("t6", {"a": parent, "b": strict}, "parent", DATA)
    assert found.sampled.worst is Verdict.SAFE, found.sampled.results


@pytest.mark.parametrize("deferrable", ["False", "True"])
def test_a_task_that_waits_for_the_run_that_it_triggers(dags: Project, deferrable: str) -> None:
    options = f"trigger_run_id={FIXED}, reset_dag_run=True, wait_for_completion=True, deferrable={deferrable}"
    parent = a_dag(
        "parent",
        f"""
        @task
        def use():
            publish("/data/out", open("/data/child").read())
        TriggerDagRunOperator(task_id="start", trigger_dag_id="child", {options}) >> use()
        """,
    )
    found = dags.check_among(f"w{deferrable}", {"a": parent, "b": child()}, "parent", DATA)
    assert found.sampled.worst is Verdict.SAFE, found.sampled.results
    failing = child().replace("conf = ", "raise ValueError; conf = ")
    failed = dags.check_among(f"f{deferrable}", {"a": parent, "b": failing}, "parent", DATA)
    assert failed["clean"].verdict is Verdict.ERROR
    assert "failed with failed state" in str(failed["clean"].reason)


def test_a_trigger_leads_to_the_dag_that_it_names(dags: Project) -> None:
    (named,) = dags.load("l1", trigger()).dags
    assert named.leads_to == {"dag:child"}
    mapped = "TriggerDagRunOperator.partial(task_id='start').expand(trigger_dag_id=['child', 'other'])"
    (anyone,) = dags.load("l2", a_dag("parent", mapped)).dags
    assert "dag:*" in anyone.leads_to


def test_a_dag_that_is_nowhere(dags: Project) -> None:
    found = dags.check_among("t7", {"a": trigger()}, "parent", DATA)
    assert found["clean"].verdict is Verdict.UNVERIFIABLE
    assert found["clean"].reason == (
        "start (TriggerDagRunOperator): it triggers the DAG child, which no file of the DAGs folder gives. "
        "Put its file there, or one with a DAG of that name in its stead; see that it loads."
    )


def upstream(body: str = "publish('/data/up', '1\\n')", options: str = DAILY) -> str:
    """The DAG that a sensor waits for."""
    return a_dag("up", f"@task\ndef make():\n    {body}\nmake()", options)


def waiting(mode: str = "w", **options: str) -> str:
    """A DAG that waits for `up` and uses what it has made."""
    given = "".join(f", {name}={value}" for name, value in options.items())
    sensor = f"ExternalTaskSensor(task_id='wait', external_dag_id='up', mode='reschedule'{given})"
    return a_dag(
        "d",
        f"@task\ndef use():\n    publish('/data/out', open('/data/up').read(), '{mode}')\n{sensor} >> use()",
    )


def test_the_run_that_a_sensor_waits_for_is_made(dags: Project) -> None:
    found = dags.check_among("s1", {"a": waiting(), "b": upstream()}, "d", DATA)
    assert found.sampled.worst is Verdict.SAFE, found.sampled.results
    unsafe = dags.check_among("s2", {"a": waiting("a"), "b": upstream()}, "d", DATA)
    assert unsafe.sampled.rules == {"duplicate-output"}
    assert outputs(unsafe.sampled.findings) == {"file:/data/out"}


def test_a_sensor_waits_for_the_run_of_its_own_date(dags: Project) -> None:
    checked = upstream(
        "day = get_current_context()['ds']; assert day == '2023-12-31', day; publish('/data/up', day)",
        DAILY.replace("2024", "2023"),
    )
    options = {"execution_delta": "timedelta(days=1)", "external_task_id": "'make'"}
    found = dags.check_among("s3", {"a": waiting(**options), "b": checked}, "d", DATA)
    of_other_intervals = found.results.pop("backfill")
    assert found.worst is Verdict.SAFE, found.results
    assert "the interval of 2024-01-02 00:00 does not succeed" in str(of_other_intervals.reason)


def test_a_sensor_that_waits_for_what_never_comes(dags: Project) -> None:
    never = dags.check_among(
        "s4", {"a": waiting(execution_delta="timedelta(hours=5)"), "b": upstream()}, "d", DATA
    )
    assert "a run of the DAG up at 2023-12-31 19:00:00+00:00, which has none then" in str(
        never["clean"].reason
    )
    nowhere = dags.check_among("s5", {"a": waiting()}, "d", DATA)
    assert "waits for the DAG up, which no file of the DAGs folder gives" in str(nowhere["clean"].reason)
    assert {never["clean"].verdict, nowhere["clean"].verdict} == {Verdict.UNVERIFIABLE}


def test_a_clear_does_not_follow_a_marker(dags: Project) -> None:
    parent = a_dag(
        "parent",
        """
        start = TriggerDagRunOperator(
            task_id="start", trigger_dag_id="child", trigger_run_id="{{ ds }}", logical_date="{{ logical_date }}",
            skip_when_already_exists=True,
        )
        mark = ExternalTaskMarker(
            task_id="mark", external_dag_id="child", external_task_id="load", trigger_rule="all_done"
        )
        start >> mark
        """,
    )
    found = dags.check_among("m1", {"a": parent, "b": child("a")}, "parent", DATA)
    assert found.sampled.worst in (Verdict.SAFE, Verdict.SKIPPED), found.sampled.results
    assert found["rerun"].verdict is Verdict.SAFE


def producer(outlet: str = "Asset('orders')", body: str = "pass") -> str:
    return a_dag("producer", f"@task(outlets=[{outlet}])\ndef make(*, outlet_events):\n    {body}\nmake()")


def consumer(mode: str = "w", schedule: str = "[Asset('orders')]", body: str = "len(asked)") -> str:
    """A DAG that assets set off; its output says by what."""
    return a_dag(
        "consumer",
        f"""
        @task
        def use(*, triggering_asset_events):
            asked = [e for events in triggering_asset_events.values() for e in events]
            publish("/data/out", f"{{{body}}}\\n", "{mode}")
        use()
        """,
        f"schedule={schedule}, start_date=datetime(2023, 6, 1), catchup=False",
    )


def test_what_an_asset_sets_off_counts(dags: Project) -> None:
    safe = dags.check_among("a1", {"a": producer(), "b": consumer()}, "producer", DATA)
    assert safe.sampled.worst is Verdict.SAFE, safe.sampled.results
    unsafe = dags.check_among("a2", {"a": producer(), "b": consumer("a")}, "producer", DATA)
    assert outputs(unsafe.sampled.findings) == {"file:/data/out"}
    (finding,) = unsafe["rerun"].findings
    assert (str(finding.rule), finding.task_id) == ("duplicate-output", "consumer.use")


def test_an_alias_is_resolved_when_the_task_runs(dags: Project) -> None:
    emits = producer(
        "AssetAlias('any')", "outlet_events[AssetAlias('any')].add(Asset('orders'), extra={'rows': 3})"
    )
    told = consumer("a", body="[e.extra for e in asked]")
    found = dags.check_among("a3", {"a": emits, "b": told}, "producer", DATA)
    (finding,) = found["rerun"].findings
    assert str(finding.rule) == "duplicate-output"
    assert "{'rows': 3}" in str(finding.differences[0].rerun)


SCHEDULES: list[tuple[str, int | None]] = [
    ("[Asset('orders'), Asset('items')]", 2),
    ("Asset('orders') | Asset('items')", 2),
    ("AssetAlias('any')", 2),  # by the alias and by the asset
    ("Asset.ref(name='orders')", None),  # Airflow 3.3 shows the task none
]


@pytest.mark.parametrize(("schedule", "events"), SCHEDULES)
def test_a_dag_under_test_is_set_off_by_its_assets(dags: Project, schedule: str, events: int | None) -> None:
    seen = f"len(asked) == {events}" if events else "True"
    checked = consumer(
        "a", schedule, f"({seen} and get_current_context()['dag_run'].run_type == 'asset_triggered') or 1 / 0"
    )
    folder = f"c{SCHEDULES.index((schedule, events))}"
    found = dags.check_among(folder, {"a": checked}, "consumer", DATA)
    assert found["clean"].verdict is Verdict.SAFE, found["clean"]
    assert found["rerun"].verdict is Verdict.UNSAFE


# --- partitions -----------------------------------------------------------------------------------

EACH_HOUR = """
from datetime import datetime
from airflow.sdk import DAG, Asset, CronPartitionTimetable, task

with DAG("each_hour", schedule=CronPartitionTimetable("0 * * * *", timezone="UTC"), start_date=datetime(2024, 1, 1)):
    @task(outlets=[Asset("stats")])
    def make(): pass
    make()
"""
EACH_PARTITION = """
from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, task

with DAG("each_partition", schedule=PartitionedAssetTimetable(assets=Asset("stats"))):
    @task
    def use(dag_run=None):
        with open(f"/data/{dag_run.partition_key}", "MODE") as file:
            file.write("used\\n")
    use()
"""


@pytest.mark.skipif(
    not find_spec("airflow.models.task_state_store"), reason="Airflow tells of partitions from 3.3 on"
)
@pytest.mark.parametrize(("mode", "twice"), [("w", set()), ("a", {"file:/data/2024-01-01T00:00:00"})])
def test_a_partition_sets_off_a_run_for_it(dags: Project, mode: str, twice: set[str]) -> None:
    files = {"each_hour": EACH_HOUR, "each_partition": EACH_PARTITION.replace("MODE", mode)}
    verdicts = dags.check_among(f"partitions_{mode}", files, "each_hour", DATA)
    assert outputs(verdicts["rerun"].findings) == twice
    assert verdicts["rerun"].verdict is (Verdict.UNSAFE if twice else Verdict.SAFE)
    assert verdicts["backfill"].verdict is verdicts["rerun"].verdict
