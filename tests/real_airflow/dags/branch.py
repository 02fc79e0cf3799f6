"""The task that a branch leads to dies and is cleared with what hangs on it; the branch is not taken anew."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def branch():
    @task.branch
    def choose():
        note("chosen")
        return "left"

    @task
    def left():
        note("begun")
        killed_here()
        note("done")

    @task
    def right():
        note("done")

    @task(trigger_rule="none_failed_min_one_success")
    def join():
        note("done")

    choose() >> [left(), right()] >> join()


branch()
