"""A task is asked to end: `on_kill` runs, and then the task goes on."""

from __future__ import annotations

from airflow.sdk import BaseOperator, dag
from crashes import ONE_DAY, RETRY, note, terminated_here


class Loading(BaseOperator):
    def execute(self, context):
        note("begun")
        terminated_here()
        note("done")
        return context["ti"].try_number

    def on_kill(self):
        note("killed")


@dag(**ONE_DAY)
def sigterm():
    Loading(task_id="load", **RETRY)


sigterm()
