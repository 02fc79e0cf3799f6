"""Time-outs and retry delays pass in virtual time."""

from __future__ import annotations

from dag_projects import Project

from pytest_rerunsafe.model import Verdict


def test_an_execution_timeout_ends_a_task_that_sleeps_and_its_retry_may_end_well(dags: Project) -> None:
    verdicts = dags.check(
        "timeout_retry",
        """
    import os, time
    from datetime import datetime, timedelta
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def timeout_retry():
        @task(execution_timeout=timedelta(minutes=30), retries=3, retry_delay=timedelta(days=2),
              retry_exponential_backoff=True, max_retry_delay=timedelta(days=3))
        def slow(ti=None):
            time.sleep({1: 3600, 2: 1801}.get(ti.try_number, 1799))
            with open("/data/tries", "w") as file:
                file.write("done")

        slow()

    timeout_retry()
    """,
        "world.mkdir('/data')",
    )
    assert verdicts["clean"].verdict is Verdict.SAFE
    assert verdicts.worst is Verdict.SAFE


def test_a_task_that_is_always_too_slow_fails_by_its_time_out(dags: Project) -> None:
    verdicts = dags.check(
        "timeout_always",
        """
    import time
    from datetime import datetime, timedelta
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def timeout_always():
        @task(execution_timeout=timedelta(seconds=10))
        def slow():
            time.sleep(11)

        slow()

    timeout_always()
    """,
    )
    assert verdicts["clean"].verdict is Verdict.ERROR
    assert "AirflowTaskTimeout" in (verdicts["clean"].reason or "")


def test_a_dag_run_that_takes_too_long_fails_and_what_has_not_run_is_skipped(dags: Project) -> None:
    verdicts = dags.check(
        "timeout_run",
        """
    import time
    from datetime import datetime, timedelta
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None, dagrun_timeout=timedelta(hours=1))
    def timeout_run():
        @task
        def slow():
            time.sleep(3601)

        @task
        def after():
            pass

        slow() >> after()

    timeout_run()
    """,
    )
    assert verdicts["clean"].verdict is Verdict.ERROR
    assert verdicts["clean"].reason == "the clean run ends failed: after skipped, slow success"


def test_retries_wait_longer_each_time_as_long_as_they_may(dags: Project) -> None:
    """The last try fails the clean run unless each waited as long as Airflow says: twice as long, at most an hour."""
    verdicts = dags.check(
        "back_off",
        """
    from datetime import datetime, timedelta, timezone
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def back_off():
        @task(retries=5, retry_delay=timedelta(minutes=10), retry_exponential_backoff=True,
              max_retry_delay=timedelta(hours=1))
        def work(ti=None):
            with open("/data/tries", "a") as out:
                out.write(f"{datetime.now(timezone.utc).timestamp()}\\n")
            if ti.try_number < 6:
                raise ValueError
            tries = [float(line) for line in open("/data/tries")]
            waits = [(after - before) / 60 for before, after in zip(tries, tries[1:])]
            # Airflow adds up to as much again by chance, which is the same chance each time.
            assert 10 <= waits[0] < 21 and 20 <= waits[1] < 41 and 40 <= waits[2] < 61.1, waits
            assert all(60 <= wait < 61.1 for wait in waits[3:]), waits

        work()

    back_off()
    """,
        "world.mkdir('/data')",
    )
    assert verdicts["clean"].reason is None, verdicts["clean"].reason
