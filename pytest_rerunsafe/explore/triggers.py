"""Runs what deferred tasks wait for, as the triggerer's process does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from ..airflow.triggers import Triggerer
from ..world.process import capture_output
from .dag_processor import DagProcessor
from .sandbox import LOADING, LOG_BYTES, Sandbox


class Triggers:
    """The triggers of a world."""

    def __init__(self, sandbox: Sandbox, dag_processor: DagProcessor) -> None:
        self._sandbox = sandbox
        self._dag_processor = dag_processor
        self._triggerer: Triggerer | None = None
        self._slices = 0
        sandbox.on_begin = self._end

    @property
    def has_any(self) -> bool:
        """Whether a deferred task waits for a trigger."""
        return bool(self._sandbox.scheduler.triggers())

    @property
    def are_hopeless(self) -> bool:
        """Whether the triggers have run in vain for too long."""
        return self._triggerer is not None and self._triggerer.is_hopeless

    def take_heart(self) -> None:
        """Let triggers look again: something has happened."""
        if self._triggerer is not None:
            self._triggerer.take_heart()

    def run(self, until: datetime) -> bool:
        """Run what deferred tasks wait for, until one of the triggers has come to an end or it is `until`.

        Whether one has. They go on where they stood the last time; in another world they start afresh, as with a new
        triggerer.
        """
        trigger_ids = self._sandbox.scheduler.triggers()
        if self._triggerer is None and not trigger_ids:
            return False
        if self._triggerer is None:
            self._triggerer = Triggerer(self._sandbox.answers())
            self._sandbox.runs_besides = "a trigger"
        triggerer = self._triggerer
        if not triggerer.is_hopeless and (trigger_ids or triggerer.is_running):
            self._sandbox.forget()
            with self._in_process():
                triggerer.run(trigger_ids, until)
        with self._sandbox.aside():
            has_fired = triggerer.submit()
        self._sandbox.journal.scheduler_turned()
        return has_fired

    @contextmanager
    def _in_process(self) -> Iterator[None]:
        """Inside, this is the triggerer's process."""
        self._slices += 1
        self._sandbox.entropy.seed(f"{self._sandbox.seed}/triggerer/{self._slices}")
        with capture_output(LOG_BYTES), self._sandbox.process():
            self._dag_processor.find_modules()
            yield
        self._sandbox.end_process()

    def _end(self) -> None:
        """End the triggers in the world that they belong to."""
        if self._triggerer is not None:
            with self._in_process():
                self._triggerer.close()
        self._triggerer, self._slices = None, 0
        self._sandbox.runs_besides = LOADING
