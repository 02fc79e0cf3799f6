"""Which attempts of a run are crashed: of those that did alike, some stand for all. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TypeVar

from ..model import DagInfo, Effect, Profile, Recording, TaskInfo

Member = TypeVar("Member")


_ALL = 4
"""So many attempts are crashed though they are alike."""


def representatives(group: Sequence[Member]) -> tuple[Member, ...]:
    """Of alike ones the first, second, middle and last, in order."""
    last = len(group) - 1
    return tuple(group[pick] for pick in sorted({0, 1, last // 2, last}) if pick <= last)


def stand_ins(dag: DagInfo, recording: Recording, profile: Profile) -> dict[int, tuple[int, ...]]:
    """By the index of each attempt of the run under test, those that are crashed for it, itself among them if it is: in
    `thorough` each for itself.

    Attempts are alike if they made the same kinds of change from the same lines in the same order: the instances of a
    mapped task, and tasks that a loop makes of the same code.
    """
    attempts = recording.outcome.attempts
    own = [index for index, attempt in enumerate(attempts) if attempt.run == recording.run]
    if profile is Profile.THOROUGH:
        return {index: (index,) for index in own}
    tasks = {task.task_id: task for task in dag.tasks}
    changes: defaultdict[int, list[Effect]] = defaultdict(list)
    for effect in recording.effects:
        if effect.attempt is not None:
            changes[effect.attempt].append(effect)
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in own:
        attempt = attempts[index]
        conduct = (attempt.state, attempt.may_retry, attempt.heeds)
        groups[conduct, _code_of(tasks[attempt.task_id], changes[index])].append(index)
    return {
        index: representatives(group) if len(group) > _ALL else tuple(group)
        for group in groups.values()
        for index in group
    }


def _code_of(task: TaskInfo, changes: Sequence[Effect]) -> Hashable:
    """By what an attempt's code is known: the lines that made changes.

    Where a library made one for itself, what it was told to do is not known, nor is what changed nothing: such a task is
    like no other one.
    """
    made = tuple((effect.kind, effect.stack, effect.is_parse) for effect in changes)
    by_library = any(effect.files and not effect.stack for effect in changes)
    is_known = any(effect.stack and not effect.is_parse for effect in changes) and not by_library
    settings = (task.operator, task.retries, task.calls_back)
    return (made, settings) if is_known else (made, settings, task.task_id)
