"""The callback of a lost worker's task."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, OUT, lost_here, note


def notify(context):
    with open(OUT / "callbacks_lost.notified", "a") as out:
        out.write("failed\n")


@dag(**ONE_DAY)
def callbacks_lost():
    @task(on_failure_callback=notify)
    def load():
        note("begun")
        lost_here()
        note("done")

    load()


callbacks_lost()
