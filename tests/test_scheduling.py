"""Airflow's scheduler decides what runs next: its limits and its order hold, whatever we leave out of its loop."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from dag_projects import Project

from pytest_rerunsafe.fixtures import Run
from pytest_rerunsafe.model import Verdict

LIMITED = """
    from datetime import datetime
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.python import PythonOperator

    def log(name):
        with open("/data/order.txt", "a") as file:
            file.write(f"{{name}}\\n")
        with open(f"/data/done_{{name}}", "w") as file:
            file.write("done")

    def expect(order):
        with open("/data/order.txt") as file:
            assert file.read().split() == order.split(), order

    with DAG("{name}", start_date=datetime(2024, 1, 1), schedule=None, {dag_options}):
        def step(name, **options):
            return PythonOperator(task_id=name, python_callable=log, op_args=[name], **options)

        {tasks}
        last = PythonOperator(task_id="last", python_callable=expect, op_args=["{order}"])
        [a2, b2] >> last
"""
TWO_CHAINS = """
        a1, a2 = step("a1"{a}), step("a2"{a})
        b1, b2 = step("b1"{b}), step("b2"{b})
        a1 >> a2
        b1 >> b2
"""


@pytest.mark.parametrize(
    ("name", "dag_options", "a", "b", "order"),
    [
        ("free", "", "", "", "a1 b1 a2 b2"),
        ("weighty", "", ", priority_weight=9, weight_rule='absolute'", "", "a1 b1 a2 b2"),
        (
            "one_at_a_time",
            "max_active_tasks=1",
            ", priority_weight=9, weight_rule='absolute'",
            "",
            "a1 a2 b1 b2",
        ),
        ("by_weight", "", "", ", priority_weight=5", "b1 a1 b2 a2"),
        (
            "weight_rules",
            "max_active_tasks=1",
            ", weight_rule='absolute'",
            ", priority_weight=9, weight_rule='absolute'",
            "b1 b2 a1 a2",
        ),
    ],
)
def test_limits_and_weights_set_the_order(
    dags: Project, name: str, dag_options: str, a: str, b: str, order: str
) -> None:
    """The last task fails the clean run if the others came in another order."""
    tasks = TWO_CHAINS.format(a=a, b=b)
    source = LIMITED.format(name=name, dag_options=dag_options, tasks=tasks.strip(), order=order)
    verdicts = dags.check(name, source, "world.mkdir('/data')")
    assert verdicts["clean"].verdict is Verdict.SAFE, verdicts["clean"].reason


def test_a_task_in_a_pool_without_room_never_runs(dags: Project) -> None:
    verdicts = dags.check(
        "no_room",
        """
    from datetime import datetime
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule=None)
    def no_room():
        @task(pool_slots=1000)
        def wide():
            pass

        wide()

    no_room()
    """,
    )
    assert verdicts["clean"].verdict is Verdict.ERROR
    assert verdicts["clean"].reason == "the clean run ends stuck: wide scheduled"


DAILY = """
    from datetime import datetime
    from airflow.sdk import dag, task

    @dag(start_date=datetime(2024, 1, 1), schedule="@daily"{dag_options})
    def {name}():
        {body}

    {name}()
"""


def runs_of(dags: Project, name: str, body: str, dag_options: str = "", prepare: str = "") -> Run:
    """Three daily runs of a DAG, of which this is the first."""
    source = DAILY.format(name=name, dag_options=dag_options, body=body.strip().replace("\n", "\n    "))
    file = dags.checker.load(dags.write(name, source, f"world.mkdir('/data')\n{prepare}"))
    assert not file.error, file.error
    (dag,) = file.dags
    return Run(dags.checker, dag, dags.checker.begin(dag, 3))


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=timezone.utc)


AT_ONCE = """
    @task{options}
    def a(part): pass
    @task
    def b(): pass
    a.expand(part=[1, 2]) >> b()
"""
ALL_OF_THEM = "a[0] a[1] " * 3 + "b " * 3


@pytest.mark.parametrize(
    ("name", "options", "prepare", "order"),
    [
        ("unlimited", "", "", ALL_OF_THEM),
        ("per_dag", "(max_active_tis_per_dag=1)", "", "a[0] a[1] a[0] b a[1] a[0] b a[1] b"),
        ("per_dag_run", "(max_active_tis_per_dagrun=1)", "", "a[0] a[0] a[0] a[1] a[1] a[1] b b b"),
        ("pool_of_nobody", '(pool="etl")', "", ALL_OF_THEM),
        ("narrow_pool", '(pool="etl")', "world.set_pool('etl', 2)", "a[0] a[1] a[0] a[1] b a[0] a[1] b b"),
        (
            "slots",
            '(pool="etl", pool_slots=2)',
            "world.set_pool('etl', 3)",
            "a[0] a[1] a[0] b a[1] a[0] b a[1] b",
        ),
    ],
)
def test_limits_hold_over_several_runs(
    dags: Project, name: str, options: str, prepare: str, order: str
) -> None:
    run = runs_of(dags, f"limit_{name}", AT_ONCE.format(options=options), prepare=prepare)
    assert run.state == "success"
    run.clear(start=day(1), end=day(3))
    assert " ".join(run.attempts) == order.strip()


PAST = """
    @task{options}
    def load(ds=None, ti=None):
        if FAILS == "load" and ds == "2024-01-01" and ti.try_number == 2: raise ValueError
    @task
    def publish(ds=None, ti=None):
        if FAILS == "publish" and ds == "2024-01-01" and ti.try_number == 2: raise ValueError
    load() >> publish()
"""


@pytest.mark.parametrize(
    ("name", "options", "fails", "order"),
    [
        ("free", "", "load", "load load load publish publish"),
        ("past", "(depends_on_past=True)", "load", "load"),
        ("past_downstream", "(depends_on_past=True)", "publish", "load load publish load publish publish"),
        ("downstream", "(wait_for_downstream=True)", "publish", "load publish"),
    ],
)
def test_what_waits_for_the_run_before_waits_for_its_rerun_too(
    dags: Project, name: str, options: str, fails: str, order: str
) -> None:
    body = PAST.format(options=options).replace("FAILS", repr(fails))
    run = runs_of(dags, f"waits_{name}", body)
    assert run.state == "success"
    run.clear(start=day(1), end=day(3))
    assert (run.state, " ".join(run.attempts)) == ("failed", order)
    run.clear(only_failed=True)
    assert run.state == "success"


def test_what_has_ended_after_an_old_run_is_not_run_again(dags: Project) -> None:
    run = runs_of(dags, "old_one", PAST.format(options="(depends_on_past=True)").replace("FAILS", '""'))
    run.clear()
    assert run.attempts == ("load", "publish")
