"""One of three mapped tasks dies and retries."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_here, note


@dag(**ONE_DAY)
def mapped_retry():
    @task
    def parts():
        return [10, 20, 30]

    @task(**RETRY)
    def load(part):
        note("begun")
        if part == 20:
            killed_here()
        note("done")
        return part

    @task
    def total(loaded):
        note(f"sum {sum(loaded)}")

    total(load.expand(part=parts()))


mapped_retry()
