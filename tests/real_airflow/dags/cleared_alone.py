"""Nothing dies; the first of two tasks is cleared alone, and the second keeps what it got."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, note


@dag(**ONE_DAY)
def cleared_alone():
    @task
    def extract(ti=None):
        note("done")
        return ti.try_number

    @task
    def load(extracted_by):
        note(f"done after try {extracted_by}")

    load(extract())


cleared_alone()
