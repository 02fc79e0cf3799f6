"""DAG files that do not load, or do not run for want of an input: what the user is told; and what is known of those that do."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

HEAD = """\
import os, sys
from datetime import datetime
from airflow.sdk import DAG, Connection, Variable, dag, task
"""


def in_task(statement: str, before: str = "") -> str:
    """A DAG file with a task that does this."""
    return f"{HEAD}{before}\n@dag(schedule=None)\ndef d():\n    @task\n    def t():\n        {statement}\n    t()\nd()\n"


def utc(*parts: int) -> datetime:
    """An instant."""
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[misc,arg-type]


# --- files that do not load -------------------------------------------------------------------


def test_a_syntax_error_is_shown_with_its_line(dags: Project) -> None:
    loaded = dags.load("syntax", "from airflow.sdk import DAG\nwith DAG('d'\n    pass\n")
    assert loaded.dags == ()
    assert "SyntaxError" in loaded.error
    assert f'File "{dags.root}/dags/syntax.py", line 2' in loaded.error


def test_the_traceback_of_an_import_shows_the_users_frames_alone(dags: Project) -> None:
    (dags.root / "helpers.py").write_text("import json\n\ndef read():\n    return json.loads('{')\n")
    loaded = dags.load("raising", HEAD + "import helpers\nCONFIG = helpers.read()\n")
    frames = [line.strip() for line in loaded.error.splitlines() if line.startswith("  File")]
    assert frames == [
        f'File "{dags.root}/dags/raising.py", line 5, in <module>',
        f'File "{dags.root}/helpers.py", line 4, in read',
    ]
    assert loaded.error.splitlines()[-1].startswith("json.decoder.JSONDecodeError: Expecting property name")


@pytest.mark.parametrize(
    ("name", "statement", "message"),
    [
        ("sys_exit", "sys.exit(3)", "SystemExit: 3"),
        ("os_exit", "os._exit(3)", "the process ended with exit code 3"),
        ("no_module", "import no_such_module", "No module named 'no_such_module'"),
        ("not_a_dag", "DAG(7)", "TypeError"),
    ],
)
def test_what_ends_the_loading_is_told(dags: Project, name: str, statement: str, message: str) -> None:
    loaded = dags.load(name, HEAD + statement + "\n")
    assert loaded.dags == ()
    assert message in loaded.error


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "from airflow.providers.docker.operators.docker import DockerOperator",
            "    pip install apache-airflow-providers-docker",
        ),
        (
            "from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator",
            "    pip install apache-airflow-providers-cncf-kubernetes",
        ),
        ("import airflow.providers.docker", "    pip install apache-airflow-providers-docker"),
        (
            "import no_such_module",
            "The module no_such_module is not there: the checks import all that your DAGs import. Install it beside pytest.",
        ),
    ],
)
def test_what_is_not_installed_is_named(dags: Project, statement: str, told: str) -> None:
    loaded = dags.load("not_installed", f"{HEAD}{statement}\n")
    assert loaded.error.splitlines()[-1] == told


def test_a_cycle_is_told(dags: Project) -> None:
    source = """
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    with DAG("d", schedule=None):
        a, b = EmptyOperator(task_id="a"), EmptyOperator(task_id="b")
        a >> b >> a
    """
    assert "Cycle detected in Dag: d" in dags.load("cycle", source).error.replace("DAG:", "Dag:")


def test_a_task_id_used_twice_is_told(dags: Project) -> None:
    source = """
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    with DAG("d", schedule=None):
        EmptyOperator(task_id="same")
        EmptyOperator(task_id="same")
    """
    error = dags.load("twice", source).error
    assert "Task id 'same' has already been added" in error
    assert "line 6" in error


def test_a_file_without_dags_has_none_and_no_error(dags: Project) -> None:
    loaded = dags.load("without", "# airflow dag\nX = 1\n")
    assert (loaded.dags, loaded.error) == ((), "")


@pytest.mark.parametrize(
    ("name", "statement", "remedy"),
    [
        ("parse_file", "open('/conf/tables.txt').read()", "world.write('/conf/tables.txt', ...)"),
        ("parse_variable", "Variable.get('tables')", "world.set_variable('tables', ...)"),
        ("parse_connection", "Connection.get('shop')", "world.set_connection('shop', ...)"),
    ],
)
def test_an_input_that_loading_needs_is_named(dags: Project, name: str, statement: str, remedy: str) -> None:
    error = dags.load(name, in_task("pass", f"X = {statement}")).error
    assert remedy in error
    assert "def pytest_rerun_safety_prepare(dag, world):" in error


@pytest.mark.parametrize(
    ("name", "statement", "prepare"),
    [
        ("given_file", "open('/conf/n.txt').read()", "world.write('/conf/n.txt', '7')"),
        ("given_variable", "Variable.get('n')", "world.set_variable('n', '7')"),
    ],
)
def test_an_input_that_loading_needs_can_be_given(
    dags: Project, name: str, statement: str, prepare: str
) -> None:
    verdicts = dags.check(name, in_task("assert X == '7'", f"X = {statement}"), prepare)
    assert verdicts.worst is Verdict.SAFE


def test_a_hook_that_needs_the_dag_leaves_the_error_of_loading(dags: Project) -> None:
    path = dags.write("needs_dag", in_task("pass", "X = Variable.get('n')"), "dag.dag_id")
    assert "Variable n is not there" in dags.checker.load(path).error


# --- runs that lack an input ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "statement", "told", "remedy"),
    [
        (
            "no_file",
            "open('/etc/passwd_of_shop')",
            "file /etc/passwd_of_shop is",
            "world.write('/etc/passwd_of_shop', ...)",
        ),
        ("no_folder", "open('/data/out', 'w')", "file /data/out and its folder are", "world.mkdir('/data')"),
        ("no_variable", "Variable.get('n')", "Variable n is", "world.set_variable('n', ...)"),
        (
            "no_old_variable",
            "from airflow.models import Variable as V; V.get('n')",
            "Variable n is",
            "world.set_variable('n', ...)",
        ),
        (
            "no_connection",
            "Connection.get('shop')",
            "Connection shop is",
            "world.set_connection('shop', ...)",
        ),
    ],
)
def test_a_missing_input_is_named_and_how_to_give_it(
    dags: Project, name: str, statement: str, told: str, remedy: str
) -> None:
    verdicts = dags.check(name, in_task(statement))
    reason = verdicts["clean"].reason or ""
    assert verdicts["clean"].verdict is Verdict.ERROR
    assert reason.startswith("task t fails in the clean run")
    assert f"The {told} not there. Put it in place in conftest.py" in reason
    assert remedy in reason
    assert f'File "{dags.root}/dags/{name}.py", line 9, in t' in reason
    assert "site-packages" not in reason
    assert {str(verdicts[check].verdict) for check in ("rerun", "crash.t")} == {"skipped"}


def test_a_variable_of_a_template_is_named(dags: Project) -> None:
    source = """
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG
    with DAG("d", schedule=None):
        PythonOperator(task_id="t", python_callable=print, op_args=["{{ var.value.folder }}"])
    """
    assert "world.set_variable('folder', ...)" in (dags.check("template", source)["clean"].reason or "")


def test_connections_and_variables_are_those_that_were_given(dags: Project) -> None:
    statement = (
        "c = Connection.get('shop'); "
        "assert (c.host, c.login, c.password, c.port, c.schema) == ('h', 'u', 'p', 5, 's'); "
        "assert Variable.get('config', deserialize_json=True) == {'a': [1]}"
    )
    prepare = (
        "world.set_connection('shop', 'postgres://old@h'); "
        "world.set_connection('shop', 'postgres://u:p@h:5/s'); world.set_variable('config', {'a': [1]})"
    )
    assert dags.check("given", in_task(statement), prepare).worst is Verdict.SAFE


# --- what is known of a DAG -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "is_scheduled", "logical_date"),
    [
        ("daily", "schedule='@daily', start_date=datetime(2024, 5, 7, 13)", True, utc(2024, 5, 8)),
        ("hourly", "schedule='@hourly', start_date=datetime(2024, 5, 7, 13)", True, utc(2024, 5, 7, 13)),
        ("cron", "schedule='0 6 * * 1', start_date=datetime(2024, 5, 7)", True, utc(2024, 5, 13, 6)),
        ("unscheduled", "schedule=None, start_date=datetime(2023, 3, 4, 5)", False, utc(2023, 3, 4, 5)),
        ("no_start", "schedule=None", False, utc(2024, 1, 1)),
    ],
)
def test_the_logical_date_is_that_of_the_first_interval_or_the_start(
    dags: Project, name: str, arguments: str, is_scheduled: bool, logical_date: datetime
) -> None:
    (info,) = dags.load(name, f"{HEAD}with DAG('d', {arguments}):\n    pass\n").dags
    assert (info.is_scheduled, info.logical_date) == (is_scheduled, logical_date)


def test_dags_come_by_id_and_their_tasks_in_the_order_of_the_work(dags: Project) -> None:
    source = """
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG
    for name in ("b", "a"):
        with DAG(name, schedule=None, default_args={"retries": 2}):
            last, first = EmptyOperator(task_id="a_last"), EmptyOperator(task_id="z_first")
            first >> last
    """
    loaded = dags.load("two", source)
    assert [info.dag_id for info in loaded.dags] == ["a", "b"]
    assert [(task.task_id, task.downstream, task.retries) for task in loaded.dags[0].tasks] == [
        ("z_first", ("a_last",), 2),
        ("a_last", (), 2),
    ]


# --- what Airflow refuses ---------------------------------------------------------------------


def test_a_dag_that_cannot_be_serialized_does_not_load(dags: Project) -> None:
    source = """
    from airflow.sdk import DAG
    from airflow.timetables.interval import CronDataIntervalTimetable
    class Unregistered(CronDataIntervalTimetable):
        pass
    with DAG("d", schedule=Unregistered("@daily", "UTC")):
        pass
    """
    loaded = dags.load("unregistered", source)
    assert loaded.dags == ()
    assert "Unregistered" in loaded.error
    assert "is not registered" in loaded.error
    assert "please report" not in loaded.error


def test_a_dag_whose_parameters_nobody_fills_in_cannot_run(dags: Project) -> None:
    params = "from airflow.sdk import Param\n"
    source = in_task("pass", params).replace(
        "schedule=None", "schedule=None, params={'size': Param(type='integer')}"
    )
    clean = dags.check("params", source)["clean"]
    assert clean.verdict is Verdict.ERROR
    assert clean.reason is not None
    assert clean.reason.startswith("Airflow makes no run of this DAG: Invalid input for param size")


def test_a_request_that_is_not_answered_is_told_even_if_the_task_goes_on(dags: Project) -> None:
    source = """
    from airflow.sdk import DAG, task
    class AskTheOracle:
        pass
    with DAG("d", schedule=None):
        @task
        def ask():
            from airflow.sdk.execution_time import task_runner
            try:
                task_runner.SUPERVISOR_COMMS.send(AskTheOracle())
            except Exception:
                pass
        ask()
    """
    clean = dags.check("oracle", source)["clean"]
    assert clean.verdict is Verdict.UNVERIFIABLE
    assert clean.reason is not None
    assert "request AskTheOracle is not answered here at dags/oracle.py:10" in clean.reason
