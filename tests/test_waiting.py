"""Tasks that wait: sensors and deferred tasks. Each DAG would end otherwise if Airflow's rule were another."""

from __future__ import annotations

import textwrap

import pytest
from dag_projects import Project, Verdicts

HEAD = """\
import asyncio, os, time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue, dag, get_current_context, task
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

def publish(path, text, mode="w"):
    with open(path, mode) as out:
        out.write(text)

class File(BaseSensorOperator):
    def __init__(self, *, path, **options):
        super().__init__(**options)
        self.path = path

    def poke(self, context):
        return os.path.exists(self.path)
"""
DATA = "world.mkdir('/data')"


def in_dag(body: str, options: str = "") -> str:
    """A DAG file whose only DAG, `d`, has this body."""
    given = f'schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False, {options}'
    return f"{HEAD}\n@dag({given})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


def verdict_of(verdicts: Verdicts, check: str) -> tuple[str, str | None, list[str]]:
    result = verdicts[check]
    return str(result.verdict), result.reason, [f"{f.rule}: {f.summary}" for f in result.findings]


def assert_safe(verdicts: Verdicts) -> None:
    assert {check: verdict_of(verdicts, check) for check in verdicts.results} == {
        check: ("safe", None, []) for check in verdicts.results
    }


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_sensor_waits_for_the_file_of_a_task_beside_it(dags: Project, mode: str) -> None:
    # `a_wait` comes before the task that it waits for, and both before it is ready.
    source = in_dag(
        f"""
        wait = File(task_id="a_wait", path="/data/in", mode="{mode}", poke_interval=60, timeout=3600)
        @task
        def b_write(): publish("/data/in", "1\\n")
        @task
        def c_read(): publish("/data/out", Path("/data/in").read_text())
        b_write()
        wait >> c_read()
        """
    )
    assert_safe(dags.check(f"beside_{mode}", source, DATA))
