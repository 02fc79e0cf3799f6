"""The visits of a day have a file of their own among those of all visits."""

from __future__ import annotations

import csv
import os

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/visits"


def fetch_visits(day: str) -> list[tuple[str, str, int]]:
    """Stands for the web server's log."""
    return [(day, page, 10 * number) for number, page in enumerate(["home", "cart", "help"], start=1)]


@dag(
    dag_id="visits_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def visits() -> None:
    @task
    def load(day: str) -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        with open(f"{DATA_DIR}/{day}.csv", "w", newline="") as file:
            csv.writer(file).writerows(fetch_visits(day))

    load("{{ ds }}")


visits()
