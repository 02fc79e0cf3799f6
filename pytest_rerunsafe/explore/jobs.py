"""What a worker is asked to do. Immutable values: any worker does any job, in any order, with the same result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from ..model import Action, CrashKind, DagInfo, Death, Files, RecoveryKind, RunKey, WorldState

REFERENCE = "reference"
"""What all that is random in the reference run is derived from."""
RECOVERY = "recovery"
"""The same for what comes after a death or a clear."""
BEGINS_S = 1
"""From the turn of the scheduler that queues a task to the start of its attempt."""


TaskInstanceKey = tuple[RunKey, str, int]
"""DagRun, task id and map index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindJob:
    """Find the DAG files among files and folders; the result is a tuple of absolute paths."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJob:
    """Load a DAG file; the result is a `LoadedFile`."""

    file: str
    folder: str
    """The DAGs folder that it stands in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordJob:
    """Run a DAG cleanly; the result is a `Recording`."""

    dag: DagInfo
    folder: str
    logical_date: datetime
    delay_s: float
    """How long after the end of the data interval the run starts."""
    seed: str
    keeps_effects: bool = True
    """Whether the result holds effects and states; without, only how the run ended."""
    counts_lines: bool = False
    shares_memory: bool = False
    """All attempts in one process with one parse, as no deployment does."""
    intervals: int = 1
    """How many intervals run, one after the other from the logical date on, when all of them are due; of several, the
    XComs are no outputs."""
    prepares: bool = True
    """Whether the project's conftest puts inputs in place."""
    initial: WorldState | None = None
    """The world with inputs in place; None: they are put there first."""
    hash_seed: int | None = None
    """Of the interpreter that runs it; None: whatever that of the others is."""
    related: Mapping[str, str] = field(default_factory=dict)
    """The DAG file of each other DAG that runs along, by DAG id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What befalls an attempt that is run for it, at one of its changes."""

    crash_kind: CrashKind
    kind: str
    target: str
    nth: int
    """Which of the attempt's changes of that kind and target, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a recovery starts from."""

    world: WorldState
    task_id: str | None
    """None: the recovery concerns the whole run."""
    map_index: int
    crash: CrashKind | None
    """How the task has just died in that state; None: nothing died that Airflow takes for running."""
    recovery: RecoveryKind
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverJob:
    """Restore a state, recover as a scheduler or a person would, run to the end, for each start; the result is a
    tuple of `Outcome`.
    """

    dag: DagInfo
    run: RunKey
    """The DagRun under test."""
    folder: str
    starts: tuple[Start, ...]
    clean: Mapping[str, tuple[int, int]]
    """The situations of the clean runs: a recovery that gets into one goes on as that run (by number) did after so many
    attempts."""
    seed: str
    keeps_log: bool = False
    logical_dates: tuple[datetime, ...] = ()
    """The intervals that a recovery of several concerns."""
    local: tuple[str, ...] = ()
    """Paths that each worker has of its own: a recovery happens on another one."""
    local_files: Files = field(default_factory=dict)
    """What that one has there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRecoveryJob:
    """Restore a state, recover, run to the end; the result is a `Recording` of what was done since the recovery began."""

    dag: DagInfo
    run: RunKey
    folder: str
    start: Start
    seed: str
    local: tuple[str, ...] = ()
    """As in `RecoverJob`."""
    local_files: Files = field(default_factory=dict)


Recovering = RecoverJob | RecordRecoveryJob


@dataclass(frozen=True, slots=True, kw_only=True)
class ActJob:
    """Do what a person would to DagRuns, and run to the end; the result is an `Acted`."""

    dag: DagInfo
    run: RunKey
    folder: str
    world: WorldState
    action: Action
    later_s: float
    """How long after the last change it is done."""
    death: Death | None = None
    """In that world; by the time that somebody does something, whatever could go on without the dead task has ended."""


Job = FindJob | LoadJob | RecordJob | RecoverJob | RecordRecoveryJob | ActJob
