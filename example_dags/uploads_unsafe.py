"""The photos of a day, each under a name that nobody can guess."""

from __future__ import annotations

import os
import uuid

import pendulum
from airflow.sdk import dag, task

PUBLIC = "/data/uploads"


@dag(
    dag_id="uploads_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def uploads() -> None:
    @task
    def publish(day: str) -> None:
        os.makedirs(PUBLIC, exist_ok=True)
        for photo in ("sunrise", "noon"):
            name = uuid.uuid4()
            with open(f"{PUBLIC}/{name}.jpg", "wb") as file:
                file.write(photo.encode())

    publish("{{ ds }}")


uploads()
