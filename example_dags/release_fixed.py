"""Publishes a catalogue; a file tells the shops that there is a new one."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/release"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="release_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def release() -> None:
    @task
    def publish(day: str) -> None:
        write_json(f"{DATA_DIR}/{day}.json", {"bolt": 15, "nut": 8})

    @task
    def tell_shops(day: str) -> None:
        write_json(f"{DATA_DIR}/{day}.ready", {"items": 2})

    publish("{{ ds }}") >> tell_shops("{{ ds }}")


release()
