"""What our engine says of a scenario, in the words of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployment import DagRun
from scenarios import Ending, Scenario

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.explore.scenarios import scenario_id
from pytest_rerunsafe.model import Attempt, Outcome, Recording
from pytest_rerunsafe.settings import Settings


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
        """How the scenario ends. Raises LookupError if our engine knows no such scenario."""
        (dag,) = self._checker.load(str(self._dags / f"{scenario.dag_id}.py")).dags
        study = self._checker._study(dag)
        wanted = f"{scenario.dag_id}:{scenario.predicted.format(out=self._out)}"
        known = [(scenario_id(trial.scenario), trial) for trial in study._all_trials()]
        named = [trial for name, trial in known if name == wanted]
        if len(named) <= scenario.attempt:
            raise LookupError(f"no {wanted} among\n" + "\n".join(name for name, _ in known))
        trial = named[scenario.attempt]
        ((outcome,),) = study._try([[trial]])
        assert isinstance(outcome, Outcome), outcome
        assert not outcome.obstacles, outcome.obstacles
        crashed = None if trial.state is None else trial.state.point.attempt
        run = DagRun(
            date=f"{dag.logical_date:%Y-%m-%d}",
            state=outcome.run_state,
            task_states=outcome.task_states,
            tries=_tries(study._reference, crashed, outcome),
            xcoms=_named(outcome, "xcom:"),
        )
        files = {
            Path(path).name: content.decode()
            for path, content in _named(outcome, f"file:{self._out}/").items()
        }
        return Ending(runs=[run], files=files)


def _named(outcome: Outcome, prefix: str) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): output.content
        for name, output in outcome.outputs.items()
        if name.startswith(prefix)
    }


def _tries(clean: Recording, crashed: int | None, outcome: Outcome) -> Mapping[str, int]:
    """The number of each task instance's last try: of the clean run up to the crash, and after it."""
    before = clean.outcome.attempts[: None if crashed is None else crashed + 1]
    tries = dict.fromkeys(outcome.task_states, 0)
    return {**tries, **{_name(attempt): attempt.try_number for attempt in (*before, *outcome.attempts)}}


def _name(attempt: Attempt) -> str:
    return attempt.task_id if attempt.map_index < 0 else f"{attempt.task_id}[{attempt.map_index}]"
