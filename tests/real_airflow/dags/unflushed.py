"""A task dies with rows in its memory that a clean end would have written."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, OUT, RETRY, killed_here


@dag(**ONE_DAY)
def unflushed():
    @task(**RETRY)
    def load(ti=None):
        with open(OUT / "unflushed.rows", "a") as rows:
            rows.write(f"1 by try {ti.try_number}\n")
            rows.flush()
            rows.write(f"2 by try {ti.try_number}\n")
            killed_here()

    load()


unflushed()
