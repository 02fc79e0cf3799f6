"""The fixture `rerun_safety` for test suites of one's own: checks as calls, and runs to clear by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import pytest

from .model import (
    Acted,
    Action,
    Attempt,
    Backfill,
    CheckResult,
    Clear,
    DagInfo,
    Finding,
    Mark,
    Recording,
    RunKey,
    TaskKey,
    Verdict,
    WorldState,
)
from .options import settings_of
from .settings import sources

if TYPE_CHECKING:
    from .items import Bench

CLEARED_S = 600.0
"""From the last change of a run until something is done to it."""


class RerunSafetyError(Exception):
    """What was asked for cannot be done; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagVerdict:
    """What the checks of a DAG say."""

    dag_id: str
    verdict: Verdict
    """The worst of its checks."""
    checks: Mapping[str, CheckResult]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all checks."""
        return tuple(finding for result in self.checks.values() for finding in result.findings)


class RerunSafety:
    """The checker of a test suite. DAGs run in processes of their own: nothing of Airflow is imported in this one."""

    def __init__(self, bench: Bench, files: Sequence[str]) -> None:
        self._bench = bench
        self._files = files

    def check(self, dag: str, *checks: str) -> None:
        """Fail the test with what is wrong unless all checks of a DAG, or those named, are safe."""
        from .compare.rules import RULES
        from .report.text import check_text

        results = self.explore(dag, *checks).checks.values()
        bad = [result for result in results if result.verdict in (Verdict.ERROR, Verdict.UNSAFE)]
        if bad:
            texts = [check_text(result, RULES, self._bench.source_line, verbose=True) for result in bad]
            pytest.fail("\n\n".join(texts), pytrace=False)

    def explore(self, dag: str, *checks: str) -> DagVerdict:
        """What the checks of a DAG say, all of them or those named. Raises `RerunSafetyError`."""
        info = self._dag(dag)
        known = self._bench.checks_of(info)
        if unknown := sorted(set(checks) - set(known)):
            raise RerunSafetyError(f"no check {unknown[0]!r} of {dag}; checks: {', '.join(known)}")
        asked = checks or known
        results = {check: self._bench.run(info, check, asked) for check in asked}
        worst = min((result.verdict for result in results.values()), key=list(Verdict).index)
        return DagVerdict(dag_id=dag, verdict=worst, checks=results)

    def run(self, dag: str, *, intervals: int = 1) -> Run:
        """A DagRun of the DAG's first interval that has come to its end, cleanly; of several the later ones exist too."""
        from .check import CheckerError

        info = self._dag(dag)
        try:
            return Run(self._bench, info, self._bench.begin(info, intervals))
        except CheckerError as error:
            raise RerunSafetyError(str(error)) from None

    def _dag(self, dag_id: str) -> DagInfo:
        known = {dag.dag_id: dag for file in self._files for dag in self._bench.load(file).dags}
        if dag_id not in known:
            raise RerunSafetyError(f"no DAG {dag_id!r}; DAGs: {', '.join(sorted(known)) or 'none'}")
        return known[dag_id]


class _Actor(Protocol):
    """Who does what a run is asked for."""

    def act(self, dag: DagInfo, run: RunKey, world: WorldState, action: Action, later_s: float) -> Acted: ...


class Run:
    """A DagRun to do things to; each call does one and lets the run go on to its end. Raises `RerunSafetyError`."""

    def __init__(self, actor: _Actor, dag: DagInfo, clean: Recording) -> None:
        self._actor = actor
        self._dag = dag
        self._key = clean.run
        self._world = clean.final
        self._outcome = clean.outcome

    @property
    def state(self) -> str:
        """`success` or `failed`; `stuck` if nothing can go on."""
        return self._outcome.run_state

    @property
    def states(self) -> Mapping[str, str]:
        """The states of its task instances, by `task_id`, `task_id[map_index]` for mapped ones."""
        return self._outcome.task_states

    @property
    def outputs(self) -> Mapping[str, bytes]:
        """What stands there now: `file:/path`, `variable:name`, `xcom:task_id/key`."""
        return {name: output.content for name, output in self._outcome.outputs.items()}

    @property
    def attempts(self) -> tuple[str, ...]:
        """The task instances that ran in the last call, in order, each as often as it was tried."""
        return tuple(_name(attempt) for attempt in self._outcome.attempts)

    @property
    def errors(self) -> Mapping[str, str]:
        """The exceptions of task instances in the last call, cut to the project's lines; of several the last."""
        return {_name(attempt): attempt.error for attempt in self._outcome.attempts if attempt.error}

    def clear(
        self,
        *,
        task_ids: Sequence[TaskKey] = (),
        pattern: str = "",
        start: datetime | None = None,
        end: datetime | None = None,
        upstream: bool = False,
        downstream: bool = False,
        past: bool = False,
        future: bool = False,
        only_failed: bool = False,
        only_running: bool = False,
        recursive: bool = False,
    ) -> tuple[str, ...]:
        """Clear as Airflow's API does, with `pattern` as its command line does; gives what was cleared.

        A mapped task's index is cleared as `("task_id", index)`; no tasks at all stand for the whole run. `start` and
        `end` clear all runs of these logical dates instead of this one.
        """
        if recursive:
            raise RerunSafetyError(
                "recursive: Airflow 3 does not follow ExternalTaskMarker when it clears; clear the other DAG itself"
            )
        return self._act(
            Clear(
                task_ids=tuple(task_ids),
                pattern=pattern,
                start=start,
                end=end,
                upstream=upstream,
                downstream=downstream,
                past=past,
                future=future,
                only_failed=only_failed,
                only_running=only_running,
            )
        )

    def mark(
        self, task_id: str, state: str, *, map_index: int | None = None, **relatives: bool
    ) -> tuple[str, ...]:
        """Give a task, or with an empty id the run, the state `success` or `failed`; gives what was changed.

        `relatives` are `upstream`, `downstream`, `past` and `future`.
        """
        return self._act(Mark(task_id=task_id, state=state, map_index=map_index, **relatives))

    def backfill(
        self,
        start: datetime,
        end: datetime,
        *,
        reprocess: str = "none",
        backwards: bool = False,
        max_active_runs: int = 10,
    ) -> tuple[str, ...]:
        """Backfill the intervals of these logical dates; gives the task instances that are new or were cleared."""
        wanted = Backfill(
            start=start, end=end, reprocess=reprocess, backwards=backwards, max_active_runs=max_active_runs
        )
        return self._act(wanted)

    def _act(self, action: Action) -> tuple[str, ...]:
        from .check import CheckerError

        try:
            acted = self._actor.act(self._dag, self._key, self._world, action, CLEARED_S)
        except CheckerError as error:
            raise RerunSafetyError(str(error)) from None
        self._world, self._outcome = acted.world, acted.outcome
        return acted.touched


def _name(attempt: Attempt) -> str:
    return attempt.task_id if attempt.map_index < 0 else f"{attempt.task_id}[{attempt.map_index}]"


@pytest.fixture(scope="session")
def _rerun_safety_bench(pytestconfig: pytest.Config) -> Iterator[Bench]:
    from .items import Bench

    bench = Bench(pytestconfig, settings_of(pytestconfig))
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def rerun_safety(_rerun_safety_bench: Bench, pytestconfig: pytest.Config) -> RerunSafety:
    """Checks DAGs of the project for rerun safety, and runs and clears them by hand, with real Airflow underneath."""
    bench = _rerun_safety_bench
    for source in sources(bench.settings, pytestconfig.rootpath, os.environ):
        if files := bench.find(source.paths):
            return RerunSafety(bench, files)
    return RerunSafety(bench, ())
