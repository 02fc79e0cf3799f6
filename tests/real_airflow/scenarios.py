"""Each way to die and to recover that is tried on a real deployment, and what brings the two together there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from deployment import DagRun, Deployment

from pytest_rerunsafe.model import Action, Backfill, Clear

_FIRST, _SECOND = (datetime(2024, 1, day, tzinfo=timezone.utc) for day in (1, 2))
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")


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
    """What has to be there before the next command or the end, in a process that nobody waits for; empty if nothing."""
    lines: int = 1
    """How long it is then."""
    predicted: str = ""
    """What our engine calls it: crash point or task, kind and recovery; `{out}` is the folder of outputs.

    With an action the crash point alone, or nothing if nobody dies.
    """
    action: Action | None = None
    """What our engine is asked to do instead of one of its recoveries."""

    def __str__(self) -> str:
        return self.dag_id


def _backfill(dag_id: str, reprocessed: str) -> str:
    return (
        f"backfill create --dag-id {dag_id} --from-date 2024-01-01 --to-date 2024-01-02"
        f" --reprocess-behavior {reprocessed}"
    )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is there once all runs of a DAG have ended."""

    runs: Sequence[DagRun]
    files: Mapping[str, str]

    def __str__(self) -> str:
        lines = []
        for run in self.runs:
            tasks = (f"{task} {state} {run.tries[task]}" for task, state in run.task_states.items())
            lines.append(f"{run.date} {run.state}: {', '.join(tasks)}")
            lines += [
                f"{run.date} xcom {name}: {value.decode()}" for name, value in sorted(run.xcoms.items())
            ]
        lines += [f"{name}: {', '.join(text.splitlines())}" for name, text in sorted(self.files.items())]
        return _TIME.sub("<time>", "\n".join(lines))


def happen(deployment: Deployment, scenarios: Sequence[Scenario], out: Path) -> dict[str, list[Ending]]:
    """All scenarios at once; by DAG how things stood before each command, and at the end."""
    seen: dict[str, list[Ending]] = {scenario.dag_id: [] for scenario in scenarios}

    def have_ended() -> bool:
        for scenario in scenarios:
            _go_on(deployment, scenario, out, seen[scenario.dag_id])
        return all(len(seen[scenario.dag_id]) > len(scenario.commands) for scenario in scenarios)

    deployment.wait(have_ended, lambda: f"not ended: {_unfinished(deployment, scenarios, seen)}")
    for scenario in scenarios:  # what was written after the end counts too
        seen[scenario.dag_id][-1] = replace(seen[scenario.dag_id][-1], files=_files(out, scenario))
    return seen


def _files(out: Path, scenario: Scenario) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(out.glob(f"{scenario.dag_id}.*"))}


def _go_on(deployment: Deployment, scenario: Scenario, out: Path, seen: list[Ending]) -> None:
    """Give the next command if it is time for it."""
    if len(seen) > len(scenario.commands):
        return
    runs = deployment.runs(scenario.dag_id)
    wanted = scenario.first_wait if scenario.first_wait is not None and not seen else scenario.runs
    if len(runs) < scenario.runs or sum(run.has_ended for run in runs) < wanted:
        return
    files = _files(out, scenario)
    if scenario.file and files.get(scenario.file, "").count("\n") < scenario.lines:
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


PREDICTED = (
    # The process of the task dies, its supervisor lives: it reports nothing if there is a try left (`UP_FOR_RETRY` is among
    # its `STATES_SENT_DIRECTLY`), and the scheduler finds the task running that its executor is done with.
    Scenario(dag_id="retry", predicted="load@xcom:try_1#1:kill:retry"),
    Scenario(dag_id="unflushed", predicted="load@write:{out}/unflushed.rows#1:kill:retry"),
    Scenario(dag_id="sensor", predicted="wait@write:{out}/sensor.2024-01-01.wait#2:kill:retry"),
    Scenario(dag_id="branch_changes_mind", predicted="choose@skip:downstream#1:kill:retry"),
    Scenario(
        dag_id="mapped_retry", predicted="load[1]@write:{out}/mapped_retry.2024-01-01.load[1]#1:kill:retry"
    ),
    # If there is none, the supervisor reports the failure.
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
        dag_id="all_done",
        commands=("tasks clear all_done -t load -y",),
        predicted="load@write:{out}/all_done.2024-01-01.load#1:kill:clear-task",
    ),
    Scenario(
        dag_id="xcom_of_the_dead",
        commands=("tasks clear xcom_of_the_dead -t load -d -y",),
        predicted="load@xcom:return_value#1:kill:clear-downstream",
    ),
    # The supervisor dies too: a lost worker. The scheduler misses its heartbeats and calls `handle_failure`.
    Scenario(dag_id="lost_worker", predicted="load@xcom:try_1#1:kill:retry"),
    Scenario(
        dag_id="clear_lost",
        commands=("tasks clear clear_lost -t load -d -y",),
        predicted="load@write:{out}/clear_lost.2024-01-01.load#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="notified_of_loss",
        commands=("tasks clear notified_of_loss -t load -d -y",),
        file="notified_of_loss.notified",
        lines=2,
        predicted="load@write:{out}/notified_of_loss.2024-01-01.load#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="notified_of_lost_retry",
        file="notified_of_lost_retry.notified",
        lines=2,
        predicted="load@write:{out}/notified_of_lost_retry.2024-01-01.load#1:kill:retry",
    ),
    # The process of the task dies, its supervisor lives: it runs no callback, nor does anybody else.
    Scenario(
        dag_id="notified_of_death",
        commands=("tasks clear notified_of_death -t load -d -y",),
        predicted="load@write:{out}/notified_of_death.2024-01-01.load#1:oom:clear-downstream",
    ),
    # The executor reports it: the callback of a retry runs once, not twice.
    Scenario(
        dag_id="notified_of_retry",
        file="notified_of_retry.notified",
        predicted="load@write:{out}/notified_of_retry.2024-01-01.load#1:oom:retry",
    ),
    # The end of the task was recorded: all that is lost are the callbacks.
    Scenario(dag_id="killed_after_success", predicted="load@state:success#1:kill:go-on"),
    Scenario(dag_id="killed_after_last_success", predicted="load@state:success#1:kill:go-on"),
    # A clear is what ends it.
    Scenario(
        dag_id="clear_running",
        first_wait=0,
        file="clear_running.2024-01-01.load",
        commands=("tasks clear clear_running -r -y",),
        predicted="load@write:{out}/clear_running.2024-01-01.load#1:kill:clear-running",
    ),
    # What stands beside the dead task has ended by the time that somebody clears.
    Scenario(
        dag_id="mapped_clear",
        commands=("tasks clear mapped_clear -t load -d -y",),
        predicted="load[1]@write:{out}/mapped_clear.2024-01-01.load[1]#1:kill:clear-downstream",
    ),
    Scenario(
        dag_id="clear_failed",
        commands=("tasks clear clear_failed -f -y",),
        predicted="shaky@write:{out}/clear_failed.2024-01-01.shaky#1:kill:clear-failed",
    ),
    # Its retry dies at the same place.
    Scenario(
        dag_id="dies_twice",
        commands=("tasks clear dies_twice -t load -d -y",),
        predicted="load@write:{out}/dies_twice.2024-01-01.load#1:kill:retry"
        ":load@write:{out}/dies_twice.2024-01-01.load#1:kill:clear-downstream",
    ),
    # It is told to end, and goes on once `on_kill` has run.
    Scenario(dag_id="sigterm", predicted="load@write:{out}/sigterm.2024-01-01.load#1:sigterm:go-on"),
    # It has been resumed by its trigger.
    Scenario(dag_id="deferred", predicted="wait@write:{out}/deferred.2024-01-01.wait#2:kill:retry"),
    # Several runs; one of the first dies.
    Scenario(
        dag_id="depends_on_past",
        runs=2,
        first_wait=1,
        commands=("tasks clear depends_on_past -f -y",),
        predicted="load@write:{out}/depends_on_past.2024-01-01.load#1",
        action=Clear(start=_FIRST, end=_SECOND, only_failed=True),
    ),
    Scenario(
        dag_id="backfill",
        runs=2,
        commands=(_backfill("backfill", "completed"),),
        predicted="load@write:{out}/backfill.2024-01-01.load#1",
        action=Backfill(start=_FIRST, end=_SECOND, reprocess="completed"),
    ),
    Scenario(
        dag_id="backfill_failed",
        runs=2,
        commands=(_backfill("backfill_failed", "failed"),),
        predicted="load@write:{out}/backfill_failed.2024-01-01.load#1",
        action=Backfill(start=_FIRST, end=_SECOND, reprocess="failed"),
    ),
    # Nothing dies.
    Scenario(
        dag_id="branch_left_aside",
        commands=("tasks clear branch_left_aside -t right -y",),
        predicted="right:-:clear-task",
    ),
    Scenario(
        dag_id="cleared_alone",
        commands=("tasks clear cleared_alone -t extract -y",),
        predicted="extract:-:clear-task",
    ),
    Scenario(
        dag_id="mapped_shrinks",
        commands=("tasks clear mapped_shrinks -t parts -d -y",),
        predicted="parts:-:clear-downstream",
    ),
    Scenario(
        dag_id="clear_upstream",
        commands=("tasks clear clear_upstream -t load -u -y",),
        predicted="load:-:clear-upstream",
    ),
    Scenario(
        dag_id="clear_one_day",
        runs=2,
        commands=("tasks clear clear_one_day -s 2024-01-02 -e 2024-01-02 -y",),
        action=Clear(start=_SECOND, end=_SECOND),
    ),
    Scenario(
        dag_id="triggers_run",
        commands=("tasks clear triggers_run -t trigger -d -y",),
        predicted="trigger:-:clear-downstream",
    ),
)
"""What our engine can be asked for."""
