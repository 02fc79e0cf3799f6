"""A killed task that has a try left: the DAG processor runs the callback."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_here, note, notifier


@dag(**ONE_DAY)
def notified_of_retry():
    @task(**RETRY, on_retry_callback=notifier("retry"), on_failure_callback=notifier("failure"))
    def load():
        note("begun")
        killed_here()
        note("done")

    load()


notified_of_retry()
