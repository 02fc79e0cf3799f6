"""A lost worker's task that has no try left: the DAG processor runs the callback, twice."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, lost_here, note, notifier


@dag(**ONE_DAY)
def notified_of_loss():
    @task(on_retry_callback=notifier("retry"), on_failure_callback=notifier("failure"))
    def load():
        note("begun")
        lost_here()
        note("done")

    load()


notified_of_loss()
