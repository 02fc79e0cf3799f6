"""Crash points of a recording, the distinct states they leave, and which of those are worth a recovery. Pure functions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..model import CrashPoint, CrashState, Effect, Node, Profile, Recording, RunKey, Splice, WorldState
from .fold import Fold, torn
from .jobs import BEGINS_S
from .power import SYNC, power_states
from .promise import alike, is_marker_write
from .representatives import representatives

_UNREAD_TABLES = frozenset({"log", "rendered_task_instance_fields"})
"""Tables of the metadata database that nothing reads but the user interface."""

_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """The crash states of one attempt."""

    states: tuple[CrashState, ...]
    """Those chosen, in the order of execution."""
    distinct: int
    after_success: tuple[CrashState, ...] = ()
    """What stands when the success is recorded, and nobody will run the task again, while more is still to come."""
    after_power_loss: tuple[CrashState, ...] = ()
    """What a power loss leaves, and no kill does."""


def crash_points(recording: Recording, attempt: int) -> tuple[CrashPoint, ...]:
    """Every instant of an attempt at which the worker can die, from the one at which it was recorded as running.

    Numbers go on from attempt to attempt of a task instance, so that no two of a run's points have the same name.
    """
    task_id, map_index = _instance(recording, attempt)[1:]
    place = task_id if map_index < 0 else f"{task_id}[{map_index}]"
    seen: Counter[tuple[str, str]] = Counter()
    points: list[CrashPoint] = []
    for index in _effects_until(recording, attempt):
        effect = recording.effects[index]
        seen[effect.kind, effect.target] += 1
        if effect.attempt != attempt or effect.kind == SYNC:
            continue
        name = f"{place}@{effect.kind}:{effect.target}#{seen[effect.kind, effect.target]}"
        if torn(effect) is not None:
            points.append(CrashPoint(name=f"{name}+torn", attempt=attempt, effect=index, is_torn=True))
        points.append(CrashPoint(name=name, attempt=attempt, effect=index))
    return tuple(points)


def _instance(recording: Recording, attempt: int) -> tuple[RunKey, str, int]:
    """The task instance that an attempt is of."""
    found = recording.outcome.attempts[attempt]
    return found.run, found.task_id, found.map_index


def _effects_until(recording: Recording, attempt: int) -> list[int]:
    """Indices of the effects of an attempt, and of those before it of its task instance, each up to, not including, the
    one that recorded the attempt's end.
    """
    instance = _instance(recording, attempt)
    running = {other for other in range(attempt + 1) if _instance(recording, other) == instance}
    started: set[int] = set()
    indices: list[int] = []
    for index, effect in enumerate(recording.effects):
        if effect.attempt is None or effect.attempt not in running:
            continue
        if effect.attempt in started and effect.kind == "state":
            running.discard(effect.attempt)
            continue
        started.add(effect.attempt)
        indices.append(index)
    return indices


def explore(recording: Recording, attempt: int, profile: Profile) -> Exploration:
    """The distinct states that a crash of the attempt can leave, those that the profile asks for."""
    points = crash_points(recording, attempt)
    distinct = _distinct(recording, points)
    chosen = _choose(recording.effects, tuple(distinct), profile)
    numbers = {point: number for number, point in enumerate(distinct)}
    started = recording.outcome.attempts[attempt].started
    states = tuple(
        CrashState(point=point, world=fold.state(started), covers=distinct[point], number=numbers[point])
        for point, fold in _folds(recording, chosen)
    )
    lost: tuple[CrashState, ...] = ()
    if profile is Profile.THOROUGH:
        points = _choose(recording.effects, tuple(distinct), Profile.DEFAULT)
        lost = power_states(recording, attempt, [point for point in points if not point.is_torn], states)
    after = _choose(
        recording.effects, tuple(_distinct(recording, points_after_success(recording, attempt))), profile
    )
    ended = tuple(
        CrashState(point=point, world=fold.state(started), covers=1, number=len(distinct) + number)
        for number, (point, fold) in enumerate(_folds(recording, after))
    )
    return Exploration(states=states, distinct=len(distinct), after_success=ended, after_power_loss=lost)


def distinct_states(recording: Recording, attempt: int) -> int:
    """How many distinct states a crash of the attempt can leave."""
    return len(_distinct(recording, crash_points(recording, attempt)))


def points_after_success(recording: Recording, attempt: int) -> tuple[CrashPoint, ...]:
    """The instants after which nothing runs an attempt again although it was not done: callbacks run after its success.

    None if nothing comes after the success.
    """
    if recording.outcome.attempts[attempt].state != "success":
        return ()
    mine = [
        index
        for index, effect in enumerate(recording.effects)
        if effect.attempt == attempt and effect.kind != SYNC
    ]
    end = next((i for i in mine[1:] if recording.effects[i].kind == "state"), mine[-1])
    late = [index for index in mine if index > end and recording.effects[index].kind != "state"]
    task_id, map_index = _instance(recording, attempt)[1:]
    place = task_id if map_index < 0 else f"{task_id}[{map_index}]"
    seen: Counter[tuple[str, str]] = Counter(
        (recording.effects[index].kind, recording.effects[index].target) for index in mine if index < end
    )
    points = []
    for index in (end, *late[:-1]) if late else ():
        effect = recording.effects[index]
        seen[effect.kind, effect.target] += 1
        name = f"{place}@{effect.kind}:{effect.target}#{seen[effect.kind, effect.target]}"
        points.append(CrashPoint(name=name, attempt=attempt, effect=index, has_ended=True))
    return tuple(points)


def before(recording: Recording, attempt: int) -> WorldState:
    """The world when a worker could have the task, just before the attempt."""
    fold = Fold(recording.initial.files, recording.initial.rows)
    for effect in recording.effects:
        if effect.attempt == attempt:
            break
        fold.apply(effect)
    return fold.state(recording.outcome.attempts[attempt].started - timedelta(seconds=BEGINS_S))


def faulty(recording: Recording, states: Sequence[CrashState], profile: Profile) -> tuple[CrashState, ...]:
    """The crash states whose last change code of the project makes, so that it can notice what befalls it there.

    Unless all are asked for, of those with the same call stack and kind of change the first and the last: what handles a
    failure is the same for all of a loop.
    """
    alike: dict[object, list[CrashState]] = {}
    for state in states:
        effect = recording.effects[state.point.effect]
        if effect.stack and effect.nth and not effect.is_parse and not state.point.is_torn:
            alike.setdefault((effect.kind, effect.stack), []).append(state)
    if profile is Profile.THOROUGH:
        chosen = {id(state) for group in alike.values() for state in group}
    else:
        chosen = {id(state) for group in alike.values() for state in (group[0], group[-1])}
    return tuple(state for state in states if id(state) in chosen)


def state_at(recording: Recording, point: CrashPoint) -> CrashState:
    """What a crash at a point of an attempt leaves."""
    ((_, fold),) = _folds(recording, [point])
    started = recording.outcome.attempts[point.attempt].started
    return CrashState(point=point, world=fold.state(started), covers=1)


def _folds(recording: Recording, points: Iterable[CrashPoint]) -> Iterable[tuple[CrashPoint, Fold]]:
    """Each point with the fold that stands there; points in the order of execution."""
    fold = Fold(recording.initial.files, recording.initial.rows)
    done = 0
    for point in points:
        last = point.effect - 1 if point.is_torn else point.effect
        for effect in recording.effects[done : last + 1]:
            fold.apply(effect)
        done = max(done, last + 1)
        yield point, _with_torn(fold, recording.effects[point.effect]) if point.is_torn else fold


def _with_torn(fold: Fold, effect: Effect) -> Fold:
    copy = Fold(fold.files, fold.rows)
    half = torn(effect)
    assert half is not None, "a torn point stands on an effect that can tear"
    copy.apply(half)
    return copy


def _distinct(recording: Recording, points: Sequence[CrashPoint]) -> Mapping[CrashPoint, int]:
    """The first point of each distinct state, with the number of points that leave it."""
    first: dict[int, CrashPoint] = {}
    covers: dict[CrashPoint, int] = {}
    identity = _Identity(recording.initial)
    done = 0
    for point in points:
        last = point.effect - 1 if point.is_torn else point.effect
        for effect in recording.effects[done : last + 1]:
            identity.apply(effect)
        done = max(done, last + 1)
        half = torn(recording.effects[point.effect]) if point.is_torn else None
        found = first.setdefault(identity.after(half) if half else identity.total, point)
        covers[found] = covers.get(found, 0) + 1
    return covers


class _Identity:
    """A number that tells states apart, kept up to date effect by effect: the sum of a digest per row, file and block.

    Blocks, so that an appended line costs as much in a long file as in a short one.
    """

    def __init__(self, initial: WorldState) -> None:
        self._fold = Fold(initial.files, initial.rows)
        self._digests: dict[object, int] = {}
        self._blocks: dict[str, int] = {}
        self.total = 0
        for path, node in self._fold.files.items():
            self._renew_file(path, node)

    def apply(self, effect: Effect) -> None:
        """Take the effect in."""
        self._fold.apply(effect)
        for path, change in effect.files:
            self._renew_file(path, self._fold.files.get(path), *_blocks_of(change))
        for key, row in effect.rows:
            if key[0] not in _UNREAD_TABLES:
                self._renew(key, row)

    def after(self, effect: Effect) -> int:
        """The number of the state that one more effect would make."""
        copy = _Identity.__new__(_Identity)
        copy._fold = Fold(self._fold.files, {})
        copy._digests, copy._blocks, copy.total = dict(self._digests), dict(self._blocks), self.total
        copy.apply(effect)
        return copy.total

    def _renew_file(self, path: str, node: Node | None, first: int = 0, last: int | None = None) -> None:
        """Take in what a file holds from one block on, to another if all others are as they were."""
        self._renew((path, None), None if node is None else (node.kind, node.mode))
        content = b"" if node is None else node.content
        count = -(-len(content) // _BLOCK)
        end = max(count, self._blocks.get(path, 0)) if last is None else last + 1
        for block in range(first, end):
            data = content[block * _BLOCK : (block + 1) * _BLOCK]
            self._renew((path, block), data or None)
        self._blocks[path] = count

    def _renew(self, key: object, value: object) -> None:
        self.total -= self._digests.pop(key, 0)
        if value is not None:
            digest = hashlib.blake2b(repr((key, value)).encode(), digest_size=16).digest()
            self._digests[key] = int.from_bytes(digest, "big")
            self.total += self._digests[key]


def _blocks_of(change: Node | Splice | None) -> tuple[int, int | None]:
    """The first and the last block that a change concerns; None: all from there on."""
    if not isinstance(change, Splice):
        return 0, None
    stays = len(change.data) == change.removed
    last = (change.offset + max(1, change.removed) - 1) // _BLOCK if stays else None
    return change.offset // _BLOCK, last


def _choose(
    effects: Sequence[Effect], points: Sequence[CrashPoint], profile: Profile
) -> tuple[CrashPoint, ...]:
    """Representatives: the ends of the attempt, and of alike points the first, second, middle and last.

    `fast`: of marker writes only, and only the last of alike ones, with the point before it.
    """
    if profile is Profile.THOROUGH:
        return tuple(points)
    wanted = {0, len(points) - 1} if points else set()
    for group in alike(effects, points):
        if profile is not Profile.FAST:
            wanted.update(representatives(group))
        elif marks := [position for position in group if is_marker_write(effects[points[position].effect])]:
            wanted |= {max(marks[-1] - 1, 0), marks[-1]}
    return tuple(points[position] for position in sorted(wanted))
