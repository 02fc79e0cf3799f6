"""The process's real-time timer by the virtual clock: `signal.alarm`, `signal.setitimer`, and so Airflow's time-outs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from .process import replaced


class Alarm:
    """Sends a signal when the clock gets to where it was set. What is computed takes no time and so sets off none."""

    def __init__(self, now: Callable[[], float], signum: int = signal.SIGALRM) -> None:
        self._now = now
        self._signum = signum
        self._due: float | None = None
        self._interval = 0.0

    def stop_within(self, step: timedelta) -> timedelta:
        """How far the clock may move of a step before it must look here."""
        if self._due is None:
            return step
        return min(step, max(timedelta(seconds=self._due - self._now()), timedelta(microseconds=1)))

    def ring(self) -> None:
        """Send the signal if it is time: its handler may raise."""
        if self._due is None or self._now() < self._due:
            return
        self._due = self._now() + self._interval if self._interval else None
        signal.raise_signal(self._signum)

    @property
    def left_s(self) -> float | None:
        """The time until then; None if it is not set."""
        return None if self._due is None else max(self._due - self._now(), 0.0)

    def set(self, seconds: float) -> None:
        """Let it go off so much later."""
        self._due = self._now() + seconds

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, it is another process's; afterwards it is set as before."""
        before = self._due, self._interval
        self.clear()
        try:
            yield
        finally:
            self._due, self._interval = before

    def clear(self) -> None:
        """Forget it, as the end of a process does."""
        self._due, self._interval = None, 0.0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, the functions of the module `signal` set and tell this one."""
        real_set, real_get = signal.setitimer, signal.getitimer

        def setitimer(which: int, seconds: float, interval: float = 0.0, /) -> tuple[float, float]:
            if which != signal.ITIMER_REAL:
                return real_set(which, seconds, interval)
            return self._set(seconds, interval)

        def getitimer(which: int, /) -> tuple[float, float]:
            return self._get() if which == signal.ITIMER_REAL else real_get(which)

        def alarm(seconds: int, /) -> int:
            return round(self._set(seconds, 0.0)[0])

        with ExitStack() as stack:
            for name, function in (("setitimer", setitimer), ("getitimer", getitimer), ("alarm", alarm)):
                stack.enter_context(replaced(signal, name, function))
            yield

    def _set(self, seconds: float, interval: float) -> tuple[float, float]:
        if seconds < 0 or interval < 0:
            raise signal.ItimerError(22, "Invalid argument")
        before = self._get()
        self._due = self._now() + seconds if seconds else None
        self._interval = interval
        return before

    def _get(self) -> tuple[float, float]:
        return (0.0, 0.0) if self._due is None else (max(self._due - self._now(), 1e-6), self._interval)
