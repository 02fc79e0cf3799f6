"""How much time the checks of a DAG may take, and how much they have taken. Counts seconds; stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

Left = Callable[[], float]
"""Gives the seconds that are left."""


class Budget:
    """The time of one DAG's checks in this process. What other DAGs' checks take is not counted."""

    def __init__(self, seconds: float | None, clock: Callable[[], float], processes: int) -> None:
        self.seconds = inf if seconds is None else seconds
        self._clock = clock
        self._processes = processes
        """How many share the DAG's checks."""
        self._spent = 0.0
        self._since: float | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.seconds < inf

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Inside, time counts."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._spent += self._clock() - self._since
            self._since = None

    def left(self) -> float:
        """What is left of it, in seconds; below 0 if more has been taken."""
        now = 0.0 if self._since is None else self._clock() - self._since
        return self.seconds - self._spent - now

    def share(self, part: int, whole: int) -> Left | None:
        """What is left now for a part of what is still to be done; None if there is no bound.

        Processes that share the checks of a DAG work at the same time.
        """
        if not self.is_bounded:
            return None
        kept = self.left() * (1 - min(1.0, part * self._processes / max(whole, 1)))
        return lambda: self.left() - kept
