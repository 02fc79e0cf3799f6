"""The callback of a killed task."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, OUT, killed_here, note


def notify(context):
    with open(OUT / "callbacks.notified", "a") as out:
        out.write("failed\n")


@dag(**ONE_DAY)
def callbacks():
    @task(on_failure_callback=notify)
    def load():
        note("begun")
        killed_here()
        note("done")

    load()


callbacks()
