"""The sales of the day of the run, in a file with that day's name."""

from __future__ import annotations

import csv
import os
from datetime import datetime, timezone

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/sales"


@dag(
    dag_id="sales_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def sales() -> None:
    @task
    def export(day: str) -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        today = datetime.now(timezone.utc).date()
        with open(f"{DATA_DIR}/{today}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["bolt", 3], ["nut", 5]])

    export("{{ ds }}")


sales()
