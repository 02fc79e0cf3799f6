"""The supervisor reports the death of its task, which has a try left. What the first try pushed is gone."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_here, note


@dag(**ONE_DAY)
def retry():
    @task(**RETRY)
    def load(ti=None):
        note("begun")
        ti.xcom_push(f"try_{ti.try_number}", 1)
        killed_here()
        note("done")
        return ti.try_number

    @task
    def report(loaded_by):
        note(f"load done by try {loaded_by}")

    report(load())


retry()
