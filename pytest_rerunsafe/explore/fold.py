"""Builds states from effects: the fold of a recording. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ..model import (
    Effect,
    FileChange,
    Files,
    Node,
    Row,
    RowChange,
    RowKey,
    Rows,
    Splice,
    WorldState,
)

TEAR = 8192
"""Bytes of CPython's `io.DEFAULT_BUFFER_SIZE` before 3.15: a longer write may leave in pieces."""


class Fold:
    """A state that effects are applied to, one after the other."""

    def __init__(self, files: Files, rows: Rows) -> None:
        self.files: dict[str, Node] = dict(files)
        self.rows: dict[RowKey, Row] = dict(rows)

    def apply(self, effect: Effect) -> None:
        """Make the effect's change."""
        apply_file_changes(self.files, effect.files)
        apply_row_changes(self.rows, effect.rows)

    def state(self, clock: datetime) -> WorldState:
        """The state so far, as a value."""
        return WorldState(files=dict(self.files), rows=dict(self.rows), clock=clock)


def apply_file_changes(files: dict[str, Node], changes: Sequence[FileChange]) -> None:
    """Make changes to a mapping of files."""
    for path, value in changes:
        match value:
            case None:
                files.pop(path, None)
            case Splice():
                files[path] = _spliced(files[path], value)
            case Node():
                files[path] = value


def _spliced(node: Node, splice: Splice) -> Node:
    start, stop = splice.offset, splice.offset + splice.removed
    content = b"".join((node.content[:start], splice.data, node.content[stop:]))
    return Node(kind=node.kind, content=content, mode=node.mode, mtime=splice.mtime)


def apply_row_changes(rows: dict[RowKey, Row], changes: Sequence[RowChange]) -> None:
    """Make changes to a mapping of rows."""
    for key, row in changes:
        if row is None:
            rows.pop(key, None)
        else:
            rows[key] = row


def torn(effect: Effect) -> Effect | None:
    """The effect as it is when the machine stops in the middle of a long write; None if it has no middle.

    Half of it, in whole buffers, has become durable.
    """
    if effect.kind != "write":  # a rename is whole or not at all
        return None
    changes = tuple(_torn_change(change) for change in effect.files)
    return None if changes == effect.files else replace(effect, files=changes)


def _torn_change(change: FileChange) -> FileChange:
    path, value = change
    if isinstance(value, Splice) and len(value.data) > TEAR:
        data = value.data[: _half(len(value.data))]
        return path, replace(value, data=data, removed=min(value.removed, len(data)))
    return change


def _half(size: int) -> int:
    return max(TEAR, size // 2 // TEAR * TEAR)


def local_files(files: Files, local: Sequence[str]) -> Files:
    """Those at the local paths."""
    return {path: node for path, node in files.items() if _is_within(path, local)}


def _is_within(path: str, folders: Sequence[str]) -> bool:
    # The folders themselves are on every worker.
    return any(path.startswith(f"{folder}/") or path == folder for folder in folders)
