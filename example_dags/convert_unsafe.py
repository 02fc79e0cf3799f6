"""Converts the upload of a customer; whether there is one today is not known."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

UPLOAD = "/data/convert/upload.txt"
WORK = "/data/convert/work.txt"
RESULT = "/data/convert/result.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


@dag(
    dag_id="convert_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def convert() -> None:
    @task
    def take_upload() -> None:
        try:
            os.rename(UPLOAD, WORK)
        except FileNotFoundError:
            print("No upload today")
            return
        with open(WORK) as file:
            write_json(RESULT, file.read().split())

    take_upload()


convert()
