"""The state stores of Airflow 3.3 survive retries and clears as they do there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

pytestmark = pytest.mark.skipif(
    find_spec("airflow.models.task_state_store") is None, reason="Airflow has them from 3.3 on"
)

TASK = """
    from datetime import datetime
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def {name}():
        @task(retries=1)
        def load(task_state_store=None):
            done = task_state_store.get("done") or 0
            for row in range(done, 3):
                with open("/data/out.csv", "a") as file:
                    file.write(f"{{row}}\\n")
                task_state_store.set("done", row + 1)
            {end}

        load()

    {name}()
"""


def test_a_checkpoint_in_the_store_survives_a_clear(dags: Project) -> None:
    """A cleared run finds that all is done: no line twice, but for the one written before its checkpoint."""
    verdicts = dags.check("state_kept", TASK.format(name="state_kept", end="pass"), "world.mkdir('/data')")
    assert verdicts["rerun"].verdict is Verdict.SAFE
    points = {finding.crash_point for finding in verdicts["crash.load"].findings}
    assert points
    assert all(point is not None and "@write:/data/out.csv" in point for point in points)


def test_a_store_that_is_emptied_at_the_end_makes_a_cleared_run_begin_anew(dags: Project) -> None:
    source = TASK.format(name="state_emptied", end="task_state_store.clear()")
    verdicts = dags.check("state_emptied", source, "world.mkdir('/data')")
    assert verdicts.rules == {"duplicate-output"}
    assert verdicts["rerun"].verdict is Verdict.UNSAFE


def test_the_store_of_an_asset_is_kept_from_task_to_task(dags: Project) -> None:
    verdicts = dags.check(
        "asset_state",
        """
    from datetime import datetime
    from airflow.sdk import Asset, dag, task

    ORDERS = Asset("orders", uri="file:///data/orders.csv")

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def asset_state():
        @task(outlets=[ORDERS])
        def write(asset_state_store=None):
            asset_state_store[ORDERS].set("watermark", "2024-01-01")

        @task(inlets=[ORDERS])
        def read(asset_state_store=None):
            with open("/data/watermark", "w") as file:
                file.write(asset_state_store[ORDERS].get("watermark"))

        write() >> read()

    asset_state()
    """,
        "world.mkdir('/data')",
    )
    assert verdicts.worst is Verdict.SAFE
