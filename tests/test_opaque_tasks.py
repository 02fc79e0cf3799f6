"""What cannot run in one process is named, and the rest of its DAG is checked as far as it can be."""

from __future__ import annotations

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

PIPELINE = """
    import socket
    from datetime import datetime
    from airflow.sdk import BaseOperator, DAG, task
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    class WarehouseOperator(BaseOperator):
        def execute(self, context):
            socket.create_connection(("warehouse.example", 5432)).sendall(b"COPY")

    with DAG("{name}", start_date=datetime(2024, 1, 1), schedule=None):
        @task
        def extract():
            with open("/data/orders.csv", "{mode}") as file:
                file.write("1,2\\n")

        @task
        def publish():
            with open("/data/done", "a") as file:
                file.write("done\\n")

        extract() >> {operator} >> publish()
"""
BASH = 'BashOperator(task_id="move", bash_command="mv /data/orders.csv /data/loaded.csv")'
PERSON = 'ApprovalOperator(task_id="move", subject="May it be moved?")'
SERVER = 'WarehouseOperator(task_id="move")'


@pytest.mark.parametrize(
    ("operator", "reason"),
    [
        (BASH, "move (BashOperator): starting the process `bash -c 'mv "),
        (PERSON, "move (ApprovalOperator): a person is asked, and nobody answers here"),
        (SERVER, "move (WarehouseOperator): connecting to warehouse.example:5432"),
    ],
)
def test_the_operator_is_named_and_the_tasks_before_and_after_it_are_checked(
    dags: Project, operator: str, reason: str
) -> None:
    name = f"opaque_{operator.partition('(')[0]}"
    source = PIPELINE.format(name=name, mode="a", operator=operator)
    verdicts = dags.check(name, source, "world.mkdir('/data')")
    assert (verdicts["clean"].reason or "").startswith(reason)
    assert verdicts["clean"].verdict is Verdict.UNVERIFIABLE
    assert verdicts["crash.move"].verdict is Verdict.UNVERIFIABLE
    assert verdicts["crash.extract"].verdict is Verdict.UNSAFE
    assert verdicts["crash.publish"].verdict is Verdict.UNSAFE


def test_what_it_may_have_moved_away_is_no_finding(dags: Project) -> None:
    """Were `move` seen, the second `extract` would find no file to append to."""
    source = PIPELINE.format(name="opaque_moved", mode="a", operator=BASH)
    verdicts = dags.check("opaque_moved", source, "world.mkdir('/data')")
    changed = {each.output for finding in verdicts["rerun"].findings for each in finding.differences}
    assert changed == {"file:/data/done"}
    crashed = {each.output for finding in verdicts["crash.publish"].findings for each in finding.differences}
    assert crashed == {"file:/data/done"}


def test_a_dag_that_is_right_but_for_what_is_not_seen_is_never_called_safe(dags: Project) -> None:
    source = PIPELINE.format(name="opaque_right", mode="w", operator=BASH).replace(
        '"/data/done", "a"', '"/data/done", "w"'
    )
    verdicts = dags.check("opaque_right", source, "world.mkdir('/data')")
    assert {result.verdict for result in verdicts.results.values()} == {Verdict.UNVERIFIABLE}
