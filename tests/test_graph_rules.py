"""Airflow's rules of the graph, of retries and of mapping: what runs, how often, and what a clear makes run again."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from dag_projects import Project

from pytest_rerunsafe.fixtures import Run
from pytest_rerunsafe.model import Verdict

HEAD = """\
from datetime import datetime, timedelta
from pathlib import Path
from airflow.sdk import DAG, dag, setup, task, task_group, teardown
from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator

def publish(path, text):
    with open(path, "a") as file:
        file.write(f"{text}\\n")

"""
PLAIN = "@dag(start_date=datetime(2024, 1, 1), schedule=None)"


def run_of(dags: Project, name: str, body: str) -> Run:
    """A run of the DAG `d`, which takes the name of its file."""
    source = HEAD + body.replace("def d()", f"def {name}()").replace("\nd()", f"\n{name}()")
    file = dags.checker.load(dags.write(name, source, "world.mkdir('/data')"))
    assert not file.error, file.error
    (dag,) = file.dags
    return Run(dags.checker, dag, dags.checker.begin(dag, 1))


TRIGGER_RULES = (
    PLAIN
    + """
def d():
    @task
    def good(): pass
    @task
    def bad(): raise ValueError
    @task
    def skip(): raise AirflowSkipException

    ups = {"good": good(), "bad": bad(), "skip": skip()}
    def after(name, rule, *above):
        @task(task_id=name, trigger_rule=rule)
        def ran(): pass
        [ups[each] for each in above] >> ran()

    RULES
d()
"""
)
ALL = ("good", "bad", "skip")
RULES: list[tuple[str, tuple[str, ...], str]] = [
    ("all_success", ("good",), "success"),
    ("all_success", ("good", "skip"), "skipped"),
    ("all_success", ALL, "upstream_failed"),
    ("all_failed", ("bad",), "success"),
    ("all_failed", ALL, "skipped"),
    ("all_done", ALL, "success"),
    ("all_done_min_one_success", ("good", "bad"), "success"),
    ("all_done_min_one_success", ALL, "skipped"),
    ("all_skipped", ("skip",), "success"),
    ("all_skipped", ALL, "skipped"),
    ("one_success", ALL, "success"),
    ("one_success", ("bad", "skip"), "upstream_failed"),
    ("one_failed", ALL, "success"),
    ("one_failed", ("good", "skip"), "skipped"),
    ("one_done", ("good",), "success"),
    ("none_failed", ("good", "skip"), "success"),
    ("none_failed", ALL, "upstream_failed"),
    ("none_failed_min_one_success", ("good", "skip"), "success"),
    ("none_failed_min_one_success", ("skip",), "skipped"),
    ("none_skipped", ("good", "bad"), "success"),
    ("none_skipped", ALL, "skipped"),
    ("always", ALL, "success"),
]


def test_all_trigger_rules(dags: Project) -> None:
    from airflow.task.trigger_rule import TriggerRule

    known = {str(rule.value) for rule in TriggerRule}
    tried = [(f"t{number}", *case) for number, case in enumerate(RULES) if case[0] in known]
    assert known - {rule for _, rule, _, _ in tried} == {"all_done_setup_success"}, "that one is a teardown's"
    lines = [f"after({name!r}, {rule!r}, *{above!r})" for name, rule, above, _ in tried]
    run = run_of(dags, "trigger_rules_all", TRIGGER_RULES.replace("RULES", "\n    ".join(lines)))
    assert {name: run.states[name] for name, *_ in tried} == {name: state for name, _, _, state in tried}


TEARDOWN = (
    PLAIN
    + """
def d():
    @setup
    def make(): publish("/data/log", "make")
    @task
    def work(ti=None):
        publish("/data/log", "work")
        if WHEN: raise AirflowFailException
    @task
    def after(): pass
    @teardown(on_failure_fail_dagrun=FAILS)
    def remove():
        publish("/data/log", "remove")
        if FAILS: raise ValueError
    made, worked, removed = make(), work(), remove()
    made >> worked >> removed
    made >> removed
    worked >> after()
d()
"""
)


def test_a_teardown_runs_after_a_failure_and_a_clear_takes_it_along(dags: Project) -> None:
    body = TEARDOWN.replace("WHEN", "ti.try_number == 1").replace("FAILS", "False")
    run = run_of(dags, "teardown_after_failure", body)
    assert (run.state, run.states) == (
        "failed",
        {"make": "success", "work": "failed", "after": "upstream_failed", "remove": "success"},
    )
    assert run.clear(task_ids=["work"]) == ("make", "remove", "work")
    assert run.attempts == ("make", "work", "remove")
    assert run.clear(only_failed=True) == ("after",)
    assert run.state == "success"
    assert run.outputs["file:/data/log"].split() == [b"make", b"work", b"remove"] * 2


def test_a_failing_teardown_fails_the_run_if_it_says_so(dags: Project) -> None:
    run = run_of(dags, "teardown_fails", TEARDOWN.replace("WHEN", "False").replace("FAILS", "True"))
    assert (run.state, run.states["remove"], run.states["after"]) == ("failed", "failed", "success")


BRANCH = (
    PLAIN
    + """
def d():
    @task.branch
    def choose(ti=None): return "left" if ti.try_number == 1 else "right"
    @task
    def left(): pass
    @task
    def right(): pass
    @task(trigger_rule="none_failed_min_one_success")
    def join(): pass
    choose() >> [left(), right()] >> join()
d()
"""
)


def test_a_branch_that_was_left_aside_stays_so_until_the_brancher_is_cleared(dags: Project) -> None:
    run = run_of(dags, "branch_memory", BRANCH)
    assert (run.states["left"], run.states["right"]) == ("success", "skipped")
    run.clear(task_ids=["right"])
    assert (run.attempts, run.states["right"]) == ((), "skipped")
    run.clear(task_ids=["choose"], downstream=True)
    assert (run.states["left"], run.states["right"]) == ("skipped", "success")


def test_latest_only_depends_on_when_it_runs(dags: Project) -> None:
    verdicts = dags.check(
        "latest",
        HEAD
        + """
@dag(start_date=datetime(2024, 1, 1), schedule="@daily")
def latest():
    @task
    def copy(ds=None): Path(f"/data/{ds}").write_text("x")
    LatestOnlyOperator(task_id="latest") >> copy()
latest()
""",
        "world.mkdir('/data')",
    )
    # The interval is the latest when it runs, and a day later it is not: then nothing is copied.
    (finding,) = verdicts["clean"].findings
    assert (str(finding.rule), finding.summary) == (
        "clock-dependent",
        "/data/2024-01-01: file is missing at another time",
    )


MAPPED = (
    PLAIN
    + """
def d():
    @task
    def parts(ti=None): return [1, 2, 3] if ti.try_number == 1 else [1]
    @task
    def load(part, factor=1): publish(f"/data/{part}", factor)
    @task
    def pair(left, right): publish("/data/pairs", f"{left}{right}")
    @task
    def zipped(left, right): publish("/data/zipped", f"{left}{right}")
    @task_group
    def group(part):
        @task
        def inside(value): publish("/data/inside", value)
        inside(part)
    found = parts()
    load.partial(factor=2).expand(part=found)
    pair.expand(left=[1, 2], right=["a", "b"])
    zipped.expand_kwargs([{"left": 1, "right": "a"}, {"left": 2, "right": "b"}])
    group.expand(part=found)
d()
"""
)


def test_mapping_over_values_pairs_groups_and_a_length_that_changes(dags: Project) -> None:
    run = run_of(dags, "mapping_all", MAPPED)
    assert run.state == "success"
    assert run.outputs["file:/data/pairs"].split() == [b"1a", b"1b", b"2a", b"2b"]
    assert run.outputs["file:/data/zipped"].split() == [b"1a", b"2b"]
    assert run.outputs["file:/data/inside"].split() == [b"1", b"2", b"3"]
    run.clear(task_ids=["parts"], downstream=True)
    assert {name: state for name, state in run.states.items() if name.startswith("load")} == {
        "load[0]": "success",
        "load[1]": "removed",
        "load[2]": "removed",
    }
    assert run.attempts == ("parts", "group.inside[0]", "load[0]")


def test_one_index_is_cleared_alone(dags: Project) -> None:
    run = run_of(dags, "mapping_index", MAPPED)
    assert run.clear(task_ids=[("load", 1)]) == ("load[1]",)
    assert run.attempts == ("load[1]",)


POLICY = (
    "from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule\n"
    + PLAIN
    + """
def d():
    policy = ExceptionRetryPolicy(rules=[RetryRule(exception=KeyError, action=RetryAction.FAIL)])
    @task(retries=2, retry_policy=policy)
    def hopeless(): raise KeyError
    @task(retries=2, retry_policy=policy)
    def again(ti=None):
        if ti.try_number < 3: raise ValueError
    @task(retries=5)
    def never(): raise AirflowFailException
    hopeless()
    again()
    never()
d()
"""
)


@pytest.mark.skipif(
    not find_spec("airflow.sdk.definitions.retry_policy"), reason="Airflow has them from 3.3 on"
)
def test_a_retry_policy_decides_and_a_fail_exception_too(dags: Project) -> None:
    run = run_of(dags, "policies", POLICY)
    assert run.states == {"hopeless": "failed", "again": "success", "never": "failed"}
    assert sorted(run.attempts) == ["again", "again", "again", "hopeless", "never"]


def test_what_is_expanded_right_after_a_clear_takes_no_others_place(dags: Project) -> None:
    """A clear and the scheduler's turn after it, at the same time, give new ids to task instances."""
    source = (
        HEAD
        + """
@dag(start_date=datetime(2024, 1, 1), schedule=None)
def expanded_after_a_clear():
    @task
    def names(): return ["a", "b"]

    @task(trigger_rule="all_done")
    def end(): pass

    def of_each(kind):
        @task(task_id=kind)
        def write(name):
            Path(f"/data/{kind}_{name}").write_text(name)
        return write.expand(name=names_)

    names_ = names()
    [of_each("upper"), of_each("lower")] >> end()
expanded_after_a_clear()
"""
    )
    (dag,) = dags.checker.load(dags.write("expanded_after_a_clear", source, "world.mkdir('/data')")).dags
    assert dags.checker.run(dag, "crash.names").verdict is Verdict.SAFE
