"""What a worker says to the process that gave it a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model import Obstacle


@dataclass(frozen=True, slots=True)
class Alive:
    """The job goes on: another attempt has begun."""


@dataclass(frozen=True, slots=True)
class Done:
    """A job's result."""

    result: Any
    is_last: bool = False
    """The worker leaves: it could not be made as new."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A job without a result: why, for the user to read."""

    reason: str


@dataclass(frozen=True, slots=True)
class HitBound:
    """The job's last word before the worker ends itself."""

    obstacle: Obstacle


@dataclass(frozen=True, slots=True)
class Lost:
    """What the pool says of a job whose worker did not survive it."""

    obstacle: Obstacle


@dataclass(frozen=True, slots=True)
class Cut:
    """What the pool says of a job that nobody did, or not to its end, before the time was up."""


Answer = Done | Failed | Lost | Cut
