"""Fetches the exchange rate and writes the report that quotes it."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, get_current_context, task

DATA_DIR = "/data/exchange"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="exchange_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
    default_args={"retries": 1},
)
def exchange() -> None:
    @task
    def fetch_rate() -> float:
        return 1.25

    @task
    def report(day: str) -> None:
        rate = get_current_context()["ti"].xcom_pull(task_ids="fetch_rate")
        write_json(f"{DATA_DIR}/{day}.json", {"usd_per_eur": rate})

    fetch_rate()
    report("{{ ds }}")


exchange()
