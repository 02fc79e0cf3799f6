"""Attempts that ran before: one that would get the same answers and see the same files is not run again.

An attempt's process is a function of the DAG file, what it is started with, the clock, the seed, what its supervisor
answers and what it sees of the files. Where these are the same, so are its messages and what it does to the files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..airflow.answers import Answers
from ..airflow.metadata import MetadataStore
from ..model import Attempt
from ..world.clock import Clock
from ..world.files import FileStore, Passage

_MOST = 2_000


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A message, when it was sent, and the answer as text."""

    message: Any
    at: datetime
    answer: str


@dataclass(frozen=True, slots=True)
class Known:
    """An attempt that ran before."""

    passage: Passage
    exchanges: tuple[_Exchange, ...]
    ended: datetime
    attempt: Attempt


@dataclass(slots=True)
class Watch:
    """An attempt that runs now."""

    key: Hashable
    started: datetime
    exchanges: list[_Exchange] = field(default_factory=list)
    is_whole: bool = True
    """Whether the process is told of nothing else than what is noted."""
    passage: Callable[[], Passage | None] = lambda: None


class Memo:
    """Attempts by what they were started with."""

    def __init__(self, files: FileStore, metadata: MetadataStore, clock: Clock) -> None:
        self._files = files
        self._metadata = metadata
        self._clock = clock
        self._known: dict[Hashable, list[Known]] = {}
        self._count = 0

    # --- running one --------------------------------------------------------------------------

    @contextmanager
    def watching(self, key: Hashable, answers: Answers) -> Iterator[Watch]:
        """Inside, the attempt of that key is run; to be kept afterwards."""
        watch = Watch(key, self._clock.now)
        answers.on_message = lambda message, answer: self._exchange(watch, message, answer)
        uses = self._metadata.uses
        with self._files.watched() as passage:
            yield watch
        answers.on_message = lambda message, answer: answer()
        watch.passage = passage
        watch.is_whole &= self._metadata.uses == uses  # else it has looked into the database for itself

    def _exchange(self, watch: Watch, message: Any, answer: Callable[[], Any]) -> Any:
        with self._clock.still() as at:
            pass
        was_whole, watch.is_whole = watch.is_whole, False
        sent = deepcopy(message)
        with self._metadata.known_use():
            given = answer()
        watch.exchanges.append(_Exchange(sent, at, repr(given)))
        watch.is_whole = was_whole
        return given

    def keep(self, watch: Watch, attempt: Attempt) -> None:
        """Remember an attempt that ran, unless more may have told on it than is known."""
        passage = watch.passage() if watch.is_whole else None
        if passage is None:
            return
        if self._count >= _MOST:
            self._known.clear()
            self._count = 0
        self._count += 1
        known = Known(passage, tuple(watch.exchanges), self._clock.now, attempt)
        self._known.setdefault(watch.key, []).append(known)

    # --- not running one ----------------------------------------------------------------------

    def repeat(self, key: Hashable, answers: Answers) -> Attempt | None:
        """Do to the world what the process of the attempt would do, if that is known."""
        candidates = self._known.get(key, ())
        view = self._files.view() if candidates else None
        if view is None:
            return None
        for known in candidates:
            if known.passage.seen.holds(view) and self._tell(known, answers):
                self._clock.move_to(known.ended)
                self._files.pass_again(known.passage)
                return known.attempt
        return None

    def _tell(self, known: Known, answers: Answers) -> bool:
        """Send the messages again; if an answer is another one, take all back."""
        rows, started = self._metadata.rows, self._clock.now
        for exchange in known.exchanges:
            self._clock.move_to(exchange.at)
            try:
                is_same = repr(answers.send(exchange.message)) == exchange.answer
            except Exception:  # the server refuses it this time
                is_same = False
            if not is_same:
                self._metadata.restore(rows)
                self._clock.move_to(started)
                answers.start_anew()
                return False
        return True
