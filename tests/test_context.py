"""What a task is given to know: template variables, params, Variables, Connections and XComs from where a deployment has them."""

from __future__ import annotations

import textwrap

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

CLEAN = "import json; world.mkdir('/data')"


def test_template_variables_are_those_of_the_interval(dags: Project) -> None:
    """The task fails the clean run if one is not what it must be."""
    verdicts = dags.check(
        "context_templates",
        """
    from datetime import datetime, timedelta
    from airflow.sdk import DAG, Param
    from airflow.providers.standard.operators.python import PythonOperator

    EXPECTED = {
        "ds": "2024-03-04", "ds_nodash": "20240304", "ts": "2024-03-04T00:00:00+00:00",
        "ts_nodash": "20240304T000000", "data_interval_start": "2024-03-04 00:00:00+00:00",
        "data_interval_end": "2024-03-04 00:00:00+00:00", "logical_date": "2024-03-04 00:00:00+00:00",
        "run_id": "scheduled__2024-03-04T00:00:00+00:00", "dag.dag_id": "context_templates",
        "task.task_id": "check", "ti.try_number": "1", "ti.map_index": "-1", "params.limit": "7",
        "macros.ds_add(ds, 7)": "2024-03-11", "dag_run.conf": "{}",
        "var.value.region": "eu", "var.json.limits.top": "3", "conn.shop.host": "shop.example",
        "prev_start_date_success": "None", "task_instance_key_str": "context_templates__check__20240304",
        "my_macro(2)": "4", "greeting": "hello", "inlets": "[]",
    }

    def compare(**given):
        wrong = {name: (value, EXPECTED[name]) for name, value in given["rendered"].items() if value != EXPECTED[name]}
        assert not wrong, wrong

    with DAG("context_templates", schedule="@daily", start_date=datetime(2024, 3, 4), params={"limit": Param(7)},
             user_defined_macros={"my_macro": lambda n: n * 2, "greeting": "hello"}):
        PythonOperator(task_id="check", python_callable=compare,
                       op_kwargs={"rendered": {name: "{{ " + name + " }}" for name in EXPECTED}})
    """,
        """
world.set_variable("region", "eu")
world.set_variable("limits", {"top": 3})
world.set_connection("shop", "http://user:secret@shop.example:8080")
""",
    )
    assert verdicts["clean"].verdict is Verdict.SAFE, verdicts["clean"].reason


def test_jinja_files_come_from_beside_the_dag_and_from_its_search_path(dags: Project) -> None:
    folder = dags.root / "dags"
    (folder / "sql").mkdir(parents=True, exist_ok=True)
    (folder / "beside.txt").write_text("beside {{ ds }}")
    (folder / "sql" / "searched.sql").write_text("searched {{ ds }}")
    verdicts = dags.check(
        "context_files",
        f"""
    from datetime import datetime
    from airflow.sdk import DAG, BaseOperator

    class Write(BaseOperator):
        template_fields = ("text",)
        template_ext = (".txt", ".sql")

        def __init__(self, text, expected, **kwargs):
            super().__init__(**kwargs)
            self.text, self.expected = text, expected

        def execute(self, context):
            assert self.text == self.expected, self.text

    with DAG("context_files", schedule=None, start_date=datetime(2024, 1, 1),
             template_searchpath={str(folder / "sql")!r}):
        Write(task_id="a", text="beside.txt", expected="beside 2024-01-01")
        Write(task_id="b", text="searched.sql", expected="searched 2024-01-01")
    """,
    )
    assert verdicts["clean"].reason is None
    assert verdicts.worst is Verdict.SAFE


RUN = """
    import json
    from datetime import datetime
    from airflow.sdk import Connection, Variable, dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def secrets():
        @task
        def read():
            assert Variable.get("from_env") == "env"
            assert Variable.get("from_file") == "file"
            assert Connection.get("shop_env").host == "env.example"
            assert Connection.get("shop_file").host == "file.example"

        read()

    secrets()
"""


def test_variables_and_connections_come_from_the_environment_and_from_a_secrets_backend_on_disk(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pytester.mkdir("dags")
    (folder / "secrets.py").write_text(textwrap.dedent(RUN))
    (pytester.path / "variables.json").write_text('{"from_file": "file"}')
    (pytester.path / "connections.json").write_text('{"shop_file": "http://file.example"}')
    monkeypatch.setenv("AIRFLOW_VAR_FROM_ENV", "env")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP_ENV", "http://env.example")
    backend = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
    paths = '{"variables_file_path": "variables.json", "connections_file_path": "connections.json"}'
    for section in ("SECRETS", "WORKERS"):
        name = "BACKEND" if section == "SECRETS" else "SECRETS_BACKEND"
        monkeypatch.setenv(f"AIRFLOW__{section}__{name}", backend)
        monkeypatch.setenv(f"AIRFLOW__{section}__{name}_KWARGS", paths)
    result = pytester.runpytest_subprocess("--rerun-safety", "-k", "clean")
    result.assert_outcomes(passed=1, deselected=2)


XCOM_BACKEND = """
import json
from airflow.sdk.bases.xcom import BaseXCom

class InFiles(BaseXCom):
    @staticmethod
    def serialize_value(value, *, key=None, task_id=None, dag_id=None, run_id=None, map_index=None):
        path = f"/data/xcom_{task_id}_{key}.json"
        with open(path, "w") as file:
            json.dump(value, file)
        return BaseXCom.serialize_value(path)

    @staticmethod
    def deserialize_value(result):
        with open(BaseXCom.deserialize_value(result)) as file:
            return json.load(file)
"""
XCOM_DAG = """
from datetime import datetime
from airflow.sdk import dag, task

@dag(start_date=datetime(2024, 1, 1), schedule=None)
def xcoms():
    @task
    def make():
        return {"rows": [1, 2, 3]}

    @task
    def use(made):
        assert made == {"rows": [1, 2, 3]}, made
        with open("/data/xcom_make_return_value.json") as file:
            assert file.read() == '{"rows": [1, 2, 3]}'

    use(make())

xcoms()
"""


def test_a_custom_xcom_backend_keeps_values_where_it_likes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pytester.mkdir("dags")
    (folder / "xcoms.py").write_text(XCOM_DAG)
    (pytester.path / "xcoms_in_files.py").write_text(XCOM_BACKEND)
    (pytester.path / "conftest.py").write_text(
        "def pytest_rerun_safety_prepare(dag, world):\n    world.mkdir('/data')\n"
    )
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "xcoms_in_files.InFiles")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    result = pytester.runpytest_subprocess("--rerun-safety", "-k", "clean")
    result.assert_outcomes(passed=1, deselected=3)


def test_object_storage_for_xcoms_is_refused_with_what_to_do(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pytester.mkdir("dags")
    (folder / "xcoms.py").write_text(XCOM_DAG)
    backend = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", backend)
    result = pytester.runpytest_subprocess("--rerun-safety")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*XComs in object storage cannot be followed: unset AIRFLOW__CORE__XCOM_BACKEND for the checks*"]
    )
