"""What our engine says of a scenario, in the words of a deployment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from deployment import DagRun
from scenarios import Ending, Scenario

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.explore.points import explore
from pytest_rerunsafe.model import (
    Action,
    Attempt,
    CrashState,
    DagInfo,
    Death,
    Outcome,
    Profile,
    Recording,
    RunKey,
)
from pytest_rerunsafe.settings import Settings

LATER_S = 600.0
"""From a death until somebody does something."""


class Predictor:
    """Our engine, on DAG files whose outputs go to a folder."""

    def __init__(self, dags: Path, out: Path) -> None:
        self._dags = dags
        self._out = out
        self._checker = Checker(
            settings=Settings(), rootdir=dags, prepare=lambda file, dag, world: world.mkdir(str(out))
        )

    def close(self) -> None:
        """End its processes."""
        self._checker.close()

    def predict(self, scenario: Scenario) -> Ending:
        """How the scenario ends. Raises CheckerError if our engine knows no such scenario."""
        dags = self._checker.load(str(self._dags / f"{scenario.dag_id}.py")).dags
        (dag,) = (dag for dag in dags if dag.dag_id == scenario.dag_id)
        clean = self._checker.begin(dag, scenario.runs)
        wanted = scenario.predicted.format(out=self._out)
        crash = _crash(clean, wanted)
        before = clean.outcome.attempts[: None if crash is None else crash.point.attempt + 1]
        if scenario.action is None:
            ends = {clean.run: self._checker.outcome(dag, f"{dag.dag_id}:{wanted}")}
        else:
            ends = self._act(dag, clean, crash, scenario.action)
        assert not any(end.obstacles for end in ends.values()), ends
        files = _named(next(iter(ends.values())), f"file:{self._out}/")
        return Ending(
            runs=[_run(run, before, end) for run, end in ends.items()],
            files={Path(path).name: content.decode() for path, content in files.items()},
        )

    def _act(
        self, dag: DagInfo, clean: Recording, crash: CrashState | None, action: Action
    ) -> dict[RunKey, Outcome]:
        """How each run ends, by what is done to all of them."""
        assert clean.intervals is not None, "an action is for what concerns several runs"
        death = None
        if crash is not None:
            dead = clean.outcome.attempts[crash.point.attempt]
            assert dead.run == clean.run, "the others have not been made yet"
            due = clean.intervals.logical_dates[1:]
            death = Death(run=dead.run, task_id=dead.task_id, map_index=dead.map_index, due=due)
        world = clean.final if crash is None else crash.world
        return {
            run: self._checker.act(dag, run, world, action, LATER_S, death=death).outcome
            for run in dict.fromkeys(attempt.run for attempt in clean.outcome.attempts)
        }


def _crash(clean: Recording, wanted: str) -> CrashState | None:
    """The crash that a scenario begins with; None if its name begins with no crash point."""
    found = (explore(clean, attempt, Profile.THOROUGH) for attempt in range(len(clean.outcome.attempts)))
    states = (state for exploration in found for state in (*exploration.states, *exploration.after_success))
    name = re.split(":(?:kill|oom|sigterm):", wanted)[0]
    return next((state for state in states if state.point.name == name), None)


def _run(run: RunKey, before: Sequence[Attempt], end: Outcome) -> DagRun:
    """A run, with the number of each task instance's last try, be it of the clean run or after it."""
    attempts = [attempt for attempt in (*before, *end.attempts) if attempt.run == run]
    tries = {_name(attempt): attempt.try_number for attempt in attempts}
    return DagRun(
        date=run[1].removeprefix("scheduled__")[:10],
        state=end.run_state,
        task_states=end.task_states,
        tries={**dict.fromkeys(end.task_states, 0), **tries},
        xcoms=_named(end, "xcom:"),
    )


def _named(outcome: Outcome, prefix: str) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): output.content
        for name, output in outcome.outputs.items()
        if name.startswith(prefix)
    }


def _name(attempt: Attempt) -> str:
    return attempt.task_id if attempt.map_index < 0 else f"{attempt.task_id}[{attempt.map_index}]"
