"""The sessions of the day before, out of a log that holds several days."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/sessions"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def fetch_sessions() -> list[dict[str, str]]:
    """Stands for the log of the web server."""
    return [{"user": f"u{number}", "day": f"2024-01-0{number % 4 + 1}"} for number in range(12)]


@dag(
    dag_id="sessions_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule="@daily",
    catchup=False,
)
def sessions() -> None:
    @task
    def select(day: str) -> None:
        yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
        wanted = [session for session in fetch_sessions() if session["day"] == str(yesterday)]
        write_json(f"{DATA_DIR}/{day}.json", wanted)

    select("{{ ds }}")


sessions()
