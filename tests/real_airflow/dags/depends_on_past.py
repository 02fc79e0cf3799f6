"""The first of two runs dies: the second waits until the first is cleared."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import TWO_DAYS, killed_here, note


@dag(**TWO_DAYS)
def depends_on_past():
    @task(depends_on_past=True)
    def load(ti=None):
        note("begun")
        killed_here()
        note("done")
        return ti.try_number

    load()


depends_on_past()
