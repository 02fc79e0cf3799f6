"""What Airflow offers, used as data engineers use it: each DAG is safe, and unsafe with one bug planted in it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pytest
from dag_projects import Project

HEAD = """\
import json, os, time
from datetime import datetime, timedelta
from pathlib import Path
from airflow.sdk import DAG, Param, Variable, dag, get_current_context, task, task_group

def publish(path, text):
    with open(path, "w") as out:
        out.write(text)
"""
APPENDING = ('open(path, "w")', 'open(path, "a")')


def in_dag(body: str, options: str = "") -> str:
    """A DAG file whose only DAG, `d`, has this body."""
    given = f'schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False, {options}'
    return f"{HEAD}\n@dag({given})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


def in_file(body: str) -> str:
    """A DAG file with all but its imports written out."""
    return HEAD + textwrap.dedent(body)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A safe DAG, whose tasks assert what they were given, and a bug to plant."""

    name: str
    source: str
    check: str
    """Where the bug is found."""
    bug: tuple[str, str] = APPENDING
    rule: str = "duplicate-output"
    skipped: frozenset[str] = frozenset()
    """Checks of tasks that the clean run skips."""
    prepare: str = "world.mkdir('/data')"
    dag_id: str = "d"

    @property
    def unsafe(self) -> str:
        """The DAG with the bug in it."""
        old, new = self.bug
        assert self.source.count(old) == 1, old
        return self.source.replace(old, new)

    def __str__(self) -> str:
        return self.name


CASES = (
    Case(
        name="retries",
        check="crash.load",
        source=in_dag(
            """
            @task(retries=3, retry_delay=timedelta(hours=6))
            def load():
                if get_current_context()["ti"].try_number < 3:
                    raise RuntimeError("not yet")
                publish("/data/out", "1\\n2\\n")
            load()
            """
        ),
    ),
    Case(
        name="retries_backing_off",
        check="crash.load",
        source=in_dag(
            """
            @task
            def load():
                if get_current_context()["ti"].try_number < 5:
                    time.sleep(3600)
                    raise RuntimeError("not yet")
                publish("/data/out", "1\\n2\\n")
            load()
            """,
            """default_args={"retries": 5, "retry_delay": timedelta(minutes=10),
            "retry_exponential_backoff": True, "max_retry_delay": timedelta(days=1)}""",
        ),
    ),
    Case(
        name="xcom_between_three",
        check="crash.load",
        source=in_dag(
            """
            @task
            def extract(ti=None):
                ti.xcom_push(key="source", value={"name": "shop"})
                return [3, 1, 2]
            @task(multiple_outputs=True)
            def transform(rows, ti=None):
                assert ti.xcom_pull(task_ids="extract", key="source") == {"name": "shop"}
                return {"rows": sorted(rows), "count": len(rows)}
            @task
            def load(rows, count, ti=None):
                assert (rows, count) == ([1, 2, 3], 3)
                assert ti.xcom_pull(task_ids=["extract", "transform"]) == [[3, 1, 2], {"rows": rows, "count": 3}]
                publish("/data/out", "".join(f"{row}\\n" for row in rows))
            result = transform(extract())
            load(result["rows"], result["count"])
            """
        ),
    ),
    Case(
        name="branch",
        check="crash.join",
        skipped=frozenset({"crash.small"}),
        source=in_dag(
            """
            @task.branch
            def choose():
                return ["big", "huge"]
            @task
            def big(): publish("/data/big", "1\\n")
            @task
            def huge(): Path("/data/huge").write_text("1\\n")
            @task
            def small(): raise AssertionError
            @task(trigger_rule="none_failed_min_one_success")
            def join():
                out = Path("/data/out")
                out.write_text("joined\\n")  # PLANT
            chosen = [big(), huge(), small()]
            choose() >> chosen
            chosen >> join()
            """
        ),
        bug=('out.write_text("joined\\n")  # PLANT', 'out.open("a").write("joined\\n")'),
    ),
    Case(
        name="short_circuit",
        check="crash.first",
        skipped=frozenset({"crash.second"}),
        source=in_dag(
            """
            @task
            def first(): publish("/data/out", "1\\n")
            @task.short_circuit
            def is_enough(): return False
            @task
            def second(): raise AssertionError
            first() >> is_enough() >> second()
            """
        ),
    ),
    Case(
        name="mapped",
        check="crash.load",
        source=in_dag(
            """
            @task
            def prepare():
                for n in (1, 2, 3):
                    Path(f"/data/in_{n}").write_text(f"{n}\\n" * n)
                return [f"/data/in_{n}" for n in (1, 2, 3)]
            @task
            def load(path, folder):
                publish(path.replace("in", "out"), Path(path).read_text())
                return path
            @task
            def check(paths):
                assert list(paths) == ["/data/in_1", "/data/in_2", "/data/in_3"]
                Path("/data/sum").write_text(str(sum(len(Path(path).read_text()) for path in paths)))
            check(load.partial(folder="/data").expand(path=prepare()))
            """
        ),
    ),
    Case(
        name="mapped_over_dicts",
        check="crash.load",
        source=in_dag(
            """
            @task
            def tables(): return [{"table": "a", "rows": 1}, {"table": "b", "rows": 2}]
            @task
            def load(table, rows): publish(f"/data/{table}", "row\\n" * rows)
            load.expand_kwargs(tables())
            """
        ),
    ),
    Case(
        name="trigger_rules",
        check="crash.one",
        source=in_dag(
            """
            @task
            def good(): return 1
            @task.skip_if(lambda context: True)
            @task
            def skipped(): raise AssertionError
            @task
            def other(): return 2
            @task(trigger_rule="all_done")
            def done(): Path("/data/done").write_text("x\\n")
            @task(trigger_rule="one_success")
            def one(): publish("/data/one", "x\\n")
            @task(trigger_rule="none_failed_min_one_success")
            def min_one(): Path("/data/min_one").write_text("x\\n")
            above = [good(), skipped(), other()]
            for below in (done(), one(), min_one()):
                above >> below
            """
        ),
    ),
    Case(
        name="empty_and_groups",
        check="crash.work.load",
        source=in_dag(
            """
            from airflow.providers.standard.operators.empty import EmptyOperator
            @task_group
            def work():
                @task
                def load(): publish("/data/out", "x\\n")
                @task
                def check(): assert Path("/data/out").exists()
                load() >> check()
            EmptyOperator(task_id="start") >> work() >> EmptyOperator(task_id="end")
            """
        ),
    ),
    Case(
        name="templates",
        check="crash.load",
        source=in_dag(
            """
            from airflow.providers.standard.operators.python import PythonOperator
            def run(path, size, before, ds, params):
                assert (path, size, before) == ("/data/2024-01-01", "7", "2023-12-31")
                assert ds == "2024-01-01" and params["size"] == 7
                publish(path, "x\\n" * int(size))
            PythonOperator(
                task_id="load",
                python_callable=run,
                op_args=["/data/{{ ds }}", "{{ params.size }}"],
                op_kwargs={"before": "{{ macros.ds_add(ds, -1) }}"},
            )
            """,
            'params={"size": Param(7, type="integer")}',
        ),
    ),
    Case(
        name="variables",
        check="crash.load",
        source=in_dag(
            """
            size = int(Variable.get("size", default=2))
            @task
            def load():
                config = Variable.get("config", deserialize_json=True)
                assert config == {"folder": "/data"}
                Variable.set("last_size", str(size))
                assert Variable.get("last_size") == "4"
                publish(config["folder"] + "/out", "x\\n" * size)
            load()
            """
        ),
        prepare="world.mkdir('/data'); world.set_variable('size', 4); "
        "world.set_variable('config', {'folder': '/data'})",
    ),
    Case(
        name="variable_as_watermark",
        check="rerun",
        rule="wrong-output",
        source=in_dag(
            """
            @task
            def load():
                mark = int(Variable.get("mark", default=0))
                Variable.set("mark", str(5))
            load()
            """
        ),
        bug=("str(5)", "str(mark + 5)"),
    ),
    Case(
        name="old_imports",
        check="crash.load",
        skipped=frozenset({"crash.no"}),
        source=in_file(
            """
            from airflow import DAG
            from airflow.operators.python import PythonOperator, BranchPythonOperator, ShortCircuitOperator
            from airflow.operators.empty import EmptyOperator

            def _load(ti, **context):
                rows = ti.xcom_pull(task_ids="extract")
                assert rows == [1, 2] and context["ds"] == "2024-01-01"
                publish("/data/out", "".join(f"{row}\\n" for row in rows))

            with DAG(dag_id="d", start_date=datetime(2024, 1, 1), schedule="@daily", catchup=False) as dag:
                extract = PythonOperator(task_id="extract", python_callable=lambda: [1, 2])
                branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "go")
                go = ShortCircuitOperator(task_id="go", python_callable=lambda: True)
                load = PythonOperator(task_id="load", python_callable=_load)
                extract >> branch >> [go, EmptyOperator(task_id="no")]
                go >> load
            """
        ),
    ),
    Case(
        name="own_operator",
        check="crash.load",
        source=in_file(
            """
            from airflow.models import BaseOperator

            class Load(BaseOperator):
                template_fields = ("path",)

                def __init__(self, path, **kwargs):
                    super().__init__(**kwargs)
                    self.path = path

                def execute(self, context):
                    assert self.path == "/data/20240101"
                    publish(self.path, "x\\n")

            dag = DAG("d", schedule="0 6 * * 1-5", start_date=datetime(2024, 1, 1))
            Load(task_id="load", path="/data/{{ ds_nodash }}", dag=dag)
            """
        ),
    ),
    Case(
        name="several_in_a_file",
        check="crash.load",
        dag_id="two",
        source=in_file(
            """
            with DAG("one", schedule=None):
                @task
                def fail(): raise RuntimeError
                fail()
            with DAG("two", schedule=None):
                @task
                def load(): publish("/data/out", "x\\n")
                load()
            """
        ),
    ),
    Case(
        name="generated",
        check="crash.load",
        dag_id="load_b",
        source=in_file(
            """
            def make(name):
                with DAG(f"load_{name}", schedule=None) as made:
                    @task
                    def load(): publish(f"/data/{name}", "x\\n")
                    load()
                return made
            for name in "abc":
                globals()[f"dag_{name}"] = make(name)
            """
        ),
    ),
    Case(
        name="unclosed_files",
        check="crash.load",
        rule="partial-output-accepted",
        source=in_dag(
            """
            @task
            def load():
                if True:
                    json.dump([1, 2], open("/data/out.json", "w"))
            load()
            """
        ),
        bug=("if True", 'if not os.path.exists("/data/out.json")'),
    ),
    Case(
        name="relative_paths",
        check="crash.load",
        source=in_dag(
            """
            @task
            def load():
                os.makedirs("build", exist_ok=True)
                publish("build/out", "x\\n")
            @task
            def check():
                assert "x" in open("build/out").read()
            load() >> check()
            """
        ),
    ),
    Case(
        name="process_state",
        check="crash.second",
        source=in_dag(
            """
            import builtins, sys
            @task
            def first():
                os.chdir("/data")
                os.environ["FIRST"] = "1"
                builtins.ascii = lambda value: 42
                sys.path.insert(0, "/first")
                json.first = True
                return os.getcwd()
            @task
            def second(folder):
                assert folder == "/data" and os.getcwd() != "/data"
                assert "FIRST" not in os.environ
                assert ascii(1) == '1'
                assert "/first" not in sys.path
                publish("/data/out", "x\\n")
            second(first())
            """
        ),
    ),
)


OF_ONE_DAY = ("templates", "old_imports", "own_operator")
"""DAGs that see for themselves that it is their first interval: others do not succeed."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_safe_one_is_safe(dags: Project, case: Case) -> None:
    verdicts = dags.check(f"{case.name}_safe", case.source, case.prepare, case.dag_id).sampled
    assert [(str(f.rule), f.summary) for f in verdicts.findings] == []
    expected = dict.fromkeys(verdicts.results, "safe") | dict.fromkeys(case.skipped, "skipped")
    if case.name in OF_ONE_DAY and "backfill" in expected:
        expected["backfill"] = "unverifiable"
    assert {check: str(result.verdict) for check, result in verdicts.results.items()} == expected
    assert [r.reason for r in verdicts.results.values() if r.reason and expected[r.check] == "safe"] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bug_is_found(dags: Project, case: Case) -> None:
    loaded = dags.checker.load(dags.write(f"{case.name}_unsafe", case.unsafe, case.prepare))
    (dag,) = (dag for dag in loaded.dags if dag.dag_id == case.dag_id)
    result = dags.checker.run(dag, case.check)
    assert case.rule in {str(finding.rule) for finding in result.findings}


def test_modules_of_the_project_are_loaded_afresh_for_each_attempt(dags: Project) -> None:
    package = dags.root / "dags" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rows.py").write_text("rows = []\n\ndef count():\n    rows.append(1)\n    return len(rows)\n")
    source = in_dag(
        """
        from shop.rows import count
        @task
        def first(): return count()
        @task
        def second(before):
            assert (before, count()) == (1, 1)
            publish("/data/out", "x\\n")
        second(first())
        """
    )
    verdicts = dags.check("modules", source, "world.mkdir('/data')")
    assert str(verdicts["rerun"].verdict) == str(verdicts["crash.second"].verdict) == "safe"
