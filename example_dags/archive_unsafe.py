"""Packs the log of a day into the archive unless it has been packed already."""

from __future__ import annotations

import gzip
import os
import shutil

import pendulum
from airflow.sdk import dag, task

LOGS = "/data/archive/logs"
ARCHIVE = "/data/archive/packed"


@dag(
    dag_id="archive_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def archive() -> None:
    @task
    def pack() -> None:
        os.makedirs(ARCHIVE, exist_ok=True)
        for name in sorted(os.listdir(LOGS)):
            packed = f"{ARCHIVE}/{name}.gz"
            if os.path.exists(packed) and os.path.getsize(packed) > 0:
                continue
            with open(f"{LOGS}/{name}", "rb") as log, gzip.GzipFile(packed, "wb", mtime=0) as target:
                shutil.copyfileobj(log, target)

    pack()


archive()
