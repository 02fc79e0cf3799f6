"""Which outputs of a DAG count, and in which the order of records does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from ..model import Outcome, Output
from .packed import unpacked

Outputs = Mapping[str, Output]

_TEMPORARY = re.compile(r"[a-z0-9]{5}_zq")
"""What `world.entropy` lets Python's tempfile name files by: a kill leaves them behind, and nobody reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """Which outputs count."""

    only: tuple[str, ...] = ()
    """Paths, folders, globs or output names; empty: all."""
    ignore: tuple[str, ...] = ()
    """Globs over paths, names of files, or output names."""
    unordered: tuple[str, ...] = ()
    """Outputs whose records may stand in any order, in the same words."""
    xcoms: frozenset[str] | None = None
    """XComs that a task other than the one that pushes them reads, `task_id/key`; None: not known yet, all count."""

    def with_xcoms_of(self, outcome: Outcome) -> Counting:
        """The same, but of XComs only those that a run's tasks read: the others are for people, as a log is."""
        read = {
            name
            for attempt in outcome.attempts
            for name in attempt.xcom_reads
            if name.partition("/")[0] != attempt.task_id
        }
        return replace(self, xcoms=frozenset(read))

    def select(self, outputs: Outputs) -> dict[str, Output]:
        """Those that count, with what they hold where they are packed."""
        return {name: unpacked(output) for name, output in outputs.items() if self.counts(name)}

    def is_unordered(self, name: str) -> bool:
        """Whether the order of its records does not count."""
        return any(_is_within(name.removeprefix("file:"), chosen) for chosen in self.unordered)

    def counts(self, name: str) -> bool:
        """Whether one does."""
        path = name.removeprefix("file:")
        if _TEMPORARY.search(path) or any(_matches(path, pattern) for pattern in self.ignore):
            return False
        if self.only:
            return any(_is_within(path, chosen) for chosen in self.only)
        return self.xcoms is None or not name.startswith("xcom:") or _unmapped(name) in self.xcoms


def _unmapped(name: str) -> str:
    """`task_id/key` of the name of an XCom's output."""
    place, _, key = name.removeprefix("xcom:").partition("/")
    return f"{place.partition('[')[0]}/{key}"


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path.rpartition("/")[2], pattern)


def _is_within(path: str, chosen: str) -> bool:
    return path == chosen or path.startswith(chosen.rstrip("/") + "/") or _matches(path, chosen)
