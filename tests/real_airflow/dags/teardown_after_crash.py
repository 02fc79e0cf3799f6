"""The task between set-up and teardown dies: the teardown runs; to clear the task clears all three."""

from __future__ import annotations

from airflow.sdk import dag, setup, task, teardown
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def teardown_after_crash():
    @setup
    def make():
        note("made")

    @task
    def use():
        note("begun")
        killed_here()
        note("done")

    @teardown
    def remove():
        note("removed")

    made, used, removed = make(), use(), remove()
    made >> used >> removed
    made >> removed


teardown_after_crash()
