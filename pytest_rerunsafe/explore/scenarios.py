"""Which recoveries are tried from which states, and the jobs that try them. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..model import (
    LATE,
    OF_INTERVALS,
    Attempt,
    CrashKind,
    CrashState,
    DagInfo,
    Profile,
    Recording,
    RecoveryKind,
    Scenario,
    WorldState,
)
from .fold import local_files
from .jobs import RECOVERY, Fault, RecoverJob, Start
from .points import before, distinct_states, explore, faulty
from .promise import promise
from .recoveries import OF_RUN, after_crash, after_fault, after_success
from .representatives import stand_ins


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A scenario with what it starts from."""

    scenario: Scenario
    world: WorldState
    state: CrashState | None = None
    """None: nothing crashed, the run had ended well."""
    fault: Fault | None = None
    """What befalls the attempt that begins in the world; None: its worker has died there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashTrials:
    """The trials of one task's crashes."""

    trials: tuple[Trial, ...]
    distinct: int
    explored: int
    stand_ins: tuple[str, ...] = ()
    """The tasks that are crashed in place of one that is not crashed itself."""


def crash_trials(
    dag: DagInfo,
    recording: Recording,
    task_id: str,
    profile: Profile,
    chosen: Sequence[RecoveryKind] = (),
) -> CrashTrials:
    """All that is tried for the check `crash.<task_id>`; of recoveries only those chosen, if any are."""
    trials: list[Trial] = []
    distinct = explored = 0
    others: dict[str, None] = {}
    crashed_for = stand_ins(dag, recording, profile)
    for index in _attempts(recording, task_id):
        attempt = recording.outcome.attempts[index]
        if index not in crashed_for[index]:
            distinct += distinct_states(recording, index)
            others |= dict.fromkeys(recording.outcome.attempts[other].task_id for other in crashed_for[index])
            continue
        exploration = explore(recording, index, profile)
        lost = exploration.after_power_loss
        ended = exploration.after_success if not chosen or RecoveryKind.GO_ON in chosen else ()
        distinct += exploration.distinct + len(ended) + len(lost)
        explored += len(exploration.states) + len(ended) + len(lost)
        kinds = after_crash(
            dag, task_id, attempt.map_index, may_retry=attempt.may_retry, profile=profile, chosen=chosen
        )
        deaths = _deaths(dag, task_id, profile)
        faults = _Faults(dag, recording, index, exploration.states, profile, chosen)
        for state in exploration.states:
            trials += [
                _crash_trial(dag, attempt, state, recovery, death)
                for death in deaths
                for recovery in kinds
                if (death, recovery)
                != (CrashKind.OOM, RecoveryKind.CLEAR_RUNNING)  # that ends it in its own way
            ]
            trials += faults.trials_at(state)
        trials += [_crash_trial(dag, attempt, state, RecoveryKind.GO_ON) for state in ended]
        trials += _power_trials(dag, attempt, lost, kinds, chosen)
    return CrashTrials(
        trials=tuple(trials),
        distinct=distinct,
        explored=explored,
        stand_ins=() if explored else tuple(others),
    )


def _power_trials(
    dag: DagInfo,
    attempt: Attempt,
    states: Sequence[CrashState],
    kinds: Sequence[RecoveryKind],
    chosen: Sequence[RecoveryKind],
) -> Iterator[Trial]:
    """What is tried after a power loss: the first recovery only, unless some are chosen; none of a task that had succeeded."""
    for state in states:
        wanted = kinds if chosen else kinds[:1]
        if state.point.has_ended:
            wanted = [kind for kind in (RecoveryKind.GO_ON,) if not chosen or kind in chosen]
        for recovery in wanted:
            yield _crash_trial(dag, attempt, state, recovery, CrashKind.POWER)


_BY_PROFILE = {
    Profile.FAST: (),
    Profile.DEFAULT: (CrashKind.ERROR, CrashKind.TIMEOUT, CrashKind.SIGTERM),
    Profile.THOROUGH: (
        CrashKind.ERROR,
        CrashKind.TIMEOUT,
        CrashKind.SIGTERM,
        CrashKind.ERROR_EACH_TRY,
        CrashKind.ZOMBIE,
    ),
}
"""The kinds of crash that are tried besides kills."""


class _Faults:
    """What can befall one attempt besides that its worker is killed."""

    def __init__(
        self,
        dag: DagInfo,
        recording: Recording,
        index: int,
        states: Sequence[CrashState],
        profile: Profile,
        chosen: Sequence[RecoveryKind],
    ) -> None:
        self._dag = dag
        self._recording = recording
        self._attempt = recording.outcome.attempts[index]
        self._profile = profile
        self._chosen = chosen
        self._kinds = [kind for kind in _BY_PROFILE[profile] if _can_befall(kind, self._attempt)]
        self._places = {state.point for state in faulty(recording, states, profile)} if self._kinds else set()
        self._world = before(recording, index) if self._places else None

    def trials_at(self, state: CrashState) -> Iterator[Trial]:
        """What is tried at the change that led to a crash state."""
        if state.point not in self._places or self._world is None:
            return
        effect = self._recording.effects[state.point.effect]
        for kind in self._kinds:
            own = replace(state)  # trials of one state go together, and those of one kind
            fault = Fault(crash_kind=kind, kind=effect.kind, target=effect.target, nth=effect.nth)
            for recovery in after_fault(
                kind, self._dag, self._attempt, profile=self._profile, chosen=self._chosen
            ):
                trial = _crash_trial(self._dag, self._attempt, own, recovery)
                scenario = replace(trial.scenario, crash_kind=kind)
                yield replace(trial, scenario=scenario, world=self._world, fault=fault)


def _can_befall(kind: CrashKind, attempt: Attempt) -> bool:
    match kind:
        case CrashKind.ERROR_EACH_TRY:
            return attempt.may_retry
        case CrashKind.TIMEOUT | CrashKind.SIGTERM:
            return kind in attempt.heeds
        case _:
            return True


def _attempts(recording: Recording, task_id: str) -> list[int]:
    return [
        index
        for index, attempt in enumerate(recording.outcome.attempts)
        if (attempt.run, attempt.task_id) == (recording.run, task_id)
    ]


def _deaths(dag: DagInfo, task_id: str, profile: Profile) -> tuple[CrashKind, ...]:
    """The ways to die that differ: who is told of a death depends on whether the supervisor dies too."""
    (task,) = (task for task in dag.tasks if task.task_id == task_id)
    return (
        (CrashKind.KILL, CrashKind.OOM)
        if task.calls_back and profile is not Profile.FAST
        else (CrashKind.KILL,)
    )


def _crash_trial(
    dag: DagInfo,
    attempt: Attempt,
    state: CrashState,
    recovery: RecoveryKind,
    kind: CrashKind = CrashKind.KILL,
) -> Trial:
    scenario = Scenario(
        dag_id=dag.dag_id,
        task_id=attempt.task_id,
        map_index=attempt.map_index,
        crash_point=state.point.name,
        crash_kind=kind,
        recovery=recovery,
    )
    return Trial(scenario=scenario, world=state.world, state=state)


def rerun_trials(
    dag: DagInfo, recording: Recording, profile: Profile, chosen: Sequence[RecoveryKind] = ()
) -> tuple[Trial, ...]:
    """All that is tried for the check `rerun`: clears after the run has ended well; only those chosen, if any are."""
    of_tasks = [
        _rerun_trial(dag, recording, task.task_id, recovery)
        for task in dag.tasks
        for recovery in after_success(dag, task.task_id, profile, chosen)
    ]
    of_run = [
        _rerun_trial(dag, recording, "", recovery) for recovery in OF_RUN if not chosen or recovery in chosen
    ]
    return (*of_tasks, *of_run)


def _rerun_trial(dag: DagInfo, recording: Recording, task_id: str, recovery: RecoveryKind) -> Trial:
    scenario = Scenario(
        dag_id=dag.dag_id,
        task_id=task_id,
        map_index=-1,
        crash_point=None,
        crash_kind=None,
        recovery=recovery,
    )
    return Trial(scenario=scenario, world=recording.final)


_ORDERS = (
    RecoveryKind.BACKFILL_BACKWARDS,
    RecoveryKind.CLEAR_RUN_AFTER_NEWER,
    RecoveryKind.CATCHUP,
    RecoveryKind.BACKFILL_COMPLETED,
    RecoveryKind.BACKFILL_COMPLETED_BACKWARDS,
)
"""Those of a profile that explores less first."""
_ORDERS_TRIED = {Profile.FAST: 2, Profile.DEFAULT: 4, Profile.THOROUGH: 5}
_FROM_THE_START = frozenset({RecoveryKind.BACKFILL_BACKWARDS, RecoveryKind.CATCHUP})
"""Orders of intervals that have not run yet; the others are of some that have."""


def interval_trials(
    dag: DagInfo, recording: Recording, profile: Profile, chosen: Sequence[RecoveryKind] = ()
) -> tuple[Trial, ...]:
    """All that is tried for the check `backfill`: intervals out of order, at once, again, or recovered late; only those
    chosen, if any are.
    """
    assert recording.intervals is not None, "several intervals were recorded"
    orders = tuple(
        replace(
            _rerun_trial(dag, recording, "", order),
            world=recording.intervals.before if order in _FROM_THE_START else recording.final,
        )
        for order in (_ORDERS if chosen else _ORDERS[: _ORDERS_TRIED[profile]])
        if not chosen or order in chosen
    )
    late = LATE & {*chosen} if chosen else LATE if profile is Profile.THOROUGH else frozenset()
    return (*orders, *(trial for trial in _late_trials(dag, recording) if trial.scenario.recovery in late))


LATE_DEATHS = 4
"""Deaths in the oldest interval from which it recovers only after newer ones have ended."""


def _late_trials(dag: DagInfo, recording: Recording) -> Iterator[Trial]:
    """Of the oldest interval the deaths that are most likely to harm newer ones, or to be harmed by them."""
    found = [
        (attempt, state)
        for index, attempt in enumerate(recording.outcome.attempts)
        if attempt.run == recording.run
        for state in explore(recording, index, Profile.DEFAULT).states
    ]
    keys = promise(recording, [state.point for _, state in found])
    for number in sorted(range(len(found)), key=lambda number: (keys[number], number))[:LATE_DEATHS]:
        attempt, state = found[number]
        may_retry = attempt.may_retry
        late = RecoveryKind.RETRY_AFTER_NEWER if may_retry else RecoveryKind.CLEAR_DOWNSTREAM_AFTER_NEWER
        yield _crash_trial(dag, attempt, state, late)


def at_once(trial: Trial, recording: Recording) -> Trial | None:
    """The same death in a run alone, from which it recovers before anything else runs; None if there is none."""
    scenario, recovery = trial.scenario, _AT_ONCE[trial.scenario.recovery]
    for index in _attempts(recording, scenario.task_id):
        for state in explore(recording, index, Profile.THOROUGH).states:
            if state.point.name == scenario.crash_point:
                return Trial(scenario=replace(scenario, recovery=recovery), world=state.world, state=state)
    return None


_AT_ONCE = {
    RecoveryKind.RETRY_AFTER_NEWER: RecoveryKind.RETRY,
    RecoveryKind.CLEAR_DOWNSTREAM_AFTER_NEWER: RecoveryKind.CLEAR_DOWNSTREAM,
}


def is_first_time(scenario: Scenario) -> bool:
    """Whether intervals run that have not run before."""
    return scenario.recovery in _FROM_THE_START


JOBS = 4
"""Jobs that trials are split into: states in one job share work, jobs share the cores."""
MOST = 16
"""States in one job."""


def states_per_job(batches: Sequence[Sequence[Trial]]) -> int:
    """How many states go into one job where these batches are tried together."""
    count = sum(1 for trials in batches for _ in groupby(trials, key=_state_of))
    return min(max(2, -(-count // JOBS)), MOST)


def jobs_of(
    trials: Sequence[Trial],
    size: int,
    dag: DagInfo,
    recording: Recording,
    folder: str,
    clean: Mapping[str, tuple[int, int]],
    *,
    keeps_log: bool = False,
    local: Sequence[str] = (),
) -> list[RecoverJob]:
    """The jobs that try them, in order, with `size` states each; on another worker if some paths are `local` to one."""
    by_state = [tuple(map(start_of, group)) for _, group in groupby(trials, key=_state_of)]
    chunks = [by_state[start : start + size] for start in range(0, len(by_state), size)]
    return [
        RecoverJob(
            dag=dag,
            run=recording.run,
            folder=folder,
            starts=tuple(start for group in chunk for start in group),
            clean=clean,
            seed=RECOVERY,
            keeps_log=keeps_log,
            logical_dates=recording.intervals.logical_dates if recording.intervals else (),
            local=tuple(local),
            local_files=local_files(recording.initial.files, local),
        )
        for chunk in chunks
    ]


def best_first(batches: Sequence[tuple[Recording, Sequence[Trial]]]) -> list[int]:
    """The states of all trials, numbered on from batch to batch, those most likely to find something first.

    What goes wrong without a crash comes before all: crashes are judged by it.
    """
    keys: list[tuple[int, ...]] = []
    for recording, trials in batches:
        firsts = [next(group) for _, group in groupby(trials, key=_state_of)]
        crashes = iter(promise(recording, [trial.state.point for trial in firsts if trial.state]))
        keys += [next(crashes) if trial.state else _promise_without_crash(trial) for trial in firsts]
    return sorted(range(len(keys)), key=lambda number: (*keys[number], number))


def _promise_without_crash(trial: Trial) -> tuple[int, int]:
    return (0, 0) if trial.scenario.recovery in OF_INTERVALS else (-1, 0)


def _state_of(trial: Trial) -> object:
    """What trials in a row have in common that go together: the crash state, else the task that is cleared."""
    if trial.state is not None:
        return id(trial.state)
    return trial.scenario.recovery if trial.scenario.recovery in OF_INTERVALS else trial.scenario.task_id


def start_of(trial: Trial) -> Start:
    """What the recovery of a trial starts from."""
    goes_on = trial.scenario.recovery is RecoveryKind.GO_ON and trial.fault is None
    return Start(
        world=trial.world,
        task_id=trial.scenario.task_id or None,
        map_index=trial.scenario.map_index,
        crash=None if goes_on else trial.scenario.crash_kind,
        recovery=trial.scenario.recovery,
        fault=trial.fault,
    )


def scenario_id(scenario: Scenario) -> str:
    """The text that stands for a scenario on the command line: `dag:crash point or task:kind:recovery`, `-` for none.

    For a death in a recovery, `dag:crash point:kind:recovery` of the one before it comes first.
    """
    place = scenario.crash_point or scenario.task_id or "-"
    before = scenario_id(scenario.first) if scenario.first else scenario.dag_id
    return f"{before}:{place}:{scenario.crash_kind or '-'}:{scenario.recovery}"
