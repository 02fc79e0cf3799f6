"""A number that all files of a batch bear."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/batch"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="batch_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def batch() -> None:
    @task
    def begin(day: str) -> str:
        os.environ["BATCH"] = day.replace("-", "")
        return os.environ["BATCH"]

    @task
    def write(number: str) -> None:
        batch = os.environ["BATCH"]
        write_json(f"{DATA_DIR}/orders_{batch}.json", [1, 2, 3])

    write(begin("{{ ds }}"))


batch()
