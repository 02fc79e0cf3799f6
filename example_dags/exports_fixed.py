"""The price list for a partner, who takes whatever lies in the folder; it gets its name when it is complete."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import dag, task

EXPORTS = "/data/exports"


@dag(
    dag_id="exports_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def exports() -> None:
    @task
    def export(day: str) -> None:
        os.makedirs(EXPORTS, exist_ok=True)
        unfinished = f"{EXPORTS}/{day}.csv.tmp"
        with open(unfinished, "w") as file:
            file.write("item,cents\nbolt,15\nnut,8\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, f"{EXPORTS}/{day}.csv")

    export("{{ ds }}")


exports()
