"""Does the jobs of one process: loads files, records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..airflow import loading, scheduling, warm_up_dag
from ..model import LoadedFile, Outcome, Recording, RecoveryKind, WorldState
from .jobs import FindJob, LoadJob, RecordJob, RecoverJob, Start
from .sandbox import EPOCH, Prepare, Sandbox

MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
DETECTED_S = 60.0
"""From a worker's death until the scheduler notices, at least."""
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
        self.recover(RecoverJob(dag=dag, folder=folder, starts=starts, clean={}, seed=""))

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
        run = self.sandbox.stored_run(job.dag.dag_id)
        self.sandbox.clock.move_to(run.starts_at(job.logical_date) + timedelta(seconds=job.delay_s))
        run.create(job.logical_date)
        self.sandbox.journal.scheduler_turned()
        state = self._drive(run, self._attempt_of(job, bag), True, may_jump=True)
        outcome = self.sandbox.outcome(run, state)
        if not job.keeps_effects:
            return Recording(
                initial=initial, effects=(), final=initial, outcome=outcome, situations=self._situations
            )
        return Recording(
            initial=initial,
            effects=tuple(self.sandbox.journal.effects),
            final=self.sandbox.world(),
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
        run = self.sandbox.stored_run(job.dag.dag_id)  # a new worker learns of it from the state
        drive = partial(self._drive, run, self._attempt_of(job, None), job.keeps_log)
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
            self._wait(DETECTED_S)
            self.sandbox.stored_run(job.dag.dag_id).report_death(start.task_id, start.map_index)
            self._died = start.world, self.sandbox.world()
        else:
            self.sandbox.begin(self._died[1], job.seed)

    def _wait(self, at_least_s: float) -> None:
        """Move the clock on to the next moment at which somebody looks."""
        earliest = self.sandbox.clock.now + timedelta(seconds=at_least_s)
        past = (earliest - EPOCH - timedelta(seconds=ROUND_AT_S)) % timedelta(seconds=ROUND_S)
        self.sandbox.clock.move_to(earliest + (-past) % timedelta(seconds=ROUND_S))

    def _ended(self, run: scheduling.Run, state: str) -> Outcome:
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

    def _cleared(self, run: scheduling.Run, start: Start) -> tuple[str, ...] | None:
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

    def _clear(self, run: scheduling.Run, start: Start, cleared: tuple[str, ...]) -> None:
        is_day_later = start.recovery is RecoveryKind.CLEAR_RUN_DAY_LATER
        self._wait(DAY_S if is_day_later else CLEARED_S)
        self.sandbox.is_stale = self._left_by(start.world, cleared)
        run.clear(cleared)

    def _clear_rest(self, run: scheduling.Run, drive: Callable[..., str]) -> str:
        """Clear what the failed task took down with it, as a person does who wants the run to end well.

        Airflow leaves `upstream_failed` tasks alone when the task above them is cleared (apache/airflow#52640).
        """
        self._wait(CLEARED_S)
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

    def _drive(
        self, run: scheduling.Run, attempt: Callable[..., None], keeps_log: bool, *, may_jump: bool
    ) -> str:
        """Let the scheduler and the workers take turns until the DagRun ends; its state, `stuck` if nothing can go on.

        With `may_jump` it stops where it is known how the run goes on: `self._ending` is then set.
        """
        seen: dict[str, str] = {}
        for _ in range(MAX_TURNS):
            if may_jump and self._arrive(run.dag.dag_id):
                return "jumped"
            state, queued = run.step()
            self.sandbox.journal.scheduler_turned()
            for task in queued:
                if may_jump and self._arrive(run.dag.dag_id):
                    return "jumped"
                attempt(run, task, keeps_log)
            if queued:
                continue
            if state in ("success", "failed"):
                return state
            wakeup = run.next_wakeup()
            if wakeup is not None:
                self.sandbox.clock.move_to(max(wakeup, self.sandbox.clock.now) + timedelta(seconds=1))
                continue
            # A turn may only change states (a skip, a failure handed on): nothing can go on once a turn changes none.
            if (states := run.task_states()) == seen:
                return "stuck"
            seen = states
        return "stuck"

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
        may_repeat = isinstance(job, RecoverJob) and not job.keeps_log

        def load() -> Any:
            return bag if shares_memory else self.sandbox.load_bag(job.dag.file, job.folder)

        def attempt(run: scheduling.Run, task: scheduling.QueuedTask, keeps_log: bool) -> None:
            if not shares_memory:
                self.sandbox.forget()
            self.sandbox.attempt(run, task, load, job.dag.dag_id, keeps_log, counts_lines, may_repeat)

        return attempt
