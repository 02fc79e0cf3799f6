"""Books the payments of a day at the end of a journal, and after them a line with their sum, which ends the day."""

from __future__ import annotations

import os

import pendulum
from airflow.sdk import dag, task

JOURNAL = "/data/journal/payments.csv"


def read_lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return file.readlines()


def fetch_payments(day: str) -> list[tuple[str, int]]:
    """Stands for the bank's API."""
    return [("ada", 1250), ("grace", 900), ("mary", 3100)]


@dag(
    dag_id="journal_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def journal() -> None:
    @task
    def book(day: str) -> None:
        if any(line.startswith(f"{day},total,") for line in read_lines(JOURNAL)):
            return
        payments = fetch_payments(day)
        os.makedirs(os.path.dirname(JOURNAL), exist_ok=True)
        end = os.path.getsize(JOURNAL) if os.path.exists(JOURNAL) else 0
        try:
            with open(JOURNAL, "a") as file:
                for owner, cents in payments:
                    print(day, owner, cents, sep=",", file=file, flush=True)
                print(day, "total", sum(cents for _, cents in payments), sep=",", file=file, flush=True)
        except Exception:
            os.truncate(JOURNAL, end)
            raise

    book("{{ ds }}")


journal()
