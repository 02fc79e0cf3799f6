"""A sample of the customers for the survey."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/sample"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="sample_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def sample() -> None:
    @task
    def draw(day: str) -> None:
        customers = [f"c{number:03}" for number in range(200)]
        write_json(f"{DATA_DIR}/{day}.json", random.sample(customers, 5))

    draw("{{ ds }}")


sample()
