"""A task that writes a file per item unless it exists, each under its name before it is complete."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from uuid import uuid4

import pendulum
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

DATA_DIR = "/data/items"
INPUT = f"{DATA_DIR}/input.json"
OUTPUT_DIR = f"{DATA_DIR}/output"

os.makedirs(DATA_DIR, exist_ok=True)
with open(INPUT, "w") as file:
    json.dump([{"id": str(uuid4()), "name": f"item_{number}"} for number in range(1, 6)], file)


def write_items() -> None:
    with open(INPUT) as file:
        items = json.load(file)
    os.makedirs(OUTPUT_DIR, exist_ok=True)
    for item in items:
        path = f"{OUTPUT_DIR}/{item['name']}.json"
        if os.path.exists(path):
            continue
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with open(path, "w") as file:
            json.dump({**item, "processed_at": now}, file)


with DAG(
    dag_id="items_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
) as dag:
    PythonOperator(task_id="write_items", python_callable=write_items)
