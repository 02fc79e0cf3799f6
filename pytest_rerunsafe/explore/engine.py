"""Does the jobs of one process: loads files, records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..airflow import loading, runs, warm_up_dag
from ..airflow.scheduling import QueuedTask
from ..model import LoadedFile, Outcome, Recording, RecoveryKind, RunKey, WorldState
from .jobs import FindJob, LoadJob, RecordJob, RecoverJob, Start
from .sandbox import EPOCH, Prepare, Sandbox, Snapshot

MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
CLEARED_S = 600.0
"""From the end of a run until a person clears it, at least."""
DAY_S = 86_400.0
ROUND_S, ROUND_AT_S = 600, 71
"""Deaths are noticed and tasks cleared every so often, so many seconds past it: so that recoveries from what happened a
little earlier or later go alike, and what is known of one serves the other. No round time: nothing coincides by chance."""


class NotRun(Exception):
    """A DAG could not be run at all: its file does not give it once the inputs are in place. The argument says why."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a situation goes on: as the rest of an outcome, None standing for that of a clean run."""

    outcome: Outcome | None
    place: tuple[int, int]
    """Which of the clean runs, and the number of its attempts before the situation."""


@dataclass(slots=True)
class _Death:
    """A worker's death and what came of it."""

    start: WorldState
    noticed: Snapshot
    """Airflow has noticed it."""
    settled: Snapshot | None = None
    """And whatever could go on without the dead task has ended."""


@dataclass(frozen=True, slots=True)
class _Processes:
    """What runs the DAG's code while the scheduler takes its turns."""

    attempt: Callable[[QueuedTask, bool], None]
    """A worker's: one attempt of a queued task, with its log or without."""
    run_callbacks: Callable[[Sequence[Any]], None]
    """The DAG processor's: what the scheduler asks of it."""


class Engine:
    """Does the jobs of one process."""

    def __init__(self, rootdir: Path, prepare: Prepare) -> None:
        self.sandbox = Sandbox(rootdir, prepare)
        self._died: _Death | None = None
        """The last one: recoveries from one state follow each other."""
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
        try:
            run = self.sandbox.run(runs.create(dag, job.logical_date))
        except runs.NotCreated as reason:
            raise NotRun(f"Airflow makes no run of this DAG: {reason}") from None
        self.sandbox.journal.scheduler_turned()
        state = self._drive(run.key, self._processes_of(job, bag), True, may_jump=True)
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
        processes = self._processes_of(job, None)
        if start.is_crash:
            self._die(job, start, processes)
        else:
            self.sandbox.begin(start.world, job.seed)
        run = self.sandbox.run(job.run)
        cleared = self._cleared(run, start)
        if cleared is not None:
            self._clear(run, start, cleared)
        # Airflow leaves `upstream_failed` tasks alone when the task above them is cleared (apache/airflow#52640).
        leaves_some = start.is_crash and "upstream_failed" in run.task_states().values()
        drive = partial(self._drive, job.run, processes, job.keeps_log, may_jump=not job.keeps_log)
        state = drive(kind="leaves some" if leaves_some else "")
        if leaves_some and state == "failed" and "failed" not in run.task_states().values():
            self._wait(CLEARED_S)
            run.clear(None, only_failed=True)  # as a person does who wants the run to end well
            state = drive()
        return self._ended(run, state)

    def _die(self, job: RecoverJob, start: Start, processes: _Processes) -> None:
        """Make the world what it is when Airflow knows that the task's worker has died in the state.

        For a clear also the rest of the run has come to its end without the dead task: so it is by the time that somebody
        has a look.
        """
        assert start.task_id is not None, "only a task's worker can crash"
        if self._died is None or self._died.start is not start.world:
            self.sandbox.begin(start.world, job.seed)
            self._wait(self.sandbox.scheduler.heartbeat_timeout_s + 1)
            self.sandbox.lose_worker(job.run, start.task_id, start.map_index, self._loader_of(job, None))
            self._died = _Death(start.world, self.sandbox.snapshot())
        death = self._died
        if start.recovery is not RecoveryKind.RETRY and death.settled is None:
            self.sandbox.resume(death.noticed, job.seed)
            dead = (job.run, start.task_id, start.map_index)
            self._drive(job.run, processes, job.keeps_log, without=dead)
            death.settled = self.sandbox.snapshot()
        snapshot = death.noticed if start.recovery is RecoveryKind.RETRY else death.settled
        assert snapshot is not None, "made above"
        self.sandbox.resume(snapshot, job.seed)

    def _wait(self, at_least_s: float) -> None:
        """Move the clock on to the next moment at which somebody looks."""
        earliest = self.sandbox.clock.now + timedelta(seconds=at_least_s)
        past = (earliest - EPOCH - timedelta(seconds=ROUND_AT_S)) % timedelta(seconds=ROUND_S)
        self.sandbox.clock.move_to(earliest + (-past) % timedelta(seconds=ROUND_S))

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
                notes=tuple(self.sandbox.journal.notes),
                as_clean_from=ending.place,
            )
        rest = ending.outcome.attempts[ending.place[1] :]
        obstacles = dict.fromkeys((*self.sandbox.journal.obstacles, *ending.outcome.obstacles))
        notes = dict.fromkeys((*self.sandbox.journal.notes, *ending.outcome.notes))
        return replace(
            ending.outcome, attempts=(*mine, *rest), obstacles=tuple(obstacles), notes=tuple(notes)
        )

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
        self._wait(DAY_S if is_day_later else CLEARED_S)
        self.sandbox.is_stale = self._left_by(start.world, cleared)
        run.clear(cleared)

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

    def _drive(
        self,
        run: RunKey,
        processes: _Processes,
        keeps_log: bool,
        *,
        may_jump: bool = False,
        kind: str = "",
        without: tuple[RunKey, str, int] | None = None,
    ) -> str:
        """Let the scheduler and the workers take turns until all DagRuns have ended; the state of `run`, `stuck` if
        nothing can go on.

        With `may_jump` it stops where it is known how a run of that kind goes on: `self._ending` is then set. Without one
        task instance it goes as far as it gets while nobody retries that, nor waits.
        """
        seen: object = None
        for _ in range(MAX_TURNS):
            if may_jump and self._arrive(run[0], kind):
                return "jumped"
            turn = self.sandbox.scheduler.turn()
            self.sandbox.journal.scheduler_turned()
            queued = [task for task in turn.queued if (task.run, task.task_id, task.map_index) != without]
            for task in queued:
                if may_jump and self._arrive(run[0], kind):
                    return "jumped"
                processes.attempt(task, keeps_log)
            processes.run_callbacks(turn.callbacks)
            if queued:
                continue
            if all(state in ("success", "failed") for state in turn.states.values()):
                return turn.states[run]
            wakeup = self.sandbox.scheduler.next_wakeup() if without is None else None
            if wakeup is not None:
                self.sandbox.clock.move_to(max(wakeup, self.sandbox.clock.now) + timedelta(seconds=1))
                continue
            # A turn may only change states (a skip, a failure handed on): nothing can go on once a turn changes none.
            if (states := self.sandbox.states()) == seen:
                return "stuck"
            seen = states
        return "stuck"

    def _arrive(self, dag_id: str, kind: str) -> bool:
        """Take note of the situation; whether it is known how it goes on."""
        situation = kind + self.sandbox.situation(dag_id)
        self._ending = self._endings.get(situation)
        self._situations.setdefault(situation, len(self.sandbox.journal.attempts))
        return self._ending is not None

    def _processes_of(self, job: RecordJob | RecoverJob, bag: Any) -> _Processes:
        """The processes that run code of the job's DAG."""
        shares_memory = isinstance(job, RecordJob) and job.shares_memory
        counts_lines = isinstance(job, RecordJob) and job.counts_lines
        load = self._loader_of(job, bag if shares_memory else None)
        may_repeat = isinstance(job, RecoverJob) and not job.keeps_log

        def attempt(task: QueuedTask, keeps_log: bool) -> None:
            if not shares_memory:
                self.sandbox.forget()
            self.sandbox.attempt(task, load, keeps_log, counts_lines, may_repeat)

        return _Processes(attempt=attempt, run_callbacks=partial(self.sandbox.run_callbacks, load=load))

    def _loader_of(self, job: RecordJob | RecoverJob, bag: Any) -> Callable[[], Any]:
        """Gives the bag, or parses the job's DAG file afresh where there is none."""
        return lambda: bag or self.sandbox.load_bag(job.dag.file, job.folder)
