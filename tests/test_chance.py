"""What chance alone makes differ is blamed on chance, also where the clean runs happen to agree."""

from __future__ import annotations

from dag_projects import Project

from pytest_rerunsafe.model import Verdict

BRANCH = """
    import random
    from datetime import datetime
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, TriggerRule, task

    WAYS = ["north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest"]

    with DAG("{name}", schedule=None, start_date=datetime(2024, 1, 1)):
        @task.branch
        def choose(logical_date=None):
            return {choice}

        @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
        def arrive():
            with open("/data/arrived", "w") as file:
                file.write("yes")

        choose() >> [EmptyOperator(task_id=way) for way in WAYS] >> arrive()
"""

DRAWN = """
    import random
    from datetime import datetime
    from airflow.sdk import DAG, task

    with DAG("{name}", schedule=None, start_date=datetime(2024, 1, 1)):
        @task
        def toss():
            with open("/data/coin", "w") as file:
                file.write(random.choice(["heads", "tails"]))

        toss()
"""


def test_a_branch_that_chance_decides_is_not_taken_for_a_loss(dags: Project) -> None:
    """Cleared alone it chooses a way that the failed attempt has closed, and nothing arrives."""
    source = BRANCH.format(name="by_chance", choice="random.choice(WAYS)")
    verdicts = dags.check("by_chance", source, "world.mkdir('/data')")
    assert verdicts["clean"].verdict is Verdict.SAFE, "all ways lead to the same outputs"
    assert verdicts.rules == {"nondeterministic-output"}
    (finding,) = verdicts.findings
    assert "Let choose choose by the run" in finding.remedy


def test_a_branch_that_the_run_decides_is_safe(dags: Project) -> None:
    source = BRANCH.format(name="by_run", choice="WAYS[logical_date.day % len(WAYS)]")
    assert dags.check("by_run", source, "world.mkdir('/data')").findings == ()


def test_what_is_drawn_from_two_is_told_even_if_the_clean_runs_draw_the_same(dags: Project) -> None:
    verdicts = dags.check("coin_8", DRAWN.format(name="coin_8"), "world.mkdir('/data')")
    assert verdicts["clean"].verdict is Verdict.SAFE, "find another name: the draws follow from it"
    assert verdicts.rules == {"nondeterministic-output"}
