"""Sensors that wait in poke mode, and how long anybody waits before it is hopeless. Pure bookkeeping in virtual time.

A poke that finds nothing while others can go on is taken back, as if the worker had started the task later: so the
tasks that make what it waits for come first, although one process runs them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

MOST_WAIT = timedelta(days=6, hours=12)
"""How long somebody pokes while nothing else happens: what has not come by then does not come.

Below Airflow's default timeout of a sensor, seven days: one that relies on it is told what to do.
"""
EXACT_POKES = 1_500
"""Pokes of one attempt that come at the sensor's own interval: a day of minutes. Then they come ever more seldom."""
EXACT_ROUNDS = 15
"""The same for pokes that take an attempt each."""
_LONGER = 1.25


@dataclass(slots=True, kw_only=True)
class Poking:
    """A sensor in poke mode whose poke was taken back."""

    task_id: str
    first_poke: float
    """By the monotonic clock."""
    interval_s: float
    wake: datetime
    rounds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How long an attempt of a sensor may poke."""

    until: datetime
    """Until then nothing else can go on."""
    hopeless_at: datetime
    first_poke: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """A sensor's attempt that counts as not begun."""

    first_poke: float
    interval_s: float


class Waits:
    """Who waits in one run."""

    def __init__(self, now: datetime) -> None:
        self._poking: dict[Any, Poking] = {}
        self._last_progress = now
        self._rounds = 0

    def __iter__(self) -> Iterator[Poking]:
        return iter(self._poking.values())

    @property
    def hopeless_at(self) -> datetime:
        """When poking has become hopeless, if nothing happens until then."""
        return self._last_progress + MOST_WAIT

    def is_ready(self, ti_id: Any, now: datetime) -> bool:
        """Whether a queued task instance may start: it does not wait, or it is time to poke again."""
        return ti_id not in self._poking or self._poking[ti_id].wake <= now

    def has(self, ti_id: Any) -> bool:
        """Whether it is a sensor that has poked already."""
        return ti_id in self._poking

    def allowance(self, ti_id: Any, until: datetime) -> Allowance:
        """What a task instance may do if it turns out to be a sensor."""
        poking = self._poking.get(ti_id)
        return Allowance(
            until=until,
            hopeless_at=self.hopeless_at,
            first_poke=poking.first_poke if poking else None,
        )

    def taken_back(self, ti_id: Any, task_id: str, poke: TakenBack, now: datetime) -> None:
        """A poke found nothing."""
        rounds = self._poking[ti_id].rounds + 1 if ti_id in self._poking else 0
        self._poking[ti_id] = Poking(
            task_id=task_id,
            first_poke=poke.first_poke,
            interval_s=poke.interval_s,
            wake=now + stretched(poke.interval_s, rounds, EXACT_ROUNDS),
            rounds=rounds,
        )

    def ended(self, ti_id: Any, state: str, now: datetime) -> None:
        """An attempt came to its end."""
        self._poking.pop(ti_id, None)
        if state != "up_for_reschedule":
            self.progressed(now)

    def progressed(self, now: datetime) -> None:
        """Something happened that others may wait for."""
        self._last_progress, self._rounds = now, 0
        for poking in self._poking.values():
            poking.rounds = 0
            poking.wake = min(poking.wake, now + timedelta(seconds=poking.interval_s))

    def next_poke(self, rescheduled: datetime | None, now: datetime, besides: Any = None) -> datetime | None:
        """When somebody pokes next, whether in poke mode or rescheduled; None if that is hopeless by now."""
        if now >= self.hopeless_at:
            return None
        times = [poking.wake for ti_id, poking in self._poking.items() if ti_id != besides]
        if rescheduled is not None:
            interval = max((rescheduled - now).total_seconds(), 0.0)
            times.append(now + stretched(interval, self._rounds, EXACT_ROUNDS))
        return min(times, default=None)

    def rescheduled(self) -> None:
        """A rescheduled sensor's time has come."""
        self._rounds += 1


def stretched(interval_s: float, count: int, exact: int) -> timedelta:
    """The wait after so many: longer each time once more than `exact` were in vain."""
    return timedelta(seconds=interval_s * _LONGER ** max(0, count - exact))
