"""The worker is lost with its supervisor: heartbeats stay away, the scheduler lets the task retry."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, lost_here, note


@dag(**ONE_DAY)
def lost_worker():
    @task(**RETRY)
    def load(ti=None):
        note("begun")
        ti.xcom_push(f"try_{ti.try_number}", 1)
        lost_here()
        note("done")
        return ti.try_number

    @task
    def report(loaded_by):
        note(f"load done by try {loaded_by}")

    report(load())


lost_worker()
