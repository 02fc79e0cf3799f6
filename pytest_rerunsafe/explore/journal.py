"""Writes down what a run does: effects in order, attempts, obstacles. One journal per run."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import FrameType
from typing import Protocol

from ..model import Attempt, Effect, FileChange, Location, Obstacle, RowChange, RunKey
from .damage import digest
from .sources import Sources

_OF_START = ("state", "xcom-delete")
"""Kinds of effect that the start of an attempt has, whatever the task does."""


class Watcher(Protocol):
    """Who is told of each change of an attempt, with kind, target and number."""

    def coming(self, kind: str, target: str, nth: int) -> None:
        """It will be made; what this raises, the task gets instead."""

    def changed(self, kind: str, target: str, nth: int) -> None:
        """It has been made."""


@dataclass(slots=True, kw_only=True)
class OpenAttempt:
    """An attempt that still runs."""

    run: RunKey
    task_id: str
    map_index: int
    try_number: int
    started: datetime
    operator: str
    may_retry: bool = False
    is_opaque: bool = False
    has_exited: bool = False
    """Whether its process ended by itself, whatever its code made of that."""
    has_effects: bool = False
    """Whether the task has changed what Airflow knows, its own start aside."""
    failed_operations: list[str] = field(default_factory=list)
    first_reads: dict[str, str] = field(default_factory=dict)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often it was about to make a change, by kind and target."""
    watcher: Watcher | None = None
    is_given_up: bool = False
    """Whether Airflow has taken its worker for dead while it lived."""


class Journal:
    """What happened in one run."""

    def __init__(
        self, sources: Sources, capture: Callable[[], tuple[RowChange, ...]], keeps_effects: bool
    ) -> None:
        self._sources = sources
        self._capture = capture
        self.keeps_effects = keeps_effects
        self.effects: list[Effect] = []
        self.attempts: list[Attempt] = []
        self.obstacles: list[Obstacle] = []
        self.notes: list[Obstacle] = []
        """What keeps us from no verdict and yet was not seen."""
        self.by_callbacks: dict[str, Location] = {}
        """Where callbacks first changed files, by path."""
        self._tells_people = False
        self.current: OpenAttempt | None = None
        self.is_parse = False

    def coming(self, kind: str, target: str) -> None:
        """A store is about to make a change durable; raises what comes of that instead."""
        if self.current is None:
            return
        self.current.changes[kind, target] += 1
        if self.current.watcher is None:
            return
        try:
            self.current.watcher.coming(kind, target, self.current.changes[kind, target])
        except Exception:
            self.operation_failed(kind, target)
            raise

    def _changed(self, kind: str, target: str) -> None:
        if self.current is not None and self.current.watcher is not None:
            self.current.watcher.changed(kind, target, self.current.changes[kind, target])

    def file_changed(self, kind: str, target: str, changes: tuple[FileChange, ...]) -> None:
        """A file operation became durable."""
        if self._tells_people and (where := self.where(sys._getframe(1))) is not None:
            for path, _ in changes:
                self.by_callbacks.setdefault(path, where)
        if self.keeps_effects:
            stack = self._sources.stack(sys._getframe(1))
            self._add(kind, target, stack, files=changes)
            if changes and threading.current_thread() is not threading.main_thread():
                self._note_thread(kind, target, stack)
        self._changed(kind, target)

    def metadata_changed(self, kind: str, target: str) -> None:
        """Airflow's server has committed what a message of the task asked for."""
        if self.current is not None and kind not in _OF_START:
            self.current.has_effects = True
        rows = self._capture()
        if rows and self.keeps_effects:
            stack = self._sources.stack(sys._getframe(1))
            self._add(kind, target, stack, rows=rows)
        self._changed(kind, target)

    def scheduler_turned(self) -> None:
        """The scheduler may have changed the metadata database."""
        rows = self._capture()
        if rows and self.keeps_effects:
            self.effects.append(Effect(kind="schedule", target="", rows=rows))

    def _add(
        self,
        kind: str,
        target: str,
        stack: tuple[Location, ...],
        *,
        files: tuple[FileChange, ...] = (),
        rows: tuple[RowChange, ...] = (),
    ) -> None:
        self.effects.append(
            Effect(
                kind=kind,
                target=target,
                files=files,
                rows=rows,
                attempt=len(self.attempts) if self.current is not None else None,
                stack=stack,
                is_parse=self.is_parse,
                nth=0 if self.current is None else self.current.changes[kind, target],
            )
        )

    def _note_thread(self, kind: str, target: str, stack: tuple[Location, ...]) -> None:
        self.blocked(
            Obstacle(
                what=f"a thread made changes ({kind} {target})",
                where=stack[0] if stack else None,
                remedy="The order of threads' changes is different each time: let the main thread make them.",
            )
        )

    def file_read(self, path: str, content: bytes | bytearray) -> None:
        """Something of a file that is not as it was mounted was read."""
        if self.current is not None and path not in self.current.first_reads:
            self.current.first_reads[path] = digest(content)

    def operation_failed(self, kind: str, path: str) -> None:
        """A file operation raised. Libraries look around, and what fails there says nothing of the DAG."""
        operation = f"{kind}:{path}"
        if self.current is None or operation in self.current.failed_operations:
            return
        if self._sources.innermost(sys._getframe(1)) is not None:
            self.current.failed_operations.append(operation)

    def blocked(self, obstacle: Obstacle) -> None:
        """Something keeps us from a verdict; each is kept once."""
        if self.current is not None:
            self.current.is_opaque = True
            if not obstacle.what.startswith(f"{self.current.task_id} "):
                whose = f"{self.current.task_id} ({self.current.operator})"
                obstacle = replace(obstacle, what=f"{whose}: {obstacle.what}")
        kept = self.notes if self._tells_people else self.obstacles
        if obstacle not in kept:
            kept.append(obstacle)

    @contextmanager
    def telling_people(self) -> Iterator[None]:
        """Inside, what we do not see is a message to somebody, and keeps us from no verdict."""
        self._tells_people = True
        try:
            yield
        finally:
            self._tells_people = False

    def where(self, frame: FrameType | None) -> Location | None:
        """The innermost of the project's frames."""
        return self._sources.innermost(frame)
