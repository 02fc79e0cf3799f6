"""Nothing dies; the task that the mapped ones come from is cleared with them, and gives fewer."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, note


@dag(**ONE_DAY)
def mapped_shrinks():
    @task
    def parts(ti=None):
        return [10, 20, 30] if ti.try_number == 1 else [10, 20]

    @task
    def load(part):
        note("done")
        return part

    @task
    def total(loaded):
        note(f"sum {sum(loaded)}")

    total(load.expand(part=parts()))


mapped_shrinks()
