"""A killed task that has no try left: nobody runs its callback."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note, notifier


@dag(**ONE_DAY)
def notified_of_death():
    @task(on_retry_callback=notifier("retry"), on_failure_callback=notifier("failure"))
    def load():
        note("begun")
        killed_here()
        note("done")

    load()


notified_of_death()
