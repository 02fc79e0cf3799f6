"""Two runs, one task dies; a backfill that reprocesses what has failed leaves the other run alone."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import TWO_DAYS, killed_here, note


@dag(**TWO_DAYS, max_active_runs=1)
def backfill_failed():
    @task
    def load(ti=None):
        note("begun")
        killed_here()
        note("done")
        return ti.try_number

    load()


backfill_failed()
