"""Each way to die and to recover that is tried on a real deployment, and what brings the two together there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployment import DagRun, Deployment


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A DAG whose first try dies in a real deployment, and the commands that recover it there."""

    dag_id: str
    """The DAG file's name too."""
    commands: tuple[str, ...] = ()
    """Each given once all runs have ended, without `airflow`."""
    runs: int = 1
    first_wait: int | None = None
    """How many runs have to end before the first command, if not all."""
    file: str = ""
    """What is written besides before the end; empty if there is no such file."""
    predicted: str = ""
    """What our engine calls it: crash point or task, kind and recovery; `{out}` is the folder of outputs."""

    def __str__(self) -> str:
        return self.dag_id


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is there once all runs of a DAG have ended."""

    runs: Sequence[DagRun]
    files: Mapping[str, str]


def happen(deployment: Deployment, scenarios: Sequence[Scenario], out: Path) -> dict[str, list[Ending]]:
    """All scenarios at once; by DAG how things stood before each command, and at the end."""
    seen: dict[str, list[Ending]] = {scenario.dag_id: [] for scenario in scenarios}

    def have_ended() -> bool:
        for scenario in scenarios:
            _go_on(deployment, scenario, out, seen[scenario.dag_id])
        return all(len(seen[scenario.dag_id]) > len(scenario.commands) for scenario in scenarios)

    deployment.wait(have_ended, lambda: f"not ended: {_unfinished(deployment, scenarios, seen)}")
    return seen


def _go_on(deployment: Deployment, scenario: Scenario, out: Path, seen: list[Ending]) -> None:
    """Give the next command if it is time for it."""
    if len(seen) > len(scenario.commands):
        return
    runs = deployment.runs(scenario.dag_id)
    wanted = scenario.first_wait if scenario.first_wait and not seen else scenario.runs
    if len(runs) < scenario.runs or sum(run.has_ended for run in runs) < wanted:
        return
    files = {path.name: path.read_text() for path in sorted(out.glob(f"{scenario.dag_id}.*"))}
    if scenario.file and scenario.file not in files:
        return
    seen.append(Ending(runs=runs, files=files))
    if len(seen) <= len(scenario.commands):
        deployment.airflow(*scenario.commands[len(seen) - 1].split())


def _unfinished(
    deployment: Deployment, scenarios: Sequence[Scenario], seen: Mapping[str, Sequence[Ending]]
) -> list[tuple[str, list[DagRun]]]:
    return [
        (scenario.dag_id, deployment.runs(scenario.dag_id))
        for scenario in scenarios
        if len(seen[scenario.dag_id]) <= len(scenario.commands)
    ]


CRASHED = (
    # The process of the task dies, its supervisor reports it: with a try left, 3.3 retries at once, 3.1 fails the task.
    Scenario(dag_id="retry", predicted="load@xcom:try_1#1:kill:retry"),
    Scenario(dag_id="mapped_retry"),
    # The supervisor dies too: a lost worker. The scheduler misses its heartbeats and calls `handle_failure`.
    Scenario(dag_id="lost_worker", predicted="load@xcom:try_1#1:kill:retry"),
    Scenario(
        dag_id="clear_lost",
        commands=("tasks clear clear_lost -t load -d -y",),
        predicted="load@write:{out}/clear_lost.2024-01-01.load#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="clear_downstream",
        commands=("tasks clear clear_downstream -t load -d -y",),
        predicted="load@write:{out}/clear_downstream.2024-01-01.load#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="clear_task",
        commands=("tasks clear clear_task -t load -y", "tasks clear clear_task -f -y"),
        predicted="load@write:{out}/clear_task.2024-01-01.load#1:kill:clear-task",
    ),
    Scenario(
        dag_id="clear_run",
        commands=("tasks clear clear_run -y",),
        predicted="load@write:{out}/clear_run.2024-01-01.load#1:kill:clear-run",
    ),
    Scenario(
        dag_id="mapped_clear",
        commands=("tasks clear mapped_clear -t load -d -y",),
        predicted="load@write:{out}/mapped_clear.2024-01-01.load[1]#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="teardown_after_crash",
        commands=("tasks clear teardown_after_crash -t use -y",),
        predicted="use@write:{out}/teardown_after_crash.2024-01-01.use#1:kill:clear-task",
    ),
    Scenario(
        dag_id="branch",
        commands=("tasks clear branch -t left -d -y",),
        predicted="left@write:{out}/branch.2024-01-01.left#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="branch_left_aside",
        commands=("tasks clear branch_left_aside -t right -y",),
        predicted="right:-:clear-task",
    ),
    Scenario(
        dag_id="all_done",
        commands=("tasks clear all_done -t load -y",),
        predicted="load@write:{out}/all_done.2024-01-01.load#1:kill:clear-task",
    ),
    Scenario(dag_id="clear_failed", commands=("tasks clear clear_failed -f -y",)),
    Scenario(
        dag_id="depends_on_past", runs=2, first_wait=1, commands=("tasks clear depends_on_past -f -y",)
    ),
    Scenario(dag_id="deferred"),
    Scenario(
        dag_id="backfill",
        runs=2,
        commands=(
            "backfill create --dag-id backfill --from-date 2024-01-01 --to-date 2024-01-02"
            " --reprocess-behavior completed",
        ),
    ),
    Scenario(
        dag_id="backfill_failed",
        runs=2,
        commands=(
            "backfill create --dag-id backfill_failed --from-date 2024-01-01 --to-date 2024-01-02"
            " --reprocess-behavior failed",
        ),
    ),
    Scenario(dag_id="sigterm"),
    Scenario(dag_id="callbacks"),
    Scenario(dag_id="callbacks_lost", file="callbacks_lost.notified"),
)
