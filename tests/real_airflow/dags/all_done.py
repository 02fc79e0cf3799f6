"""A task that runs whatever becomes of the one above: it has run by the time that one is cleared alone."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def all_done():
    @task
    def load():
        note("begun")
        killed_here()
        note("done")

    @task(trigger_rule="all_done")
    def clean_up():
        note("done")

    load() >> clean_up()


all_done()
