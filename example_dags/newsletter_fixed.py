"""Picks the readers of the newsletter, and starts the DAG that sends it to them."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task

DATA_DIR = "/data/newsletter"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="newsletter_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def newsletter() -> None:
    @task
    def pick_readers(day: str) -> None:
        write_json(f"{DATA_DIR}/readers/{day}.json", ["ada", "grace", "mary"])

    send = TriggerDagRunOperator(
        task_id="send",
        trigger_dag_id="newsletter_fixed_send",
        trigger_run_id="newsletter__{{ ds }}",
        skip_when_already_exists=True,
    )
    pick_readers("{{ ds }}") >> send


@dag(
    dag_id="newsletter_fixed_send",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def send_letters() -> None:
    @task
    def deliver() -> None:
        print("sent")

    deliver()


newsletter()
send_letters()
