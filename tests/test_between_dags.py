"""DAGs that set each other off or wait for each other: they run together, and a rerun of one may repeat what others do."""

from __future__ import annotations

import textwrap

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
    assert found.worst is Verdict.SAFE, found.results


def test_what_a_triggered_run_writes_counts(dags: Project) -> None:
    parent = trigger(trigger_run_id=FIXED, reset_dag_run="True")
    found = dags.check_among("t3", {"a": parent, "b": child("a")}, "parent", DATA)
    assert found.rules == {"duplicate-output"}
    assert outputs(found.findings) == {"file:/data/child"}
    assert {finding.task_id for finding in found["rerun"].findings} == {"child.load"}


def test_a_run_that_is_there_already(dags: Project) -> None:
    failing = dags.check_among("t4", {"a": trigger(trigger_run_id=FIXED), "b": child()}, "parent", DATA)
    assert failing.rules == {"rerun-fails"}
    parent = trigger(trigger_run_id=FIXED, skip_when_already_exists="True")
    assert dags.check_among("t5", {"a": parent, "b": child("a")}, "parent", DATA).worst is Verdict.SAFE


def test_the_triggered_run_gets_what_it_is_given(dags: Project) -> None:
    parent = trigger(trigger_run_id=FIXED, conf="{'day': '{{ ds }}'}", reset_dag_run="True")
    strict = child().replace("publish", 'assert conf == {"day": "2024-01-01"}, conf\n        publish', 2)
    strict = strict.replace('assert conf == {"day": "2024-01-01"}, conf\n        publish', "publish", 1)
    found = dags.check_among("t6", {"a": parent, "b": strict}, "parent", DATA)
    assert found.worst is Verdict.SAFE, found.results


def test_a_dag_that_is_nowhere(dags: Project) -> None:
    found = dags.check_among("t7", {"a": trigger()}, "parent", DATA)
    assert found["clean"].verdict is Verdict.UNVERIFIABLE
    assert found["clean"].reason == (
        "the task start triggers the DAG child, which no file of the DAGs folder gives. "
        "Put its file there, or one with a DAG of that name in its stead; see that it loads."
    )
