"""A task that runs is cleared: its worker is ended, and it runs again although it has no try left."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, hangs_here, note


@dag(**ONE_DAY)
def clear_running():
    @task
    def load(ti=None):
        note("begun")
        hangs_here()
        note("done")
        return ti.try_number

    load()


clear_running()
