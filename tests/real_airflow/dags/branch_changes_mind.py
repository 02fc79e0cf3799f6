"""A branch dies after it has skipped what it did not choose, and its retry chooses that: what is skipped stays skipped."""

from __future__ import annotations

from airflow.providers.standard.operators.branch import BaseBranchOperator
from airflow.sdk import dag, task
from crashes import ONE_DAY, RETRY, killed_after, note


class Choosing(BaseBranchOperator):
    def choose_branch(self, context):
        return "left" if context["ti"].try_number == 1 else "right"

    def execute(self, context):
        killed_after("SkipDownstreamTasks")
        return super().execute(context)


@dag(**ONE_DAY)
def branch_changes_mind():
    @task
    def left():
        note("done")

    @task
    def right():
        note("done")

    @task(trigger_rule="none_failed")
    def join():
        note("done")

    Choosing(task_id="choose", **RETRY) >> [left(), right()] >> join()


branch_changes_mind()
