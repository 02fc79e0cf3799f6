"""Loads what a manifest lists."""

from __future__ import annotations

import json
import os
from typing import Any

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/manifest"
MANIFEST = f"{DATA_DIR}/manifest.json"


def write_json(path: str, content: Any) -> None:
    """Write a whole file or none."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(f"{path}.tmp", "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


write_json(MANIFEST, ["customers", "orders"])


@dag(
    dag_id="manifest_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def manifest() -> None:
    @task
    def load() -> None:
        with open(MANIFEST) as file:
            tables = json.load(file)
        for table in tables:
            write_json(f"{DATA_DIR}/loaded/{table}.json", {"table": table})

    load()


manifest()
