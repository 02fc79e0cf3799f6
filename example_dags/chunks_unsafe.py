"""Each of five tasks writes the file of its chunk unless it exists: a crash leaves an empty one for ever."""

from __future__ import annotations

import json
import os

import pendulum
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

DATA_DIR = "/data/chunks"


def write_chunk(number: int) -> None:
    path = f"{DATA_DIR}/chunk_{number}.json"
    if os.path.exists(path):
        print(f"{path} is done")
        return
    records = [{"chunk": number, "record": record, "square": record**2} for record in range(10)]
    os.makedirs(DATA_DIR, exist_ok=True)
    with open(path, "w") as file:
        json.dump(records, file)


with DAG(
    dag_id="chunks_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
) as dag:
    for number in range(1, 6):
        PythonOperator(
            task_id=f"write_chunk_{number}",
            python_callable=write_chunk,
            op_kwargs={"number": number},
        )
