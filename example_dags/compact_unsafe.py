"""Many small files of measurements are put together into one."""

from __future__ import annotations

import json
import os
from glob import glob
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/compact"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def read_json(path: str) -> Any:
    with open(path) as file:
        return json.load(file)


@dag(
    dag_id="compact_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def compact() -> None:
    @task
    def put_together() -> None:
        whole = f"{DATA_DIR}/measurements.json"
        measured = read_json(whole) if os.path.exists(whole) else {}
        parts = sorted(glob(f"{DATA_DIR}/parts/*.json"))
        for part in parts:
            measured.update(read_json(part))
            os.remove(part)
        write_json(whole, measured)

    put_together()


compact()
