"""What befalls workers: the world when Airflow knows of it, and when somebody has a look. One death at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from ..airflow import runs
from ..model import CrashKind, Death, Files, RecoveryKind, WorldState
from ..world.clock import Clock
from ..world.files import Passage
from ..world.files_reads import View
from ..world.interrupts import forget_interrupt
from .drive import Driver
from .faults import Strike
from .fold import local_files
from .jobs import REFERENCE, Fault, Recovering, Start, TaskInstanceKey
from .processes import JobProcesses
from .recoveries import BY_ITSELF
from .sandbox import EPOCH, Sandbox, Snapshot
from .waits import Waits

ROUND_S, ROUND_AT_S = 600, 71
"""Deaths are noticed and tasks cleared every so often, so many seconds past it: so that recoveries from what happened a
little earlier or later go alike, and what is known of one serves the other. No round time: nothing coincides by chance."""
Recover = Callable[[Recovering, Start, JobProcesses, WorldState], None]
_FAILED = ("failed", "up_for_retry")


@dataclass(slots=True)
class Befallen:
    """What has befallen a worker, and what came of it."""

    world: WorldState
    """That of the start, by which it is known."""
    crash: CrashKind | None
    fault: Fault | None
    state: str
    """What Airflow made of an attempt that was run for the fault; empty if that did not come to pass."""
    noticed: Snapshot
    """Airflow has noticed it."""
    raised: str = ""
    """By the change that failed."""
    settled: Snapshot | None = None
    """And whatever could go on without the dead task has ended."""

    def is_of(self, start: Start) -> bool:
        """Whether it is what befalls the worker there."""
        is_here = self.world is start.world and self.crash is start.crash
        return is_here and self.fault == start.fault

    def before(self, start: Start) -> Snapshot | None:
        """What the recovery begins with; None if that is not known yet."""
        return self.noticed if start.recovery in BY_ITSELF or _is_zombie(start) else self.settled

    def leads_to(self, recovery: RecoveryKind) -> bool:
        """Whether that is what comes next: nobody recovers what did not fail."""
        if self.fault is None or not self.state:
            return self.fault is None
        if self.fault.crash_kind is CrashKind.ZOMBIE:
            return True  # and has been, while it lived on
        if recovery is RecoveryKind.RETRY:
            return self.state == "up_for_retry"
        return (self.state in _FAILED) is not (recovery is RecoveryKind.GO_ON)


_KNOWN_RESTS = 16


@dataclass(frozen=True, slots=True)
class _Rest:
    """What went on without a dead task."""

    dead: TaskInstanceKey
    seed: str
    passage: Passage
    noticed: Snapshot
    settled: Snapshot

    def goes_alike(self, dead: TaskInstanceKey, seed: str, noticed: WorldState, view: View) -> bool:
        """Whether it goes so after another death of that task: all is the same but files that nobody sees."""
        before = self.noticed.world
        is_same = (self.dead, self.seed, before.clock, before.rows) == (
            dead,
            seed,
            noticed.clock,
            noticed.rows,
        )
        return is_same and self.passage.seen.holds(view)

    def after(self, noticed: Snapshot, files: Files) -> Snapshot:
        """The same after another death, which leaves these files."""
        ran, settled = self.noticed, self.settled
        return Snapshot(
            replace(settled.world, files=files),
            (*noticed.attempts, *settled.attempts[len(ran.attempts) :]),
            tuple(dict.fromkeys((*noticed.obstacles, *settled.obstacles[len(ran.obstacles) :]))),
            tuple(dict.fromkeys((*noticed.notes, *settled.notes[len(ran.notes) :]))),
            {**settled.by_callbacks, **noticed.by_callbacks},
        )


class Deaths:
    """Lets workers die in a sandbox."""

    def __init__(self, sandbox: Sandbox, driver: Driver, recover: Recover) -> None:
        self._sandbox = sandbox
        self._driver = driver
        self._recover = recover
        """Does what a person does for the recovery."""
        self._last: Befallen | None = None
        """Recoveries from one state follow each other."""
        self._known: deque[_Rest] = deque(maxlen=_KNOWN_RESTS)

    def forget(self) -> None:
        """The next start is of another job."""
        self._last = None

    def befall(self, job: Recovering, start: Start, processes: JobProcesses) -> Befallen:
        """Make the world what it is when the recovery begins, if what has befallen the worker leads to it.

        For a clear also the rest of the run has come to its end without the dead task: so it is by the time that somebody
        has a look.
        """
        assert start.task_id is not None, "only a task's worker can crash"
        dead = (job.run, start.task_id, start.map_index)
        last = self._last
        if last is None or not last.is_of(start) or _is_zombie(start):
            last = self._last = self._happen(job, start, dead, processes)
        if not last.leads_to(start.recovery):
            return last
        snapshot = last.before(start)
        if snapshot is None:
            snapshot = last.settled = self._settled(job, last.noticed, dead, processes)
        self._sandbox.resume(snapshot, job.seed)
        return last

    def _happen(
        self, job: Recovering, start: Start, dead: TaskInstanceKey, processes: JobProcesses
    ) -> Befallen:
        if start.fault is not None:
            return self._strike(job, start, start.fault, dead, processes)
        self._sandbox.begin(on_another_worker(start.world, job), job.seed)
        self.notice(dead, processes, start.crash)
        return Befallen(start.world, start.crash, None, "", self._sandbox.snapshot())

    def _strike(
        self, job: Recovering, start: Start, fault: Fault, dead: TaskInstanceKey, processes: JobProcesses
    ) -> Befallen:
        """Run the attempt again, with the fault in it."""
        # As in the clean run, so that the same changes come.
        self._sandbox.begin(start.world, REFERENCE)
        outlive = partial(self._outlive, job, start, dead, processes)
        processes.strike = strike = Strike(fault, dead, self._sandbox, outlive)
        has_run = self._attempt(dead, processes)
        self._sandbox.seed = job.seed
        if fault.crash_kind is CrashKind.ERROR_EACH_TRY:
            self._driver.drive(job.run, processes)
        processes.strike = None
        forget_interrupt()
        of_task = [a for a in self._sandbox.journal.attempts if (a.run, a.task_id, a.map_index) == dead]
        state = of_task[-1].state if has_run and strike.is_to_blame() else ""
        noticed = self._sandbox.snapshot()
        noticed = replace(noticed, world=on_another_worker(noticed.world, job))
        ended = noticed if fault.crash_kind is CrashKind.ERROR_EACH_TRY else None
        return Befallen(start.world, start.crash, fault, state, noticed, strike.raised, ended)

    def _outlive(self, job: Recovering, start: Start, dead: TaskInstanceKey, processes: JobProcesses) -> None:
        """Let the task, whose worker is taken for dead, be run again, and the run end."""
        strike, may_repeat = processes.strike, processes.may_repeat
        # What is repeated makes files anew, and those that the worker has open would no longer be the same.
        processes.strike, processes.may_repeat = None, False
        self._sandbox.seed = job.seed
        self.notice(dead, processes, CrashKind.KILL)
        if start.recovery not in BY_ITSELF:
            self._driver.drive(job.run, processes, without=dead)
            self._recover(job, start, processes, self._sandbox.world())
        self._driver.drive(job.run, processes)
        processes.strike, processes.may_repeat = strike, may_repeat

    def _attempt(self, key: TaskInstanceKey, processes: JobProcesses) -> bool:
        """Let a worker have the queued task; whether it ran."""
        turn = self._sandbox.scheduler.turn()
        self._sandbox.journal.scheduler_turned()
        now = self._sandbox.clock.now
        for task in turn.queued:
            if (task.run, task.task_id, task.map_index) == key:
                processes.attempt(task, Waits(now), now)
        return bool(self._sandbox.journal.attempts)

    def _settled(
        self, job: Recovering, noticed: Snapshot, dead: TaskInstanceKey, processes: JobProcesses
    ) -> Snapshot:
        """What is there once all has ended that can go on without the dead task.

        Of deaths that differ only in files that nobody has seen then, it is run once.
        """
        sandbox = self._sandbox
        sandbox.resume(noticed, job.seed)
        view = sandbox.files.view() if processes.may_repeat else None
        for known in self._known:
            if view is not None and known.goes_alike(dead, job.seed, noticed.world, view):
                sandbox.files.pass_again(known.passage)
                return known.after(noticed, sandbox.files.state)
        with sandbox.files.watched() as passage:
            self._driver.drive(job.run, processes, without=dead)
        settled = sandbox.snapshot()
        if processes.may_repeat and (passed := passage()) is not None:
            self._known.append(_Rest(dead, job.seed, passed, noticed, settled))
        return settled

    def settle(self, death: Death, processes: JobProcesses) -> None:
        """Let Airflow notice a death, and whatever can go on without the dead task end."""
        dead = (death.run, death.task_id, death.map_index)
        self.notice(dead, processes, death.kind)
        for date in death.due:
            runs.create(self._sandbox.scheduler.dag(death.run[0]), date)
        self._sandbox.journal.scheduler_turned()
        self._driver.drive(death.run, processes, without=dead)

    def notice(self, dead: TaskInstanceKey, processes: JobProcesses, kind: CrashKind | None) -> None:
        """Let Airflow notice the death: that a worker has been silent for too long, or by the supervisor's last word."""
        if kind is CrashKind.OOM:
            look_after(self._sandbox.clock, 1)
            processes.lose_process(*dead)
        else:
            look_after(self._sandbox.clock, self._sandbox.scheduler.heartbeat_timeout_s + 1)
            processes.lose_worker(*dead)


def _is_zombie(start: Start) -> bool:
    """Whether its recovery happens while the worker lives."""
    return start.fault is not None and start.fault.crash_kind is CrashKind.ZOMBIE


def look_after(clock: Clock, at_least_s: float) -> None:
    """Move the clock on to the next moment at which somebody looks."""
    earliest = clock.now + timedelta(seconds=at_least_s)
    past = (earliest - EPOCH - timedelta(seconds=ROUND_AT_S)) % timedelta(seconds=ROUND_S)
    clock.move_to(earliest + (-past) % timedelta(seconds=ROUND_S))


def on_another_worker(world: WorldState, job: Recovering) -> WorldState:
    """The world as a worker finds it that has its own files at the local paths, as they were before the run."""
    if not job.local:
        return world
    shared = world.files.keys() - local_files(world.files, job.local).keys()
    files = {path: node for path, node in world.files.items() if path in shared}
    return replace(world, files={**files, **job.local_files})
