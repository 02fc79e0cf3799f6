"""What a power loss may leave of files that were not synced. Pure functions over a recording.

The model is that of journaling file systems such as ext4 and XFS, as two studies found them: ALICE (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014: what is appended may be missing or be zeros behind a size that is already there,
and a rename or unlink may come before the data) and CrashMonkey (Mohan et al., OSDI 2018: few operations are enough to
show most bugs). What counts as synced is what fsync(2) promises: the content of the file, and its name only if the folder
is synced too; the way to a synced folder is durable, for these file systems commit it with the folder. Airflow's metadata
database syncs each commit: it loses nothing.

Of all mixtures of old and new that are possible, a few are tried at each point:

    lost         all that was not synced is as it was when it was synced last, names too
    names-only   names are there (files made, renamed, removed, emptied), the content that was not synced is not
    zeros        so are sizes, and what was not synced is zeros, of a long content its second half
    no-names     content is there, names that were not synced are not
    without:PATH the content of one file alone is not there

Only what the attempt itself has done is at risk: what others did before is told where they are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..model import CrashPoint, CrashState, Effect, Files, Node, NodeKind, Recording, Splice
from .fold import Fold

SYNC = "sync"
"""The kind of effect that makes durable what stands at its target, of no target everything."""
_BLOCK = 4096
_ALONE = 4
"""Files whose content is lost alone at one point: the first ones and the last."""

_Content = Callable[["_Inode"], "Node | None"]


@dataclass(slots=True, eq=False)
class _Inode:
    """A file, whatever it is called."""

    now: Node
    synced: Node | None
    """As it was synced last; None: never."""
    is_of_project: bool = False
    """Whether what was synced last is the project's own file, that is, nothing of ours."""
    least: int = 0
    """The least size that it has had since, in bytes."""

    @property
    def is_at_risk(self) -> bool:
        """Whether a power loss changes its content."""
        return self.now.kind is NodeKind.FILE and self.synced != self.now

    def sync(self) -> None:
        self.synced, self.is_of_project, self.least = self.now, False, len(self.now.content)


class _Disk:
    """The files, and what of them is durable."""

    def __init__(self, files: Files) -> None:
        self.names = {path: _Inode(node, node, least=len(node.content)) for path, node in files.items()}
        self.synced_names = dict(self.names)

    # --- what happens -------------------------------------------------------------------------

    def apply(self, effect: Effect) -> None:
        """Take a change in."""
        if effect.kind == SYNC:
            self._sync(effect.target)
        elif effect.kind == "rename":
            self._rename(effect)
        else:
            for path, value in effect.files:
                self._change(effect.kind, path, value)
        if effect.kind == "commit":  # SQLite has synced what it speaks of
            for path, _ in effect.files:
                self.names[path].sync()
                self._sync_name(path)

    def sync_all(self) -> None:
        """Make everything durable."""
        for inode in self.names.values():
            inode.sync()
        self.synced_names = dict(self.names)

    def _sync(self, path: str) -> None:
        inode = self.names.get(path)
        if not path:
            self.sync_all()
        elif inode is not None and inode.now.kind is not NodeKind.DIRECTORY:
            inode.sync()
        else:
            within = path.rstrip("/") + "/"
            for name in {*self.names, *self.synced_names}:
                if path == name or _folder(name) == path or within.startswith(name + "/"):
                    self._sync_name(name)

    def _sync_name(self, path: str) -> None:
        if path in self.names:
            self.synced_names[path] = self.names[path]
        else:
            self.synced_names.pop(path, None)

    def _rename(self, effect: Effect) -> None:
        gone = {path for path, value in effect.files if not _is_there(value)}
        source = min(gone, key=len, default="")
        came = {path: value for path, value in effect.files if _is_there(value)}
        moved = {path: self.names.get(source + path.removeprefix(effect.target)) for path in came}
        for path, value in effect.files:
            if path in gone:
                self._change(effect.kind, path, value)
        for path, value in came.items():
            inode = moved[path]
            if inode is None and isinstance(
                value, Node
            ):  # the project's own: it was durable under its old name
                inode = _Inode(value, value, least=len(value.content))
            if inode is not None:
                self.names[path] = inode

    def _change(self, kind: str, path: str, value: Node | Splice | None) -> None:
        inode = self.names.get(path)
        match value:
            case None:
                self.names.pop(path, None)
            case Splice():
                assert inode is not None, "a change within a file follows one of all of it"
                fold = Fold({path: inode.now}, {})
                fold.apply(Effect(kind=kind, target=path, files=((path, value),)))
                inode.now = fold.files[path]
                if len(value.data) < value.removed:
                    inode.least = min(inode.least, value.offset + len(value.data))
            case Node() if inode is not None and _is_there(inode.now) and _is_there(value):
                inode.now = value
            case Node():
                is_of_project = kind in ("write", "truncate", "chmod", "utime") or not _is_there(value)
                is_small = value.kind is not NodeKind.FILE
                self.names[path] = _Inode(value, value if is_small else None, is_of_project=is_of_project)

    # --- what a power loss leaves -------------------------------------------------------------

    def losses(self) -> Iterator[tuple[str, dict[str, Node]]]:
        """What may be left, by the name of what is lost, the most likely first."""
        at_risk = self._at_risk()
        has_names = self.names != self.synced_names
        if not at_risk and not has_names:
            return
        yield "lost", _files(self.synced_names, _last_synced)
        yield "names-only", _files(self.names, _cut_off)
        yield "zeros", _files(self.names, _zeros)
        yield "no-names", _files(self.synced_names, _current)
        for path, inode in _ends(at_risk) if len(at_risk) > 1 else ():
            yield f"without:{path}", _files(self.names, _of_one(inode))

    def _at_risk(self) -> list[tuple[str, _Inode]]:
        return [(path, inode) for path, inode in self.names.items() if inode.is_at_risk]

    def files(self) -> dict[str, Node]:
        """What is there as long as the power is."""
        return _files(self.names, _current)


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _is_there(value: Node | Splice | None) -> bool:
    return isinstance(value, Splice) or (value is not None and value.kind is not NodeKind.ABSENT)


def _ends(found: Sequence[tuple[str, _Inode]]) -> Sequence[tuple[str, _Inode]]:
    return found if len(found) <= _ALONE else (*found[: _ALONE - 1], found[-1])


def _files(names: Mapping[str, _Inode], content: _Content) -> dict[str, Node]:
    found = {path: content(inode) for path, inode in names.items()}
    return {path: node for path, node in found.items() if node is not None}


def _with(node: Node, content: bytes) -> Node:
    return Node(kind=node.kind, content=content, mode=node.mode, mtime=node.mtime)


def _current(inode: _Inode) -> Node | None:
    return inode.now


def _last_synced(inode: _Inode) -> Node | None:
    if inode.is_of_project:
        return None
    return inode.synced or _with(inode.now, b"")


def _cut_off(inode: _Inode) -> Node | None:
    """Being emptied is a matter of sizes, which come before content."""
    if not inode.is_at_risk:
        return inode.now
    if inode.synced is None:
        return _with(inode.now, b"")
    return _with(inode.now, inode.synced.content[: inode.least])


def _zeros(inode: _Inode) -> Node | None:
    if not inode.is_at_risk:
        return inode.now
    content = inode.now.content
    same = 0 if inode.synced is None else len(_shared_start(inode.synced.content[: inode.least], content))
    kept = same + (len(content) - same) // 2 // _BLOCK * _BLOCK
    return _with(inode.now, content[:kept] + bytes(len(content) - kept))


def _shared_start(one: bytes, other: bytes) -> bytes:
    return one if other.startswith(one) else b""


def _of_one(lost: _Inode) -> _Content:
    return lambda inode: _cut_off(inode) if inode is lost else inode.now


# --- crash states -----------------------------------------------------------------------------


def power_states(
    recording: Recording, attempt: int, points: Iterable[CrashPoint], killed: Iterable[CrashState]
) -> tuple[CrashState, ...]:
    """What a power loss may leave at the points and right after the attempt's end was recorded; nothing that a kill leaves too.

    `points` are some of the attempt's, in the order of execution.
    """
    seen: set[object] = {_key(state.world.files, _rows_until(recording, state.point)) for state in killed}
    disk, fold, done = _Disk(recording.initial.files), Fold({}, recording.initial.rows), 0
    start = next(i for i, effect in enumerate(recording.effects) if effect.attempt == attempt)
    states: list[CrashState] = []
    for point in (*points, *_end(recording, attempt)):
        for index in range(done, point.effect + 1):
            if index == start:
                disk.sync_all()
            disk.apply(recording.effects[index])
            fold.apply(Effect(kind="", target="", rows=recording.effects[index].rows))
        done = point.effect + 1
        rows = _rows_until(recording, point)
        seen.add(_key(disk.files(), rows))
        for name, files in disk.losses():
            key = _key(files, rows)
            if key not in seen:
                seen.add(key)
                states.append(_state(recording, point, name, files, disk, fold))
    return tuple(states)


def _end(recording: Recording, attempt: int) -> Iterator[CrashPoint]:
    """The point at which the attempt's success is recorded, and nobody will run it again."""
    last = max(i for i, effect in enumerate(recording.effects) if effect.attempt == attempt)
    effect = recording.effects[last]
    if effect.kind == "state" and recording.outcome.attempts[attempt].state == "success":
        found = recording.outcome.attempts[attempt]
        place = found.task_id if found.map_index < 0 else f"{found.task_id}[{found.map_index}]"
        yield CrashPoint(name=f"{place}@state:{effect.target}", attempt=attempt, effect=last, has_ended=True)


def _state(
    recording: Recording, point: CrashPoint, name: str, files: Files, disk: _Disk, fold: Fold
) -> CrashState:
    started = recording.outcome.attempts[point.attempt].started
    named = CrashPoint(
        name=f"{point.name}+{name}",
        attempt=point.attempt,
        effect=point.effect,
        has_ended=point.has_ended,
        loss=_told(disk.files(), files),
    )
    world = fold.state(started)
    return CrashState(
        point=named, world=type(world)(files=files, rows=world.rows, clock=world.clock), covers=1
    )


def _told(whole: Files, left: Files) -> str:
    """What is lost, in words; folders only if nothing else is."""
    changed = [path for path in sorted({*whole, *left}) if whole.get(path) != left.get(path)]
    changed = [path for path in changed if not _is_folder(whole.get(path) or left.get(path))] or changed
    return ", ".join(f"{path} ({_what_is_left(whole.get(path), left.get(path))})" for path in changed)


def _is_folder(node: Node | None) -> bool:
    return node is not None and node.kind is NodeKind.DIRECTORY


def _what_is_left(whole: Node | None, left: Node | None) -> str:
    if left is None or left.kind is NodeKind.ABSENT:
        return "not there"
    if whole is None or whole.kind is NodeKind.ABSENT:
        return "there again"
    if not left.content:
        return "empty"
    return "zeros" if left.content.endswith(b"\0") else "as before"


def _rows_until(recording: Recording, point: CrashPoint) -> int:
    """A number that tells the state of Airflow's database: the last effect that changed it."""
    until = point.effect - 1 if point.is_torn else point.effect
    return next((i for i in range(until, -1, -1) if recording.effects[i].rows), -1)


def _key(files: Files, rows: int) -> object:
    return rows, frozenset(files.items())
