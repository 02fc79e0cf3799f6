"""Callbacks run when and where Airflow runs them, and what they write counts as what any task writes."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import CrashKind, Rule, Verdict

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
LINE_OF_NOTE = next(number for number, line in enumerate(NOTES.splitlines(), 1) if "open(" in line)
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
    @dag(start_date=datetime(2024, 1, 1), schedule=None)
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
    assert extra["crash.once"] == {"file:/data/failure"}
    (finding,) = verdicts["crash.once"].findings
    assert (finding.rule, finding.line) == (Rule.STALE_OUTPUT, LINE_OF_NOTE)
    assert finding.remedy.startswith(
        f"dags/callbacks_lost.py:{LINE_OF_NOTE} is called when an attempt has failed"
    )


def test_the_callback_of_a_failing_run_is_the_schedulers(dags: Project) -> None:
    verdicts = dags.check(
        "callbacks_of_dag",
        NOTES
        + """
    @dag(start_date=datetime(2024, 1, 1), schedule=None, on_failure_callback=note("dag"))
    def callbacks_of_dag():
        @task
        def once():
            pass

        once()

    callbacks_of_dag()
    """,
        FOLDER,
    )
    (finding,) = verdicts["crash.once"].findings
    assert [difference.output for difference in finding.differences] == ["file:/data/dag"]
    assert (finding.rule, finding.line) == (Rule.STALE_OUTPUT, LINE_OF_NOTE)


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


def test_a_callback_that_tidies_up_is_not_called_where_the_supervisor_reports_the_death(
    dags: Project,
) -> None:
    verdicts = dags.check(
        "callbacks_tidy",
        """
    import os
    from datetime import datetime
    from airflow.sdk import dag, task

    def tidy(context):
        os.path.exists("/data/out") and os.remove("/data/out")

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def callbacks_tidy():
        @task(on_failure_callback=tidy)
        def load():
            with open("/data/out", "a") as out:
                out.write("1\\n")

        load()

    callbacks_tidy()
    """,
        FOLDER,
    )
    (finding,) = verdicts["crash.load"].findings
    assert (finding.rule, finding.crash_kind) == (Rule.DUPLICATE_OUTPUT, CrashKind.OOM)


def test_the_callback_of_a_deadline_is_not_run_and_a_note_says_so(dags: Project) -> None:
    (dags.root / "dags").mkdir(exist_ok=True)
    (dags.root / "dags" / "deadline_calls.py").write_text(
        "async def tell(**given):\n    raise AssertionError\n"
    )
    file = dags.load(
        "callbacks_deadline",
        """
    from datetime import datetime, timedelta
    from airflow.sdk import DAG, task
    from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference
    from deadline_calls import tell

    late = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=timedelta(seconds=1), callback=AsyncCallback(tell)
    )
    with DAG("callbacks_deadline", start_date=datetime(2024, 1, 1), schedule=None, deadline=late):
        @task
        def work():
            pass

        work()
    """,
    )
    assert not file.error, file.error
    clean = dags.checker.run(file.dags[0], "clean")
    assert clean.verdict is Verdict.SAFE, clean.reason
    assert clean.notes == (
        "The callback of the DAG's deadline is not run here: time passes otherwise than in a deployment",
    )


@pytest.mark.skipif(AIRFLOW < ("3", "2"), reason="3.1 retries no task whose process was killed")
def test_a_killed_process_is_retried_at_once_and_its_callback_runs_once(dags: Project) -> None:
    file = dags.write(
        "callbacks_killed",
        NOTES
        + """
    import os, signal, time

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def callbacks_killed():
        @task(retries=1, retry_delay=timedelta(seconds=1), on_retry_callback=note("retry"))
        def work(ti=None, dag_run=None):
            if ti.try_number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            assert open("/data/retry").read() == "called\\n"
            assert time.time() - dag_run.start_date.timestamp() < 60

        work()

    callbacks_killed()
    """,
        FOLDER,
    )
    (dag,) = dags.checker.load(file).dags
    clean = dags.checker.run(dag, "clean")
    assert (clean.verdict, clean.reason) == (Verdict.SAFE, None)


def test_what_a_callback_adds_to_an_output_is_stale_and_blamed_on_it(dags: Project) -> None:
    source = """
    import os
    from datetime import datetime
    from airflow.sdk import dag, task

    def tell(context):
        with open("/data/status", "a") as status:  # HERE
            status.write("failed\\n")

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def callbacks_status():
        @task(on_failure_callback=tell)
        def load():
            with open("/data/out.tmp", "w") as out:
                out.write("1\\n")
            os.replace("/data/out.tmp", "/data/out")
            known = open("/data/status").read()
            if "loaded" not in known:
                with open("/data/status.tmp", "w") as status:
                    status.write(known + "loaded\\n")
                os.replace("/data/status.tmp", "/data/status")

        load()

    callbacks_status()
    """
    verdicts = dags.check("callbacks_status", source, "world.write('/data/status', 'began\\n')")
    (finding,) = verdicts["crash.load"].findings
    (difference,) = finding.differences
    assert difference.output == "file:/data/status"
    assert "failed" in (difference.rerun or "")
    here = next(number for number, line in enumerate(source.splitlines(), 1) if "HERE" in line)
    assert (finding.rule, finding.line) == (Rule.STALE_OUTPUT, here)
