"""How likely a crash at a point is to do harm: what other code goes by, and in which order to try. Pure functions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ..model import CrashPoint, Effect, FileChange, Recording, Splice
from .fold import TEAR

_PLAIN = frozenset({"write", "mkdir", "chmod", "utime", "state", "skip", "xcom-delete", "schedule", "sync"})
"""Kinds of effect that nobody takes for a sign of anything."""
_MODEST = frozenset({"create", "write", "xcom"})
"""Kinds of effect that may be taken for a sign, and mostly are not."""
_MARKER = re.compile(
    r"(?i)(?:^|[^a-z])(?:_?success|done|ready|complete[d]?|finished|marker|flag|lock|ok|checkpoint|cursor|offset|position"
    r"|watermark|progress|state|manifest|latest|current|processed|seen)(?:[^a-z]|$)"
)
"""Names that say that something is complete, or how far it has come."""


def is_marker_write(effect: Effect) -> bool:
    """Whether other code can go by it: a name comes, goes or changes, a small file is written anew, Airflow stores a value.

    It is what is added to a file that stays that nobody goes by.
    """
    if effect.kind == "write":
        return any(map(_is_written_anew, effect.files))
    return effect.kind not in _PLAIN


def _is_written_anew(change: FileChange) -> bool:
    value = change[1]
    return not isinstance(value, Splice) or (value.offset == 0 and len(value.data) <= TEAR)


def alike(effects: Sequence[Effect], points: Iterable[CrashPoint]) -> tuple[tuple[int, ...], ...]:
    """The positions of the points with the same call stack and kind of effect, in groups.

    Pathfinder (OOPSLA 2025) found that alike call stacks leave states that fail alike.
    """
    groups: defaultdict[object, list[int]] = defaultdict(list)
    for position, point in enumerate(points):
        effect = effects[point.effect]
        groups[effect.kind, effect.stack, effect.is_parse, point.is_torn].append(position)
    return tuple(map(tuple, groups.values()))


def promise(recording: Recording, points: Sequence[CrashPoint]) -> tuple[tuple[int, int], ...]:
    """A key for each point by which to sort them, the most likely to do harm first.

    Those next to a marker, a checkpoint, a rename or a delete, then those next to any other marker write, then the rest;
    of each, the first of alike ones, then their last, second and middle.
    """
    turns = {
        position: turn
        for group in alike(recording.effects, points)
        for turn, position in reversed([*_turns(group)])
    }
    following = _following(recording)
    return tuple(
        (_rank([recording.effects[index] for index in _beside(point, following)]), turns[position])
        for position, point in enumerate(points)
    )


_LATER = 4


def _turns(group: Sequence[int]) -> Iterator[tuple[int, int]]:
    """When each of a group has its turn; the first one counts where there are several for one."""
    last = len(group) - 1
    for turn, pick in enumerate((0, last, min(1, last), last // 2)):
        yield turn, group[pick]
    yield from ((_LATER, position) for position in group)


def _following(recording: Recording) -> dict[int, int]:
    """The next effect of the same attempt after each effect, by index."""
    following: dict[int, int] = {}
    last: dict[int | None, int] = {}
    for index, effect in enumerate(recording.effects):
        if effect.attempt in last:
            following[last[effect.attempt]] = index
        last[effect.attempt] = index
    return following


def _beside(point: CrashPoint, following: dict[int, int]) -> list[int]:
    """The effects between which the worker dies."""
    after = [] if point.is_torn else [following.get(point.effect, point.effect)]
    return [point.effect, *after]


def _rank(beside: Sequence[Effect]) -> int:
    markers = [effect for effect in beside if is_marker_write(effect)]
    if any(effect.kind not in _MODEST or _MARKER.search(effect.target) for effect in markers):
        return 0
    return 1 if markers else 2
