"""Rebuilds an index that others rebuild too: who holds the lock file may."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/lock"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="lock_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def lock() -> None:
    @task
    def rebuild() -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        path = f"{DATA_DIR}/index.lock"
        with open(path, "x"):
            try:
                write_json(f"{DATA_DIR}/index.json", {"bolt": 1, "nut": 2})
            finally:
                os.remove(path)

    rebuild()


lock()
