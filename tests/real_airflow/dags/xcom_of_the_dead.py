"""A task dies after its result was stored and before its success was: what runs nevertheless reads that result."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_after, note


@dag(**ONE_DAY)
def xcom_of_the_dead():
    @task
    def load(ti=None):
        killed_after("SetXCom")
        return ti.try_number

    @task(trigger_rule="all_done")
    def report(ti=None):
        note(f"read {ti.xcom_pull(task_ids='load')}")

    load() >> report()


xcom_of_the_dead()
