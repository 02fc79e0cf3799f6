"""The orders of a day go into the table of all orders."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/warehouse"


def fetch_orders(day: str) -> list[tuple[str, str, int]]:
    """Stands for the shop's API."""
    return [(day, f"{day}-{number}", 1000 + 250 * number) for number in range(1, 4)]


@dag(
    dag_id="warehouse_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def warehouse() -> None:
    @task
    def load(day: str) -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        with closing(sqlite3.connect(f"{DATA_DIR}/shop.db")) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS orders (day TEXT, id TEXT, cents INTEGER)")
            with connection:
                connection.execute("DELETE FROM orders WHERE day = ?", [day])
                connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", fetch_orders(day))

    load("{{ ds }}")


warehouse()
