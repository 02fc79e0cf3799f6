"""Does the jobs of one process: loads files, records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..airflow import loading, runs, warm_up_dag
from ..airflow.scheduling import QueuedTask
from ..model import LoadedFile, Outcome, Recording, RecoveryKind, RunKey, WorldState
from .jobs import FindJob, LoadJob, RecordJob, RecoverJob, Start
from .sandbox import Prepare, Sandbox, waits_in_vain
from .waits import Waits

MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
DETECTED_S = 60.0
"""From a worker's death until the scheduler notices."""
CLEARED_S = 600.0
"""From the end of a run until a person clears it."""
DAY_S = 86_400.0


class NotRun(Exception):
    """A DAG could not be run at all: its file does not give it once the inputs are in place. The argument says why."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a situation goes on: as the rest of an outcome, None standing for that of a clean run."""

    outcome: Outcome | None
    place: tuple[int, int]
    """Which of the clean runs, and the number of its attempts before the situation."""


class Engine:
    """Does the jobs of one process."""

    def __init__(self, rootdir: Path, prepare: Prepare) -> None:
        self.sandbox = Sandbox(rootdir, prepare)
        self._died: tuple[WorldState, WorldState] | None = None
        """The last state that a worker died in, before and after Airflow knew: recoveries from one state follow each other."""
        self._endings: dict[str, _Ending] = {}
        self._ending: _Ending | None = None
        self._situations: dict[str, int] = {}

    def warm_up(self) -> None:
        """Run, clear and rerun a scratch DAG: what is slow the first time is then behind every worker forked from here."""
        file = str(Path(warm_up_dag.__file__))
        folder = os.path.dirname(file)
        (dag,) = self.load(LoadJob(file=file, folder=folder)).dags
        clean = self.record(
            RecordJob(
                dag=dag, folder=folder, logical_date=dag.logical_date, delay_s=0, seed="", prepares=False
            )
        )
        starts = tuple(
            Start(
                world=clean.final,
                task_id=dag.tasks[0].task_id,
                map_index=-1,
                is_crash=False,
                recovery=recovery,
            )
            for recovery in (RecoveryKind.CLEAR_RUN, RecoveryKind.CLEAR_DOWNSTREAM)
        )
        self.recover(RecoverJob(dag=dag, run=clean.run, folder=folder, starts=starts, clean={}, seed=""))

    # --- jobs ---------------------------------------------------------------------------------

    def find(self, job: FindJob) -> tuple[str, ...]:
        """The DAG files among files and folders."""
        return loading.find_dag_files(job.paths)

    def load(self, job: LoadJob) -> LoadedFile:
        """What a DAG file holds."""
        bag = self.sandbox.parse_first(job.file, job.folder, "load")
        self.sandbox.forget()
        if isinstance(bag, str):
            return LoadedFile(
                file=job.file, dags=(), error=bag, obstacles=tuple(self.sandbox.journal.obstacles)
            )
        loaded = loading.describe(job.file, bag)
        return replace(
            loaded,
            error=self.sandbox.sources.cut(loaded.error),
            obstacles=tuple(self.sandbox.journal.obstacles),
        )

    def record(self, job: RecordJob) -> Recording:
        """A clean run, effect by effect."""
        self._endings, self._ending, self._situations = {}, None, {}
        self.sandbox.place_inputs(job)
        initial = self.sandbox.world()
        self.sandbox.journal.effects.clear()
        bag = self.sandbox.parse(job.dag.file, job.folder)
        if not job.shares_memory:
            self.sandbox.forget()
        if isinstance(bag, str):
            raise NotRun(bag)
        if job.dag.dag_id not in bag.dags:
            raise NotRun(self.sandbox.sources.cut("\n".join(bag.import_errors.values())))
        self.sandbox.journal.scheduler_turned()
        loading.store(bag)
        dag = self.sandbox.scheduler.dag(job.dag.dag_id)
        self.sandbox.clock.move_to(runs.starts_at(dag, job.logical_date) + timedelta(seconds=job.delay_s))
        run = self.sandbox.run(runs.create(dag, job.logical_date))
        self.sandbox.journal.scheduler_turned()
        state = self._drive(run.key, self._attempt_of(job, bag), True, may_jump=True)
        outcome = self.sandbox.outcome(run, state)
        if not job.keeps_effects:
            return Recording(
                initial=initial,
                effects=(),
                final=initial,
                run=run.key,
                outcome=outcome,
                situations=self._situations,
            )
        return Recording(
            initial=initial,
            effects=tuple(self.sandbox.journal.effects),
            final=self.sandbox.world(),
            run=run.key,
            outcome=outcome,
            situations=self._situations,
        )

    def recover(self, job: RecoverJob) -> tuple[Outcome, ...]:
        """How recoveries end, in the order of their starts.

        What comes after a situation is run once: the world, not the way there, decides how it goes on.
        """
        self._died = None
        self._endings = {situation: _Ending(None, place) for situation, place in job.clean.items()}
        return tuple(self._recover(job, start) for start in job.starts)

    def _recover(self, job: RecoverJob, start: Start) -> Outcome:
        self._ending, self._situations = None, {}
        if start.is_crash:
            self._die(job, start)
        else:
            self.sandbox.begin(start.world, job.seed)
        run = self.sandbox.run(job.run)
        drive = partial(self._drive, job.run, self._attempt_of(job, None), job.keeps_log)
        cleared = self._cleared(run, start)
        if cleared is not None:
            if start.is_crash and run.reacts_to_failure():
                drive(may_jump=False)  # before anybody clears, the run goes on without the dead task
            self._clear(run, start, cleared)
        leaves_failed = (
            start.is_crash and start.recovery is RecoveryKind.CLEAR_TASK and run.reacts_to_failure()
        )
        state = drive(may_jump=not leaves_failed and not job.keeps_log)
        if leaves_failed and state == "failed" and "failed" not in run.task_states().values():
            state = self._clear_rest(run, drive)
        return self._ended(run, state)

    def _die(self, job: RecoverJob, start: Start) -> None:
        """Make the world what it is once Airflow knows that the task's worker has died in the state."""
        assert start.task_id is not None, "only a task's worker can crash"
        if self._died is None or self._died[0] is not start.world:
            self.sandbox.begin(start.world, job.seed)
            self.sandbox.clock.advance(DETECTED_S)
            self.sandbox.run(job.run).report_death(start.task_id, start.map_index)
            self._died = start.world, self.sandbox.world()
        else:
            self.sandbox.begin(self._died[1], job.seed)

    def _ended(self, run: runs.Run, state: str) -> Outcome:
        """The outcome of a recovery; from now on it tells how each situation that was passed ends."""
        ending = self._ending
        outcome = self.sandbox.outcome(run, state) if ending is None else self._continued(ending)
        for situation, done in self._situations.items():
            self._endings.setdefault(situation, _Ending(outcome, (0, done)))
        return outcome

    def _continued(self, ending: _Ending) -> Outcome:
        """What an earlier run makes of the rest."""
        mine = tuple(self.sandbox.journal.attempts)
        if ending.outcome is None:
            return Outcome(
                run_state="success",
                task_states={},
                attempts=mine,
                outputs={},
                obstacles=tuple(self.sandbox.journal.obstacles),
                as_clean_from=ending.place,
            )
        rest = ending.outcome.attempts[ending.place[1] :]
        obstacles = dict.fromkeys((*self.sandbox.journal.obstacles, *ending.outcome.obstacles))
        return replace(ending.outcome, attempts=(*mine, *rest), obstacles=tuple(obstacles))

    # --- recoveries ---------------------------------------------------------------------------

    def _cleared(self, run: runs.Run, start: Start) -> tuple[str, ...] | None:
        """The tasks that the recovery clears; None if it clears nothing."""
        match start.recovery:
            case RecoveryKind.RETRY:
                return None
            case RecoveryKind.CLEAR_TASK:
                return (str(start.task_id),)
            case RecoveryKind.CLEAR_DOWNSTREAM:
                return run.with_downstream(str(start.task_id))
            case _:
                return tuple(sorted(run.dag.task_dict))

    def _clear(self, run: runs.Run, start: Start, cleared: tuple[str, ...]) -> None:
        is_day_later = start.recovery is RecoveryKind.CLEAR_RUN_DAY_LATER
        self.sandbox.clock.advance(DAY_S if is_day_later else CLEARED_S)
        self.sandbox.is_stale = self._left_by(start.world, cleared)
        run.clear(cleared)

    def _clear_rest(self, run: runs.Run, drive: Callable[..., str]) -> str:
        """Clear what the failed task took down with it, as a person does who wants the run to end well.

        Airflow leaves `upstream_failed` tasks alone when the task above them is cleared (apache/airflow#52640).
        """
        self.sandbox.clock.advance(CLEARED_S)
        run.clear(None, only_failed=True)
        return drive(may_jump=True)

    def _left_by(self, world: WorldState, cleared: tuple[str, ...]) -> Callable[[str, str], bool]:
        """Tells whether an XCom that is read now was left by an attempt that has been cleared and not run again."""
        before = {key: row for key, row in world.rows.items() if key[0] == "xcom"}

        def is_stale(task_id: str, key: str) -> bool:
            if task_id not in cleared:
                return False
            return any(
                self.sandbox.row(rowkey) == row and {task_id, key} <= set(row)
                for rowkey, row in before.items()
            )

        return is_stale

    # --- the loop -----------------------------------------------------------------------------

    def _drive(self, run: RunKey, attempt: Callable[..., None], keeps_log: bool, *, may_jump: bool) -> str:
        """Let the scheduler and the workers take turns until all DagRuns have ended; the state of `run`, `stuck` if
        nothing can go on.

        With `may_jump` it stops where it is known how the run goes on: `self._ending` is then set.
        """
        waits = Waits(self.sandbox.clock.now)
        seen: object = None
        for _ in range(MAX_TURNS):
            if may_jump and self._arrive(run[0]):
                return "jumped"
            turn = self.sandbox.scheduler.turn()
            self.sandbox.journal.scheduler_turned()
            ready = [task for task in turn.queued if waits.is_ready(task.id, self.sandbox.clock.now)]
            alone_until = self._alone_until(waits, ready, seen)
            for task in ready:
                if may_jump and self._arrive(run[0]):
                    return "jumped"
                attempt(task, keeps_log, waits, alone_until or self.sandbox.clock.now)
            if ready:
                continue
            if all(state in ("success", "failed") for state in turn.states.values()):
                self.sandbox.run_triggers(self.sandbox.clock.now)  # ends those whose tasks have gone
                return turn.states[run]
            # A turn may only change states (a skip, a failure handed on): time passes once a turn changes none.
            if (states := self.sandbox.states()) != seen:
                seen = states
            elif not self._pass_time(waits):
                self._tell_who_waits(waits)
                return "stuck"
        return "stuck"

    def _alone_until(self, waits: Waits, ready: Sequence[QueuedTask], seen: object) -> datetime | None:
        """Until when the only ready task may poke in line, for nothing else can go on; None if it is not alone."""
        if len(ready) != 1 or not waits.has(ready[0].id) or self.sandbox.has_triggers:
            return None
        if self.sandbox.states() != seen:
            return None
        now = self.sandbox.clock.now
        scheduler = self.sandbox.scheduler
        others = (scheduler.next_deadline(), waits.next_poke(scheduler.next_poke(), now, besides=ready[0].id))
        return min((time for time in others if time is not None), default=waits.hopeless_at)

    def _pass_time(self, waits: Waits) -> bool:
        """Let triggers run, or move the clock to where somebody can go on; False if nobody ever can."""
        clock, scheduler = self.sandbox.clock, self.sandbox.scheduler
        deadline = scheduler.next_deadline(counts_triggers=not self.sandbox.has_hopeless_triggers)
        rescheduled = scheduler.next_poke()
        poke = waits.next_poke(rescheduled, clock.now)
        times = [time for time in (deadline, poke) if time is not None]
        until = min(times, default=None)
        if self.sandbox.run_triggers(until or waits.hopeless_at):
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
        for task_id in sorted({*(poking.task_id for poking in waits), *self.sandbox.scheduler.waiting()}):
            self.sandbox.journal.blocked(waits_in_vain(task_id))

    def _arrive(self, dag_id: str) -> bool:
        """Take note of the situation; whether it is known how it goes on."""
        situation = self.sandbox.situation(dag_id)
        self._ending = self._endings.get(situation)
        self._situations.setdefault(situation, len(self.sandbox.journal.attempts))
        return self._ending is not None

    def _attempt_of(self, job: RecordJob | RecoverJob, bag: Any) -> Callable[..., None]:
        """Runs one attempt of a queued task of the job's DAG."""
        shares_memory = isinstance(job, RecordJob) and job.shares_memory
        counts_lines = isinstance(job, RecordJob) and job.counts_lines

        def load() -> Any:
            return bag if shares_memory else self.sandbox.load_bag(job.dag.file, job.folder)

        def attempt(task: QueuedTask, keeps_log: bool, waits: Waits, until: datetime) -> None:
            if not shares_memory:
                self.sandbox.forget()
            allowance = waits.allowance(task.id, until)
            taken_back = self.sandbox.attempt(task, load, keeps_log, counts_lines, allowance)
            now = self.sandbox.clock.now
            if taken_back is not None:
                waits.taken_back(task.id, task.task_id, taken_back, now)
            else:
                waits.ended(task.id, self.sandbox.journal.attempts[-1].state, now)
                self.sandbox.take_heart()

        return attempt
