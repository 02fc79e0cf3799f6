"""Files that a crash left in the middle of a change, and who read them so. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..model import Attempt, CrashState, Effect, Node, NodeKind, Outcome, Recording, Splice
from .fold import apply_file_changes

_SQLITE = b"SQLite format 3\0"
"""How its files begin (https://sqlite.org/fileformat.html)."""


def digest(content: bytes | bytearray) -> str:
    """What tells a content from others."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file that was left unfinished, and that the rerun of the crashed task has read so."""

    path: str
    left: bytes
    whole: tuple[CrashState, ...]
    """The crash states with the file as it was before the change, and as it would have been after it."""


@dataclass(frozen=True, slots=True)
class _Version:
    """What an attempt makes of a file."""

    effect: int
    """The index of the change that made it; -1 for what stood there before."""
    kind: str
    node: Node | None


def damages(recording: Recording, state: CrashState, outcome: Outcome) -> Iterator[Damage]:
    """The files that a crash left empty, torn or garbled, and that the crashed task read so when it ran again."""
    crashed = recording.outcome.attempts[state.point.attempt]
    reads = _reads(crashed, outcome.attempts)
    for path, versions in _versions(recording, state.point.attempt, reads).items():
        node = state.world.files.get(path)
        if node is None or node.kind is not NodeKind.FILE or reads[path] != digest(node.content):
            continue
        before, after = _around(state, versions)
        if not after or _is_whole(node, after) or _is_database(after):
            continue
        whole = (_last_whole(before, after), next((v for v in after if _is_whole_at(v, after)), after[-1]))
        states = (_with(state, path, version.node) for version in whole)
        yield Damage(path=path, left=node.content, whole=tuple(states))


def _reads(crashed: Attempt, attempts: Sequence[Attempt]) -> Mapping[str, str]:
    """What the first attempt of the crashed task after the crash has read."""
    place = (crashed.run, crashed.task_id, crashed.map_index)
    return next((a.first_reads for a in attempts if (a.run, a.task_id, a.map_index) == place), {})


def _versions(recording: Recording, attempt: int, paths: Mapping[str, str]) -> dict[str, list[_Version]]:
    """What stood at each path before the attempt and after each of its changes, if it has changed it."""
    files = dict(recording.initial.files)
    found: dict[str, list[_Version]] = {}
    for index, effect in enumerate(recording.effects):
        mine = [path for path, _ in effect.files if path in paths] if effect.attempt == attempt else []
        for path in mine:
            found.setdefault(path, [_Version(-1, "", files.get(path))])
        apply_file_changes(files, effect.files)
        for path in mine:
            found[path].append(_Version(index, _kind(effect, path), files.get(path)))
    return found


def _kind(effect: Effect, path: str) -> str:
    """`write` or `truncate` for a change inside the file, else empty: another file stands there."""
    change = dict(effect.files)[path]
    is_inside = isinstance(change, Splice) or effect.kind in ("write", "truncate")
    return effect.kind if is_inside else ""


def _around(state: CrashState, versions: Sequence[_Version]) -> tuple[list[_Version], list[_Version]]:
    """The versions up to a crash, and those that it kept from being made."""
    last = state.point.effect - state.point.is_torn
    return [v for v in versions if v.effect <= last], [v for v in versions if v.effect > last]


def _last_whole(before: Sequence[_Version], after: Sequence[_Version]) -> _Version:
    every = [*before, *after]
    whole = (every[i] for i in reversed(range(len(before))) if _is_whole(every[i].node, every[i + 1 :]))
    return next(whole, every[0])


def _is_whole_at(version: _Version, versions: Sequence[_Version]) -> bool:
    return _is_whole(version.node, versions[versions.index(version) + 1 :])


def _is_whole(node: Node | None, following: Sequence[_Version]) -> bool:
    """Whether a file is no half of what is being made of it: so it may stand there for long."""
    if node is None or not following or following[0].node is None:
        return True
    if not node.content:
        return not following[0].node.content
    if not following[0].kind:
        return True
    if following[0].kind == "truncate":
        # Emptied, it is written anew; cut, it was overwritten by something shorter.
        return not following[0].node.content
    end = _end_of_writes(following)
    if _is_json(end):
        return _is_json(node.content)
    return node.content.endswith(b"\n") or not following[0].node.content.startswith(node.content)


def _is_database(versions: Sequence[_Version]) -> bool:
    """Whether a file becomes a database: that is whole after each commit, and before the first it is an empty one."""
    return any(version.node is not None and version.node.content.startswith(_SQLITE) for version in versions)


def _end_of_writes(following: Sequence[_Version]) -> bytes:
    content = b""
    for version in following:
        if version.kind != "write" or version.node is None:
            break
        content = version.node.content
    return content


def _is_json(content: bytes) -> bool:
    if content.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _with(state: CrashState, path: str, node: Node | None) -> CrashState:
    files = {other: kept for other, kept in state.world.files.items() if other != path}
    if node is not None:
        files[path] = node
    return replace(state, world=replace(state.world, files=files))
