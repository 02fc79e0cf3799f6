"""One of three mapped tasks dies; by task id all three are cleared."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def mapped_clear():
    @task
    def parts():
        return [10, 20, 30]

    @task
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


mapped_clear()
