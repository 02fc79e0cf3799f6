"""A task dies after its trigger has resumed it: the retry starts over and defers again."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag
from crashes import ONE_DAY, RETRY, killed_here, note


class Waiting(BaseOperator):
    def execute(self, context):
        note("deferred")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=5)), method_name="resume")

    def resume(self, context, event=None):
        note("resumed")
        killed_here()
        note("done")
        return context["ti"].try_number


@dag(**ONE_DAY)
def deferred():
    Waiting(task_id="wait", **RETRY)


deferred()
