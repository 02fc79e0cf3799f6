"""A scratch DAG that a process runs before it is forked: two tasks, an XCom, a file."""

from __future__ import annotations

from airflow.sdk import DAG, task

with DAG(dag_id="rerunsafe_warm_up", schedule=None):

    @task(retries=1)
    def first() -> int:
        with open("/tmp/warm_up", "w") as file:
            file.write("1")
        return 1

    @task
    def second(value: int) -> None:
        with open("/tmp/warm_up") as file:
            assert int(file.read()) == value

    second(first())  # type: ignore[arg-type]
