"""A task with a try left dies after its success was recorded."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_here, note, notifier


@dag(**ONE_DAY)
def killed_after_success():
    @task(**RETRY, on_success_callback=[killed_here, notifier("success")])
    def load(ti=None):
        note("done")
        return ti.try_number

    load()


killed_after_success()
