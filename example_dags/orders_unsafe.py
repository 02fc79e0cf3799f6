"""The orders of a day: loading appends, and the day counts as done before its report is written."""

from __future__ import annotations

import csv
import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/orders"


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


def fetch_orders(day: str) -> list[dict[str, Any]]:
    """Stands for the shop's API."""
    states = ["paid", "paid", "cancelled", "paid", "refunded", "paid"]
    return [
        {"order": f"{day}-{number}", "cents": 1000 + 250 * number, "state": state}
        for number, state in enumerate(states, start=1)
    ]


@dag(
    dag_id="orders_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule="@daily",
    catchup=False,
    default_args={"retries": 1},
)
def orders() -> None:
    @task
    def extract(day: str) -> str:
        path = f"{DATA_DIR}/raw/{day}.json"
        write_json(path, fetch_orders(day))
        return path

    @task
    def transform(day: str, raw: str) -> str:
        path = f"{DATA_DIR}/clean/{day}.json"
        write_json(path, [order for order in read_json(raw) if order["state"] == "paid"])
        return path

    @task
    def load(day: str, clean: str) -> str:
        path = f"{DATA_DIR}/warehouse/{day}.csv"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a", newline="") as file:
            csv.writer(file).writerows([order["order"], order["cents"]] for order in read_json(clean))
        return path

    @task
    def publish(day: str, warehouse: str) -> None:
        done = f"{DATA_DIR}/reports/{day}.done"
        if os.path.exists(done):
            return
        os.makedirs(os.path.dirname(done), exist_ok=True)
        with open(done, "w"):
            pass
        with open(warehouse, newline="") as file:
            cents = [int(row[1]) for row in csv.reader(file)]
        write_json(f"{DATA_DIR}/reports/{day}.json", {"orders": len(cents), "cents": sum(cents)})

    day = "{{ ds }}"
    publish(day, load(day, transform(day, extract(day))))


orders()
