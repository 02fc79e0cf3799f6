"""The prices of each day, and a file with the latest ones for the shop."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/prices"
LATEST = f"{DATA_DIR}/latest.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="prices_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule="@daily",
    catchup=False,
)
def prices() -> None:
    @task
    def fetch(day: str) -> None:
        prices = {"day": day, "bolt": int(day[-2:]) * 10}
        write_json(f"{DATA_DIR}/{day}.json", prices)
        write_json(LATEST, prices)

    fetch("{{ ds }}")


prices()
