"""The payments of a day go into the ledger, a JSON file that is written anew each time."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

LEDGER = "/data/ledger/ledger.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def fetch_payments(day: str) -> list[dict[str, Any]]:
    """Stands for the bank's API."""
    return [{"id": f"{day}-{number}", "cents": 250 * number} for number in range(1, 5)]


@dag(
    dag_id="ledger_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def ledger() -> None:
    @task
    def book(day: str) -> None:
        booked = []
        if os.path.exists(LEDGER):
            with open(LEDGER) as file:
                booked = json.load(file)
        booked.extend(fetch_payments(day))
        write_json(LEDGER, booked)

    book("{{ ds }}")


ledger()
