"""Fetches the tickets that are new since the last time; a Variable says up to which one that was."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import Variable, dag, task

DATA_DIR = "/data/tickets"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def fetch_tickets(after: int) -> list[dict[str, Any]]:
    """Stands for the help desk's API."""
    return [{"id": number, "subject": f"Question {number}"} for number in range(after + 1, 8)]


@dag(
    dag_id="tickets_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def tickets() -> None:
    @task
    def fetch() -> None:
        last_id = int(Variable.get("tickets_last_id", default="0"))
        new = fetch_tickets(after=last_id)
        if not new:
            return
        Variable.set("tickets_last_id", str(new[-1]["id"]))
        write_json(f"{DATA_DIR}/after_{last_id}.json", new)

    fetch()


tickets()
