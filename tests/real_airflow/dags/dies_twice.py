"""A task dies, its retry dies too, and what has failed is cleared: it has its retries again."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_here, note


@dag(**ONE_DAY)
def dies_twice():
    @task(**RETRY)
    def load(ti=None):
        note("begun")
        killed_here(times=2)
        note("done")
        return ti.max_tries

    load()


dies_twice()
