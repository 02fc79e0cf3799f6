"""What code has seen of the file system: only that can make it do something else the next time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

from pytest_rerunsafe.model import Files, NodeKind

Times = Mapping[str, tuple[int, int]]
"""When the files that differ from the mounted ones were accessed and changed last, in nanoseconds."""


class Aspect(IntFlag):
    """What can be seen of a path."""

    FORM = 1
    """What stands there, if anything: kind, permissions, where a link leads."""
    CONTENT = 2
    STATUS = 4
    """Size and times; of a directory, the number of names in it."""
    NAMES = 8
    """What is in a directory."""
    ALL = 15


class View:
    """The files at one moment, as they can be seen. What was mounted never changes, so that it needs no telling."""

    def __init__(self, files: Files, times: Times) -> None:
        self._files = files
        self._times = times

    def values(self, aspects: Mapping[str, Aspect]) -> tuple[object, ...]:
        """What is seen of each path, in that order."""
        return tuple(self._value(path, seen) for path, seen in aspects.items())

    def _value(self, path: str, seen: Aspect) -> tuple[object, ...]:
        node = self._files.get(path)
        value: tuple[object, ...] = ()
        if node is not None:
            is_link = node.kind is NodeKind.LINK
            value = (node.kind, node.mode, node.content if is_link or Aspect.CONTENT in seen else None)
            if Aspect.STATUS in seen:
                value += (len(node.content), node.mtime, self._times.get(path))
        if seen & (Aspect.NAMES | Aspect.STATUS):
            value += (self._names.get(path),)
        return value

    @cached_property
    def _names(self) -> dict[str, list[tuple[str, bool]]]:
        """What is in each directory besides what is mounted there, and what no longer is."""
        found: dict[str, list[tuple[str, bool]]] = {}
        for path in sorted(self._files):
            is_gone = self._files[path].kind is NodeKind.ABSENT
            found.setdefault(os.path.dirname(path), []).append((path, is_gone))
        return found


class Reads:
    """Takes note of what is seen, path by path. To note too much is safe, to miss something is not."""

    def __init__(self) -> None:
        self.aspects: dict[str, Aspect] = {}
        self.is_whole = True
        """Whether nothing was seen that is not noted here."""
        self._own: set[str] = set()

    def see(self, path: str, aspects: Aspect) -> None:
        """Something of the path is seen."""
        if path in self._own:
            aspects = Aspect.FORM
        self.aspects[path] = self.aspects.get(path, Aspect(0)) | Aspect.FORM | aspects

    def overwrite(self, path: str) -> None:
        """What the file at the path held until now is never to be seen again."""
        if Aspect.CONTENT not in self.aspects.get(path, Aspect.ALL):
            self._own.add(path)

    def take_in(self, aspects: Mapping[str, Aspect]) -> None:
        """All of that is seen as well."""
        for path, seen in aspects.items():
            self.see(path, seen)

    def lose(self) -> None:
        """More is seen than can be noted."""
        self.is_whole = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen, to be compared with what would be now."""

    aspects: Mapping[str, Aspect]
    values: tuple[object, ...]

    def holds(self, view: View) -> bool:
        """Whether it would all be seen again."""
        return view.values(self.aspects) == self.values
