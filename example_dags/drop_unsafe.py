"""Waits for the partner's file in the drop folder, and takes over what it says."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DROP = "/data/drop/stock.json"
TAKEN_OVER = "/data/drop/taken_over"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="drop_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def drop() -> None:
    @task.sensor(poke_interval=300, timeout=3600, mode="reschedule")
    def wait_for_file() -> bool:
        return os.path.exists(DROP)

    @task
    def take_over(day: str) -> None:
        with open(DROP) as file:
            stock = json.load(file)
        write_json(f"{TAKEN_OVER}/{day}.json", {item: count for item, count in stock.items() if count})
        os.remove(DROP)

    wait_for_file() >> take_over("{{ ds }}")


drop()
