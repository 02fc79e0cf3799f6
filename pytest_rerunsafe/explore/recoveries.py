"""What each named recovery of one run clears, and which recoveries are worth a try. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ..model import Attempt, Clear, CrashKind, DagInfo, Profile, RecoveryKind

_OF_TASK = (RecoveryKind.CLEAR_DOWNSTREAM, RecoveryKind.CLEAR_TASK)
_OF_TASK_THOROUGH = (RecoveryKind.CLEAR_UPSTREAM, RecoveryKind.CLEAR_BOTH_WAYS, RecoveryKind.CLEAR_INDEX)
OF_RUN = (RecoveryKind.CLEAR_RUN, RecoveryKind.CLEAR_RUN_DAY_LATER)
_AFTER_A_CRASH = (RecoveryKind.CLEAR_RUNNING, RecoveryKind.CLEAR_FAILED)
BY_ITSELF = frozenset({RecoveryKind.RETRY, RecoveryKind.GO_ON, RecoveryKind.CLEAR_RUNNING})
"""What happens without anybody having had to look first."""
_WHEN_ASKED_FOR = (RecoveryKind.MARK_SUCCESS,)
"""Whoever marks a task that has not run to its end accepts that its output is not whole: no profile tries it."""


def clear_of(recovery: RecoveryKind, task_id: str, map_index: int) -> Clear | None:
    """What a recovery from the death of a task clears; None if it clears nothing."""
    match recovery:
        case RecoveryKind.RETRY | RecoveryKind.GO_ON | RecoveryKind.MARK_SUCCESS:
            return None
        case RecoveryKind.CLEAR_RUNNING:
            return Clear(task_ids=((task_id, map_index) if map_index >= 0 else task_id,), only_running=True)
        case RecoveryKind.CLEAR_TASK:
            return Clear(task_ids=(task_id,))
        case RecoveryKind.CLEAR_INDEX:
            return Clear(task_ids=((task_id, map_index),))
        case RecoveryKind.CLEAR_DOWNSTREAM:
            return Clear(task_ids=(task_id,), downstream=True)
        case RecoveryKind.CLEAR_UPSTREAM:
            return Clear(task_ids=(task_id,), upstream=True)
        case RecoveryKind.CLEAR_BOTH_WAYS:
            return Clear(task_ids=(task_id,), upstream=True, downstream=True)
        case RecoveryKind.CLEAR_FAILED:
            return Clear(only_failed=True)
        case _:
            return Clear()


def after_crash(
    dag: DagInfo,
    task_id: str,
    map_index: int,
    *,
    may_retry: bool,
    profile: Profile,
    chosen: Sequence[RecoveryKind],
) -> tuple[RecoveryKind, ...]:
    """The recoveries from a crash of a task: those chosen, else those of the profile; of alike ones only the first."""
    retry = (RecoveryKind.RETRY,) if may_retry else ()
    if not chosen and profile is Profile.FAST:
        return retry or (RecoveryKind.CLEAR_DOWNSTREAM,)
    more = profile is Profile.THOROUGH
    tried = (*_OF_TASK, *OF_RUN, *((*_OF_TASK_THOROUGH, *_AFTER_A_CRASH) if more else ()))
    wanted = chosen or tried
    ordered = (*_OF_TASK, *OF_RUN, *_OF_TASK_THOROUGH, *_AFTER_A_CRASH, *_WHEN_ASKED_FOR)
    kept = [recovery for recovery in ordered if recovery in wanted]
    return (
        *(recovery for recovery in retry if recovery in (chosen or retry)),
        *different(dag, task_id, map_index, kept),
    )


def after_fault(
    kind: CrashKind,
    dag: DagInfo,
    attempt: Attempt,
    *,
    profile: Profile,
    chosen: Sequence[RecoveryKind],
) -> tuple[RecoveryKind, ...]:
    """The recoveries from what befell an attempt: few, for kills have shown what differs between them."""
    narrow = profile if profile is Profile.THOROUGH else Profile.FAST
    found = after_crash(
        dag,
        attempt.task_id,
        attempt.map_index,
        may_retry=attempt.may_retry,
        profile=narrow,
        chosen=chosen,
    )
    found = tuple(recovery for recovery in found if recovery is not RecoveryKind.CLEAR_RUNNING)
    if kind is CrashKind.ZOMBIE:
        return found[:1]
    if kind is CrashKind.ERROR_EACH_TRY:
        return tuple(recovery for recovery in found if recovery is not RecoveryKind.RETRY)
    return (*((RecoveryKind.GO_ON,) if not chosen or RecoveryKind.GO_ON in chosen else ()), *found)


def after_success(
    dag: DagInfo, task_id: str, profile: Profile, chosen: Sequence[RecoveryKind]
) -> tuple[RecoveryKind, ...]:
    """The clears of a task after its run has ended well; of alike ones only the first."""
    more = profile is Profile.THOROUGH or bool(chosen)
    kept = [r for r in (*_OF_TASK, *(_OF_TASK_THOROUGH if more else ())) if not chosen or r in chosen]
    of_run = [recovery for recovery in OF_RUN if not chosen or recovery in chosen]
    # What clears as much as the whole run is left to the clear of the run only if that is tried.
    found = different(dag, task_id, -1, [*kept, *of_run])
    return tuple(recovery for recovery in found if recovery not in OF_RUN)


def different(
    dag: DagInfo, task_id: str, map_index: int, recoveries: Collection[RecoveryKind]
) -> Iterator[RecoveryKind]:
    """Those that certainly clear the same tasks as an earlier one left out.

    Airflow adds setups and teardowns to both alike. What else may be the same shows when it is run: the world that
    a clear leaves is then one that is known.
    """
    selected: set[object] = set()
    for recovery in recoveries:
        selection = _selection(dag, task_id, map_index, recovery)
        if selection is not None and selection not in selected:
            selected.add(selection)
            yield recovery


def _selection(dag: DagInfo, task_id: str, map_index: int, recovery: RecoveryKind) -> object:
    """What tells a clear from others; None if there is nothing that it could clear."""
    clear = clear_of(recovery, task_id, map_index)
    if recovery is RecoveryKind.CLEAR_INDEX and map_index < 0:
        return None
    if (
        clear is None
        or clear.only_failed
        or clear.only_running
        or recovery in (OF_RUN[1], RecoveryKind.CLEAR_INDEX)
    ):
        return recovery
    if not clear.task_ids:
        return frozenset(task.task_id for task in dag.tasks)
    downstream = {task.task_id: task.downstream for task in dag.tasks}
    upstream = {
        task_id: tuple(other for other, below in downstream.items() if task_id in below)
        for task_id in downstream
    }
    found = {task_id}
    found |= _reached(task_id, downstream) if clear.downstream else set()
    found |= _reached(task_id, upstream) if clear.upstream else set()
    return frozenset(found)


def _reached(task_id: str, following: dict[str, tuple[str, ...]]) -> set[str]:
    found: set[str] = set()
    waiting = [task_id]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += following.get(current, ())
    return found
