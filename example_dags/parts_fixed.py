"""Each station's temperatures are written as a part of their own, then all parts are joined into one file."""

from __future__ import annotations

import os
import tempfile
from glob import glob
from uuid import uuid4

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/parts"


def write_text(path: str, text: str) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def fetch_temperatures(station: str) -> list[str]:
    """Stands for the weather service."""
    return [f"{station},{hour},{10 + hour}\n" for hour in range(3)]


@dag(
    dag_id="parts_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def parts() -> None:
    @task
    def join() -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DATA_DIR) as staging:
            for station in ("alp", "sea"):
                write_text(f"{staging}/{uuid4()}.csv", "".join(fetch_temperatures(station)))
            rows = []
            for part in glob(f"{staging}/*.csv"):
                with open(part) as file:
                    rows += file.readlines()
            write_text(f"{DATA_DIR}/temperatures.csv", "".join(sorted(rows)))

    join()


parts()
