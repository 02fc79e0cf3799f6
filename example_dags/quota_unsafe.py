"""The quota that a customer has left: what was used is taken off, in a Variable that other DAGs read."""

from __future__ import annotations

import pendulum
from airflow.sdk import Variable, dag, task

GRANTED = 500


def fetch_used(month: str) -> int:
    """Stands for the meter."""
    return 120


@dag(
    dag_id="quota_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def quota() -> None:
    @task
    def take_off(month: str) -> None:
        left = int(Variable.get("quota_left", default=str(GRANTED)))
        Variable.set("quota_left", str(left - fetch_used(month)))

    take_off("{{ ds[:7] }}")


quota()
