"""Each file of the inbox is taken out, converted and kept in the archive."""

from __future__ import annotations

import csv
import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

INBOX = "/data/inbox/new"
ARCHIVE = "/data/inbox/archive"
CONVERTED = "/data/inbox/converted"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="inbox_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def inbox() -> None:
    @task
    def convert() -> None:
        os.makedirs(ARCHIVE, exist_ok=True)
        for name in sorted(os.listdir(INBOX)):
            source = f"{ARCHIVE}/{name}"
            os.replace(f"{INBOX}/{name}", source)
            with open(source, newline="") as file:
                rows = list(csv.DictReader(file))
            write_json(f"{CONVERTED}/{name.removesuffix('.csv')}.json", rows)

    convert()


inbox()
