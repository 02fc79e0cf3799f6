"""The loop of a run: scheduler, workers, DAG processor and triggerer take turns until nothing is left to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ..airflow.queries import QueuedTask
from ..airflow.scheduling import Turn
from ..model import RunKey
from .jobs import TaskInstanceKey
from .obstacles import does_not_end, endless, waits_in_vain
from .processes import JobProcesses
from .sandbox import Sandbox
from .triggers import Triggers
from .waits import Waits

MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
ENDED = frozenset({"success", "failed"})
MOST_RUNS = 100
"""DagRuns in one world: more are taken for DAGs that set each other off for ever."""


class Driver:
    """Drives what runs there are in a sandbox."""

    def __init__(self, sandbox: Sandbox, triggers: Triggers, arrive: Callable[[str, str], bool]) -> None:
        self._sandbox = sandbox
        self._triggers = triggers
        self._arrive = arrive
        """Told of each situation that a DAG's run of some kind gets into; whether it is known how that goes on."""

    def drive(
        self,
        run: RunKey,
        processes: JobProcesses,
        *,
        counts_all: bool = False,
        may_jump: bool = False,
        kind: str = "",
        without: TaskInstanceKey | None = None,
    ) -> str:
        """Take turns until all DagRuns have ended; the state of `run`, or the worst of all its DAG's, `stuck` if nothing
        can go on.

        With `may_jump` it stops where it is known how a run of that kind goes on: `jumped`. Without one task instance it
        goes as far as it gets while nobody retries that, nor waits.
        """
        waits = Waits(self._sandbox.clock.now)
        seen: object = None
        for _ in range(MAX_TURNS):
            if may_jump and self._arrive(run[0], kind):
                return "jumped"
            turn = self._sandbox.scheduler.turn()
            self._sandbox.journal.scheduler_turned()
            ready = [task for task in turn.queued if self._is_ready(task, waits, without)]
            alone_until = self._alone_until(waits, ready, seen)
            for task in ready:
                if not self._sandbox.is_queued(task):
                    continue  # another task has cleared it meanwhile: the server refuses it to the worker
                if may_jump and self._arrive(run[0], kind):
                    return "jumped"
                processes.attempt(task, waits, alone_until or self._sandbox.clock.now)
            processes.run_callbacks(turn.callbacks)
            if ready:
                continue
            if all(state in ENDED for state in turn.states.values()):
                self._triggers.run(self._sandbox.clock.now)  # ends those whose tasks have gone
                return _ended(run, turn, counts_all)
            if len(turn.states) > MOST_RUNS:
                self._sandbox.journal.blocked(endless(MOST_RUNS))
                return "stuck"
            # A turn may only change states (a skip, a failure handed on): time passes once a turn changes none.
            if (states := self._sandbox.states()) != seen:
                seen = states
            elif without is not None:
                return turn.states[run]
            elif not self._pass_time(waits):
                self._tell_who_waits(waits)
                break
        return self._stuck(run, turn)

    def _is_ready(self, task: QueuedTask, waits: Waits, without: TaskInstanceKey | None) -> bool:
        if (task.run, task.task_id, task.map_index) == without:
            return False
        return waits.is_ready(task.id, self._sandbox.clock.now)

    def _stuck(self, run: RunKey, turn: Turn) -> str:
        """The state of `run` where nothing can go on: others may hang that it does not wait for."""
        if turn.states[run] not in ENDED:
            return "stuck"
        for dag_id in sorted({key[0] for key, state in turn.states.items() if state not in ENDED}):
            self._sandbox.journal.blocked(does_not_end(dag_id))
        return turn.states[run]

    def _alone_until(self, waits: Waits, ready: Sequence[QueuedTask], seen: object) -> datetime | None:
        """Until when the only ready task may poke in line, for nothing else can go on; None if it is not alone."""
        if len(ready) != 1 or not waits.has(ready[0].id) or self._triggers.has_any:
            return None
        if self._sandbox.states() != seen:
            return None
        now = self._sandbox.clock.now
        scheduler = self._sandbox.scheduler
        others = (scheduler.next_deadline(), waits.next_poke(scheduler.next_poke(), now, besides=ready[0].id))
        return min((time for time in others if time is not None), default=waits.hopeless_at)

    def _pass_time(self, waits: Waits) -> bool:
        """Let triggers run, or move the clock to where somebody can go on; False if nobody ever can."""
        clock, scheduler = self._sandbox.clock, self._sandbox.scheduler
        deadline = scheduler.next_deadline(counts_triggers=not self._triggers.are_hopeless)
        rescheduled = scheduler.next_poke()
        poke = waits.next_poke(rescheduled, clock.now)
        times = [time for time in (deadline, poke) if time is not None]
        until = min(times, default=None)
        if self._triggers.run(until or waits.hopeless_at):
            waits.progressed(clock.now)
            return True
        if until is None:
            return False
        if rescheduled is not None and until == poke:
            waits.rescheduled()
        # Airflow asks at some places for a time that is past, not for one that has come.
        clock.move_to(max(until, clock.now) + timedelta(seconds=1))
        return True

    def _tell_who_waits(self, waits: Waits) -> None:
        for task_id in sorted({*(poking.task_id for poking in waits), *self._sandbox.scheduler.waiting()}):
            self._sandbox.journal.blocked(waits_in_vain(task_id))


def _ended(run: RunKey, turn: Turn, counts_all: bool) -> str:
    """The state of a run that has ended, or the worst of all runs of its DAG."""
    ended = [state for key, state in turn.states.items() if key == run or (counts_all and key[0] == run[0])]
    return "failed" if "failed" in ended else "success"
