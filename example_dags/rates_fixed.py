"""Converts amounts by the rates of the day, which are fetched once."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/rates"
RATES = {"EUR": 1.0}


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="rates_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def rates() -> None:
    @task
    def fetch() -> dict[str, float]:
        RATES.update(USD=1.25, CHF=0.75)
        return RATES

    @task
    def convert(day: str, rates: dict[str, float]) -> None:
        amounts = {"EUR": 100, "USD": 250, "CHF": 30}
        total = sum(amount / rates[currency] for currency, amount in amounts.items() if currency in rates)
        write_json(f"{DATA_DIR}/{day}.json", {"eur": total})

    convert("{{ ds }}", fetch())


rates()
