"""Callbacks run when and where Airflow runs them, and what they write counts as what any task writes."""

from __future__ import annotations

from importlib.metadata import version

from dag_projects import Project

from pytest_rerunsafe.model import Verdict

NOTES = """
    from datetime import datetime, timedelta
    from airflow.sdk import dag, task
    from airflow.exceptions import AirflowSkipException

    def note(name):
        def callback(context):
            with open(f"/data/{name}", "a") as file:
                file.write(f"{context['reason']}\\n" if "reason" in context else "called\\n")
        return callback
"""
FOLDER = "world.mkdir('/data')"
AIRFLOW = tuple(version("apache-airflow-core").split(".")[:2])


def test_callbacks_of_success_and_skips_run_in_a_clean_run(dags: Project) -> None:
    verdicts = dags.check(
        "callbacks_clean",
        NOTES
        + """
    @dag(start_date=datetime(2024, 1, 1), schedule=None, on_success_callback=note("dag"))
    def callbacks_clean():
        @task(on_success_callback=note("ok"), on_execute_callback=note("begun"))
        def work():
            pass

        @task(on_skipped_callback=note("skipped"))
        def skip():
            raise AirflowSkipException

        work()
        skip()

    callbacks_clean()
    """,
        FOLDER,
    )
    twice = {each.output for finding in verdicts["rerun"].findings for each in finding.differences}
    assert sorted(twice) == ["file:/data/begun", "file:/data/dag", "file:/data/ok", "file:/data/skipped"]


def test_a_lost_worker_sets_off_the_callbacks_that_its_version_sets_off(dags: Project) -> None:
    verdicts = dags.check(
        "callbacks_lost",
        NOTES
        + """
    @dag(start_date=datetime(2024, 1, 1), schedule=None, on_failure_callback=note("dag"))
    def callbacks_lost():
        @task(retries=1, on_retry_callback=note("retry"))
        def again():
            pass

        @task(on_failure_callback=note("failure"))
        def once():
            pass

        again()
        once()

    callbacks_lost()
    """,
        FOLDER,
    )
    extra = {
        check: {each.output for finding in verdicts[check].findings for each in finding.differences}
        for check in ("rerun", "crash.again", "crash.once")
    }
    assert extra["rerun"] == set()
    # 3.1 does not tell the DAG processor whether the task has a try left: it runs no callback of a retry.
    assert extra["crash.again"] == (set() if AIRFLOW < ("3", "2") else {"file:/data/retry"})
    assert extra["crash.once"] == {"file:/data/failure", "file:/data/dag"}


def test_a_callback_that_tells_people_over_the_network_is_worth_a_note_only(dags: Project) -> None:
    verdicts = dags.check(
        "callbacks_network",
        """
    import socket
    from datetime import datetime
    from airflow.sdk import dag, task

    def tell(context):
        socket.create_connection(("chat.example", 443))

    @dag(start_date=datetime(2024, 1, 1), schedule=None, on_failure_callback=tell)
    def callbacks_network():
        @task(on_failure_callback=tell)
        def work():
            pass

        work()

    callbacks_network()
    """,
    )
    assert verdicts.worst is Verdict.SAFE
    (note,) = verdicts["crash.work"].notes
    assert note.startswith("A callback did what is not seen here: ")
    assert "chat.example" in note
    assert "callbacks_network.py:7" in note
