"""Airflow's scheduler decides what runs next: its limits and its order hold, whatever we leave out of its loop."""

from __future__ import annotations

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

LIMITED = """
    from datetime import datetime
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.python import PythonOperator

    def log(name):
        with open("/data/order.txt", "a") as file:
            file.write(f"{{name}}\\n")
        with open(f"/data/done_{{name}}", "w") as file:
            file.write("done")

    def expect(order):
        with open("/data/order.txt") as file:
            assert file.read().split() == order.split(), order

    with DAG("{name}", start_date=datetime(2024, 1, 1), schedule=None, {dag_options}):
        def step(name, **options):
            return PythonOperator(task_id=name, python_callable=log, op_args=[name], **options)

        {tasks}
        last = PythonOperator(task_id="last", python_callable=expect, op_args=["{order}"])
        [a2, b2] >> last
"""
TWO_CHAINS = """
        a1, a2 = step("a1"{a}), step("a2"{a})
        b1, b2 = step("b1"{b}), step("b2"{b})
        a1 >> a2
        b1 >> b2
"""


@pytest.mark.parametrize(
    ("name", "dag_options", "a", "b", "order"),
    [
        ("free", "", "", "", "a1 b1 a2 b2"),
        ("weighty", "", ", priority_weight=9, weight_rule='absolute'", "", "a1 b1 a2 b2"),
        (
            "one_at_a_time",
            "max_active_tasks=1",
            ", priority_weight=9, weight_rule='absolute'",
            "",
            "a1 a2 b1 b2",
        ),
        ("by_weight", "", "", ", priority_weight=5", "b1 a1 b2 a2"),
        (
            "weight_rules",
            "max_active_tasks=1",
            ", weight_rule='absolute'",
            ", priority_weight=9, weight_rule='absolute'",
            "b1 b2 a1 a2",
        ),
    ],
)
def test_limits_and_weights_set_the_order(
    dags: Project, name: str, dag_options: str, a: str, b: str, order: str
) -> None:
    """The last task fails the clean run if the others came in another order."""
    tasks = TWO_CHAINS.format(a=a, b=b)
    source = LIMITED.format(name=name, dag_options=dag_options, tasks=tasks.strip(), order=order)
    verdicts = dags.check(name, source, "world.mkdir('/data')")
    assert verdicts["clean"].verdict is Verdict.SAFE, verdicts["clean"].reason


def test_a_task_in_a_pool_without_room_never_runs(dags: Project) -> None:
    verdicts = dags.check(
        "no_room",
        """
    from datetime import datetime
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def no_room():
        @task(pool_slots=1000)
        def wide():
            pass

        wide()

    no_room()
    """,
    )
    assert verdicts["clean"].verdict is Verdict.ERROR
    assert verdicts["clean"].reason == "the clean run ends stuck: wide scheduled"
