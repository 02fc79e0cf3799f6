"""The stock at the end of each day: the movements of all days up to it, fetched anew."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/stock"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def read_json(path: str) -> Any:
    with open(path) as file:
        return json.load(file)


def parse_day(day: str) -> pendulum.DateTime:
    return pendulum.from_format(day, "YYYY-MM-DD")


def fetch_movements(day: str) -> dict[str, int]:
    """Stands for the warehouse's API."""
    number = parse_day(day).day_of_year
    return {"bolts": 100 + number, "nuts": 40 - 2 * number}


@dag(
    dag_id="stock_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule="@daily",
    catchup=False,
    default_args={"retries": 1},
)
def stock() -> None:
    @task
    def extract(day: str) -> str:
        path = f"{DATA_DIR}/movements/{day}.json"
        days = pendulum.interval(pendulum.datetime(2024, 1, 1), parse_day(day)).range("days")
        write_json(path, [fetch_movements(date.to_date_string()) for date in days])
        return path

    @task
    def add_up(day: str, movements: str) -> None:
        level = dict[str, int]()
        for of_day in read_json(movements):
            for item, count in of_day.items():
                level[item] = level.get(item, 0) + count
        write_json(f"{DATA_DIR}/level/{day}.json", level)

    day = "{{ ds }}"
    add_up(day, extract(day))


stock()
