"""A worker that dies again: in the recovery from its first death, and at the same point in every try that Airflow grants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .explore.fold import local_files
from .explore.jobs import RECOVERY, RecordRecoveryJob
from .explore.messages import Done
from .explore.points import crash_points, explore, state_at
from .explore.promise import promise
from .explore.scenarios import Trial, start_of
from .model import CrashKind, DagInfo, Profile, Recording, RecoveryKind, Scenario
from .trials import Run

FIRST = 3
"""First deaths that a second one is tried after, per check."""
SECOND = 4
"""Second deaths tried in the recovery from each."""
MOST_TRIES = 10
"""Deaths at the same point in a row; after them somebody clears the task although Airflow would retry it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Trials that begin in a recovery, and what was recorded of that."""

    recording: Recording
    trials: tuple[Trial, ...]


class Again:
    """Finds what is to be tried after recoveries of one DAG."""

    def __init__(
        self, *, dag: DagInfo, folder: str, reference: Recording, local: Sequence[str], run: Run
    ) -> None:
        self._dag = dag
        self._local = local
        self._folder = folder
        self._reference = reference
        self._run = run

    def recovered(self, trials: Sequence[Trial]) -> tuple[Recovered, ...]:
        """The most promising of what can befall the recoveries of these trials."""
        firsts = self._firsts(trials)
        found: list[Recovered] = []
        for trial, recording in zip(firsts, self._recorded(firsts), strict=True):
            if recording is not None:
                found.append(Recovered(recording=recording, trials=tuple(self._seconds(trial, recording))))
                if trial.scenario.recovery is RecoveryKind.RETRY:
                    found += self._at_each_try(trial, recording)
        return tuple(each for each in found if each.trials)

    def _firsts(self, trials: Sequence[Trial]) -> list[Trial]:
        """One trial per death, the likeliest to do harm first."""
        by_state: dict[int, Trial] = {}
        for trial in trials:
            if trial.state is not None and trial.scenario.crash_kind is CrashKind.KILL:
                by_state.setdefault(id(trial.state), trial)
        kills = list(by_state.values())
        keys = promise(self._reference, [trial.state.point for trial in kills if trial.state])
        best = sorted(range(len(kills)), key=lambda number: (keys[number], number))
        return [kills[number] for number in best[:FIRST]]

    def _recorded(self, trials: Sequence[Trial]) -> list[Recording | None]:
        jobs = [
            RecordRecoveryJob(
                dag=self._dag,
                run=self._reference.run,
                folder=self._folder,
                start=start_of(trial),
                seed=RECOVERY,
                local=tuple(self._local),
                local_files=local_files(self._reference.initial.files, self._local),
            )
            for trial in trials
        ]
        return [answer.result if isinstance(answer, Done) else None for answer in self._run(jobs)]

    # --- deaths in a recovery -----------------------------------------------------------------

    def _seconds(self, first: Trial, recording: Recording) -> Iterator[Trial]:
        """Deaths of the task in the recovery from its first one."""
        index = self._attempt(first, recording)
        if index is None:
            return
        states = explore(recording, index, Profile.DEFAULT).states
        keys = promise(recording, [state.point for state in states])
        for number in sorted(range(len(states)), key=lambda number: (keys[number], number))[:SECOND]:
            may_retry = recording.outcome.attempts[index].may_retry
            recovery = RecoveryKind.RETRY if may_retry else RecoveryKind.CLEAR_DOWNSTREAM
            scenario = _after(first.scenario, states[number].point.name, recovery)
            yield Trial(scenario=scenario, world=states[number].world, state=states[number])

    def _at_each_try(self, first: Trial, recording: Recording) -> Iterator[Recovered]:
        """The same death in each try until there is none left, and a clear."""
        assert first.state is not None, "it has died"
        trial, place = first, _place(first)
        for number in range(MOST_TRIES):
            index = self._attempt(trial, recording)
            if index is None:
                return
            points = crash_points(recording, index)
            point = next((point for point in points if point.name.rpartition("#")[0] == place), None)
            if point is None:
                return
            state = state_at(recording, point)
            is_last = not recording.outcome.attempts[index].may_retry or number == MOST_TRIES - 1
            recovery = RecoveryKind.CLEAR_DOWNSTREAM if is_last else RecoveryKind.RETRY
            scenario = _after(trial.scenario, state.point.name, recovery)
            trial = Trial(scenario=scenario, world=state.world, state=state)
            if is_last:
                yield Recovered(recording=recording, trials=(trial,))
                return
            (following,) = self._recorded([trial])
            if following is None:
                return
            recording = following

    def _attempt(self, trial: Trial, recording: Recording) -> int | None:
        """The first attempt of the task in a recovery; None if it is not tried again."""
        wanted = (recording.run, trial.scenario.task_id, trial.scenario.map_index)
        attempts = recording.outcome.attempts
        return next((i for i, a in enumerate(attempts) if (a.run, a.task_id, a.map_index) == wanted), None)


def as_clean(recording: Recording, reference: Recording) -> Recording:
    """The recording of a recovery, to be judged by how the clean run ends."""
    clean = reference.outcome
    return replace(
        recording, outcome=replace(recording.outcome, outputs=clean.outputs, task_states=clean.task_states)
    )


def _place(trial: Trial) -> str:
    return (trial.scenario.crash_point or "").rpartition("#")[0]


def _after(first: Scenario, point: str, recovery: RecoveryKind) -> Scenario:
    return replace(first, crash_point=point, recovery=recovery, first=first)
