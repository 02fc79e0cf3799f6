"""Rebuilds the index of the shop's search; while that is broken, a notice tells the customers."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/outage"
NOTICE = f"{DATA_DIR}/notice.txt"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def put_up_notice(context: Any) -> None:
    os.makedirs(DATA_DIR, exist_ok=True)
    with open(NOTICE, "w") as file:
        file.write("Our search is out of order. We are working on it.\n")


@dag(
    dag_id="outage_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def outage() -> None:
    @task(on_failure_callback=put_up_notice)
    def rebuild() -> None:
        write_json(f"{DATA_DIR}/index.json", {"bolt": 1, "nut": 2})

    rebuild()


outage()
