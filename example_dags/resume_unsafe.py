"""Copies the pages of a catalogue one by one; a file says which page comes next."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/resume"
STATE = f"{DATA_DIR}/state.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def fetch_page(number: int) -> list[str]:
    """Stands for the catalogue's API."""
    return [f"item {number}-{position}" for position in range(1, 4)]


@dag(
    dag_id="resume_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def resume() -> None:
    @task
    def copy_pages() -> None:
        page = 1
        if os.path.exists(STATE):
            with open(STATE) as file:
                page = json.load(file)["next_page"]
        while page <= 3:
            write_json(f"{DATA_DIR}/page_{page}.json", fetch_page(page))
            page += 1
            with open(STATE, "w") as file:
                json.dump({"next_page": page}, file)

    copy_pages()


resume()
