"""The whole table at first, then only what is new: what to do is decided by what is there."""

from __future__ import annotations

import csv
import os

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/first_load"
ALL = f"{DATA_DIR}/customers.csv"


def write_rows(path: str, customers: list[str]) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([name, len(name)] for name in customers)


@dag(
    dag_id="first_load_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def first_load() -> None:
    @task.branch
    def decide(day: str) -> str:
        return "load_new" if os.path.exists(ALL) else "load_all"

    @task
    def load_all() -> None:
        write_rows(ALL, ["ada", "grace", "mary"])

    @task
    def load_new(day: str) -> None:
        write_rows(f"{DATA_DIR}/new_{day}.csv", ["joan"])

    decide("{{ ds }}") >> [load_all(), load_new("{{ ds }}")]


first_load()
