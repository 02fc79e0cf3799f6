"""Nothing dies; the task that a branch left aside is cleared and skipped again, for the branch remembers."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, note


@dag(**ONE_DAY)
def branch_left_aside():
    @task.branch
    def choose():
        note("chosen")
        return "left"

    @task
    def left():
        note("begun")
        note("done")

    @task
    def right():
        note("done")

    @task(trigger_rule="none_failed_min_one_success")
    def join():
        note("done")

    choose() >> [left(), right()] >> join()


branch_left_aside()
