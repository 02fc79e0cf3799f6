"""DAGs that will be asked for are checked while somebody waits for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from dag_projects import Project

from pytest_rerunsafe.explore.messages import Answer
from pytest_rerunsafe.explore.pool import NotYet, Pool, _Batch
from pytest_rerunsafe.model import CheckResult, DagInfo, Rule, Verdict

ONE_TASK = """
    import os
    from airflow.sdk import DAG, task

    with DAG("{name}"):
        @task
        def write():
            os.makedirs("/data", exist_ok=True)
            with open("/data/out.txt", "{mode}") as file:
                file.write("line")
        write()
"""


class Eager:
    """A pool that has done all that was begun before it answers who waits."""

    size = 2

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._done: list[tuple[str, Sequence[Any], list[Answer]]] = []
        self.waited_for: list[str] = []

    def run(
        self, file: str, jobs: Sequence[Any], *, meanwhile: Callable[[], None], **_: object
    ) -> list[Answer]:
        begun = -1
        while begun != len(self._done):
            begun = len(self._done)
            meanwhile()
        self.waited_for.append(file)
        return self._found(file, jobs) or self._pool.run(file, jobs)

    def begin(self, file: str, jobs: Sequence[Any]) -> list[Answer]:
        found = self._found(file, jobs)
        if found is not None:
            return found
        answers = self._pool.run(file, jobs)
        self._done.append((file, jobs, answers))
        raise NotYet(_Batch(file, jobs, answers=dict(enumerate(answers))))

    def _found(self, file: str, jobs: Sequence[Any]) -> list[Answer] | None:
        return next((answers for f, j, answers in self._done if (f, j) == (file, jobs)), None)

    def take_spent(self) -> dict[str, float]:
        return {}


@pytest.fixture
def eager(dags: Project, monkeypatch: pytest.MonkeyPatch) -> Eager:
    dags.load("first_of_all", ONE_TASK.format(name="first_of_all", mode="w"))
    assert dags.checker._pool is not None
    pool = Eager(dags.checker._pool)
    monkeypatch.setattr(dags.checker, "_pool", pool)
    return pool


def _loaded(dags: Project, name: str, mode: str) -> DagInfo:
    (dag,) = dags.load(name, ONE_TASK.format(name=name, mode=mode)).dags
    return dag


def test_what_follows_is_checked_in_full_while_somebody_waits(dags: Project, eager: Eager) -> None:
    first, second = _loaded(dags, "waited_for", "w"), _loaded(dags, "follows", "a")
    checks = dags.checker.checks_of(second)

    def results(dag: DagInfo, following: Sequence[DagInfo]) -> list[CheckResult]:
        coming = [(each, checks) for each in following]
        return [dags.checker.run(dag, check, checks, coming) for check in checks]

    assert {result.verdict for result in results(first, [second])} == {Verdict.SAFE}
    waited_for = [*eager.waited_for]
    found = results(second, [])
    assert eager.waited_for == waited_for, "all of it is known"
    assert {str(finding.rule) for result in found for finding in result.findings} == {
        str(Rule.DUPLICATE_OUTPUT)
    }
    assert [result.check for result in found] == list(checks)
