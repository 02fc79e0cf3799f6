"""The stock at the end of each day: yesterday's level with today's movements added."""

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
    dag_id="stock_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule="@daily",
    catchup=False,
    default_args={"retries": 1},
)
def stock() -> None:
    @task
    def extract(day: str) -> str:
        path = f"{DATA_DIR}/movements/{day}.json"
        write_json(path, fetch_movements(day))
        return path

    @task
    def add_up(day: str, movements: str) -> None:
        level = dict[str, int]()
        yesterday = parse_day(day).subtract(days=1).to_date_string()
        if os.path.exists(f"{DATA_DIR}/level/{yesterday}.json"):
            level = read_json(f"{DATA_DIR}/level/{yesterday}.json")
        for item, count in read_json(movements).items():
            level[item] = level.get(item, 0) + count
        write_json(f"{DATA_DIR}/level/{day}.json", level)

    day = "{{ ds }}"
    add_up(day, extract(day))


stock()
