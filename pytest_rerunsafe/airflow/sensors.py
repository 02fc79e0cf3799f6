"""Sensors in poke mode: what they do instead of sleeping between two pokes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.bases import sensor


class _Time:
    """Stands in for the module `time` in Airflow's loop around `poke`, which uses two functions of it."""

    def __init__(self, sleep: Callable[[float], None], first_poke: float | None) -> None:
        self.sleep = sleep
        self._first_poke = first_poke

    def monotonic(self) -> float:
        """The time; when first asked, which is when the loop starts, that of the first poke."""
        first, self._first_poke = self._first_poke, None
        return time.monotonic() if first is None else first

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def poking(sleep: Callable[[float], None], first_poke: float | None) -> Iterator[None]:
    """Inside, a sensor in poke mode calls `sleep` between two pokes.

    With `first_poke`, by the monotonic clock, it goes on with a wait that began then: its timeout counts from there.
    """
    setattr(sensor, "time", _Time(sleep, first_poke))  # noqa: B010  (no name that it exports)
    try:
        yield
    finally:
        setattr(sensor, "time", time)  # noqa: B010
