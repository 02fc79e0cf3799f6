"""Keeps each event of a stream once, however often it is delivered: the ids of those seen are in a file."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/events"
SEEN = f"{DATA_DIR}/seen.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def poll_stream() -> list[dict[str, Any]]:
    """Stands for the message broker, which delivers some events twice."""
    return [{"id": f"e{number}", "kind": "click"} for number in (1, 2, 3, 2, 4, 1)]


@dag(
    dag_id="events_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def events() -> None:
    @task
    def keep_once() -> None:
        seen = set[str]()
        if os.path.exists(SEEN):
            with open(SEEN) as file:
                seen = set(json.load(file))
        for event in poll_stream():
            if event["id"] in seen:
                continue
            seen.add(event["id"])
            write_json(f"{DATA_DIR}/kept/{event['id']}.json", event)
            write_json(SEEN, sorted(seen))

    keep_once()


events()
