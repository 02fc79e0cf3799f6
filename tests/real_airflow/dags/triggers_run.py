"""Nothing dies; the task that triggers a run of another DAG is cleared, and there is a second one."""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task
from crashes import ONE_DAY, OUT


@dag(**ONE_DAY)
def triggers_run():
    TriggerDagRunOperator(
        task_id="trigger", trigger_dag_id="triggered_run", wait_for_completion=True, poke_interval=1
    )


@dag(schedule=None)
def triggered_run():
    @task
    def load(ti=None):
        with open(OUT / "triggers_run.child", "a") as out:
            out.write(f"done by try {ti.try_number}\n")

    load()


triggers_run()
triggered_run()
