"""The middle task of three dies and the whole run is cleared."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def clear_run():
    @task
    def extract(ti=None):
        note("done")
        return ti.try_number

    @task
    def load(extracted_by, ti=None):
        note(f"begun after try {extracted_by}")
        killed_here()
        note("done")
        return ti.try_number

    @task
    def report(loaded_by):
        note(f"load done by try {loaded_by}")

    report(load(extract()))


clear_run()
