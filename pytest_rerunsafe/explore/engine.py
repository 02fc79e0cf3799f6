"""Does the jobs of one process: loads files, records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..airflow import loading, rerunning, runs, warm_up_dag
from ..model import (
    LATE,
    Acted,
    Backfill,
    Clear,
    CrashKind,
    Death,
    Intervals,
    LoadedFile,
    Outcome,
    Recording,
    RecoveryKind,
    RunKey,
    WorldState,
)
from .dag_processor import Prepare
from .deaths import Befallen, Deaths, look_after, on_another_worker
from .drive import ENDED, Driver
from .jobs import (
    RECOVERY,
    ActJob,
    FindJob,
    LoadJob,
    RecordJob,
    RecordRecoveryJob,
    Recovering,
    RecoverJob,
    Start,
)
from .processes import JobProcesses, Processes
from .recoveries import BY_ITSELF, clear_of
from .sandbox import Sandbox

CLEARED_S = 600.0
"""From the end of a run until a person clears it, at least."""
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
        self.sandbox = Sandbox(rootdir)
        self.processes = Processes(self.sandbox, prepare)
        self._driver = Driver(self.sandbox, self.processes.triggers, self._arrive)
        self._deaths = Deaths(self.sandbox, self._driver, self._act_on)
        self._endings: dict[str, _Ending] = {}
        self._endings_of: object = None
        """What a job must have in common with the one before for its endings to hold."""
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
                crash=None,
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
        bag = self.processes.dag_processor.parse_first(job.file, job.folder, "load")
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
        self._forget_endings()
        if job.initial is None:
            self.processes.dag_processor.place_inputs(job)
        else:
            self.sandbox.begin(job.initial, job.seed, keeps_effects=job.keeps_effects)
        bags = {
            file: self._bag_of_others(job, file) for file in sorted({*job.related.values()} - {job.dag.file})
        }
        initial = self.sandbox.world()
        self.sandbox.journal.effects.clear()
        own = bags[job.dag.file] = self._parsed(job, job.dag.file, {job.dag.dag_id})
        self.sandbox.journal.scheduler_turned()
        # Before the run: Airflow holds assets back from DAGs that were stored after an event.
        self.sandbox.clock.move_to(job.logical_date)
        for bag in (*(bag for bag in bags.values() if bag is not own), own):
            loading.store(bag)
        self.sandbox.journal.scheduler_turned()
        dag = self.sandbox.scheduler.dag(job.dag.dag_id)
        dates = runs.logical_dates(dag, job.logical_date, job.intervals)
        self.sandbox.clock.move_to(runs.starts_at(dag, dates[-1]) + timedelta(seconds=job.delay_s))
        intervals = Intervals(logical_dates=dates, before=self.sandbox.world()) if job.intervals > 1 else None
        try:
            run, outcome = self._run_in_order(job, self.processes.for_job(job, bags), dates)
        except runs.NotCreated as reason:
            raise NotRun(f"Airflow makes no run of this DAG: {reason}") from None
        return Recording(
            initial=initial,
            effects=tuple(self.sandbox.journal.effects) if job.keeps_effects else (),
            final=self.sandbox.world() if job.keeps_effects else initial,
            run=run.key,
            outcome=outcome,
            situations=self._situations,
            intervals=intervals,
        )

    def _run_in_order(
        self, job: RecordJob, processes: JobProcesses, dates: Sequence[datetime]
    ) -> tuple[runs.Run, Outcome]:
        """Run intervals one after the other until one does not succeed; the first run, and how all ended."""
        first: runs.Run | None = None
        for date in dates:
            run = self.sandbox.run(self._run_of(job, date))
            first = first or run
            self.sandbox.journal.scheduler_turned()
            state = self._driver.drive(run.key, processes, may_jump=job.intervals == 1)
            if state != "success":
                break
        assert first is not None, "there is an interval"
        return first, self.sandbox.outcome(first, state, counts_xcoms=job.intervals == 1)

    def _parsed(self, job: RecordJob, file: str, dag_ids: Set[str]) -> Any:
        """The bag of a file that is to give some DAGs."""
        bag = self.processes.dag_processor.parse(file, job.folder)
        if not job.shares_memory:
            self.sandbox.forget()
        if isinstance(bag, str):
            raise NotRun(bag)
        if not dag_ids <= bag.dags.keys():
            raise NotRun(self.sandbox.sources.cut("\n".join(bag.import_errors.values())))
        return bag

    def _bag_of_others(self, job: RecordJob, file: str) -> Any:
        """The bag of a file with DAGs that run along, and no others in it."""
        wanted = {dag_id for dag_id, place in job.related.items() if place == file}
        try:
            bag = self._parsed(job, file, wanted)
        except NotRun as reason:
            raise NotRun(f"{', '.join(sorted(wanted))}, which runs along: {reason}") from None
        bag.dags = {dag_id: bag.dags[dag_id] for dag_id in sorted(wanted)}
        return bag

    def _run_of(self, job: RecordJob, date: datetime) -> RunKey:
        """Make a DagRun of the DAG under test, as the scheduler or a person would."""
        dag = self.sandbox.scheduler.dag(job.dag.dag_id)
        if not job.dag.set_off_by or job.dag.is_scheduled:
            return runs.create(dag, date)
        # A partition, for one, wants more than an event for each asset: then a person starts the run.
        return self.sandbox.scheduler.make_asset_run(job.dag.dag_id) or runs.create(dag, date)

    def recover(self, job: RecoverJob) -> tuple[Outcome, ...]:
        """How recoveries end, in the order of their starts.

        What comes after a situation is run once: the world, not the way there, decides how it goes on.
        """
        self._deaths.forget()
        common = (job.dag, job.run, job.folder, job.clean, job.seed)
        if self._endings_of != common:
            self._endings = {situation: _Ending(None, place) for situation, place in job.clean.items()}
            self._endings_of = common
        return tuple(self._recover(job, start) for start in job.starts)

    def _recover(self, job: RecoverJob, start: Start) -> Outcome:
        self._ending, self._situations = None, {}
        processes = self.processes.for_job(job)
        if job.logical_dates:
            return self._rerun_intervals(job, start, processes)
        befallen: Befallen | None = None
        if start.crash is None or start.recovery is RecoveryKind.CLEAR_RUNNING:
            self.sandbox.begin(on_another_worker(start.world, job), job.seed)
        else:
            befallen = self._deaths.befall(job, start, processes)
            if not befallen.leads_to(start.recovery):
                return Outcome(run_state="missed", task_states={}, attempts=(), outputs={})
        run = self.sandbox.run(job.run)
        is_retry = start.recovery is RecoveryKind.RETRY and start.fault is None
        if is_retry and run.state_of(str(start.task_id), start.map_index) == "failed":
            return self.sandbox.outcome(run, "refused")  # this death Airflow does not retry
        is_zombie = start.crash is CrashKind.ZOMBIE
        if not is_zombie:
            left = befallen.noticed.world if befallen is not None else start.world
            self._act_on(job, start, processes, left)
        # Airflow leaves `upstream_failed` tasks alone when the task above them is cleared (apache/airflow#52640).
        leaves_some = start.crash is not None and "upstream_failed" in run.task_states().values()
        drive = partial(self._driver.drive, job.run, processes, may_jump=not job.keeps_log)
        state = drive(kind="leaves some" if leaves_some else "")
        if leaves_some and state in ENDED and self._is_blocked(run):
            look_after(self.sandbox.clock, CLEARED_S)
            run.clear(Clear(only_failed=True))  # as a person does who wants the run to end well
            state = drive()
        outcome = self._ended(run, state)
        if is_zombie or befallen is None or outcome.as_clean_from is not None:
            return outcome
        noticed, before = befallen.noticed.world.files, befallen.before(start)
        return replace(
            outcome,
            left=None if noticed == start.world.files else noticed,
            raised=befallen.raised,
            by_callbacks=before.by_callbacks if before is not None else {},
        )

    def _is_blocked(self, run: runs.Run) -> bool:
        """Whether nothing failed and yet something could not run for what is above it, whatever Airflow calls the run."""
        states = run.task_states().values()
        return "upstream_failed" in states and "failed" not in states

    def record_recovery(self, job: RecordRecoveryJob) -> Recording:
        """A recovery, effect by effect."""
        self._deaths.forget()
        self._forget_endings()
        processes = self.processes.for_job(job)
        self._deaths.befall(job, job.start, processes)
        initial = self.sandbox.world()
        self.sandbox.begin(initial, job.seed, keeps_effects=True)
        self._act_on(job, job.start, processes, initial)
        self.sandbox.journal.scheduler_turned()
        state = self._driver.drive(job.run, processes)
        return Recording(
            initial=initial,
            effects=tuple(self.sandbox.journal.effects),
            final=self.sandbox.world(),
            run=job.run,
            outcome=self.sandbox.outcome(self.sandbox.run(job.run), state),
            situations={},
        )

    def _act_on(self, job: Recovering, start: Start, processes: JobProcesses, left: WorldState) -> None:
        """Do what the recovery says that a person does, about what was left."""
        run = self.sandbox.run(job.run)
        task_id, map_index = str(start.task_id), start.map_index
        if start.recovery not in BY_ITSELF:
            later_s = DAY_S if start.recovery is RecoveryKind.CLEAR_RUN_DAY_LATER else CLEARED_S
            look_after(self.sandbox.clock, later_s)
        if start.recovery is RecoveryKind.MARK_SUCCESS:
            run.mark(task_id, map_index, "success")
        clear = clear_of(start.recovery, task_id, map_index)
        if clear is not None:
            self.sandbox.is_stale = self._left_by(left, run.clear(clear))
        if start.recovery is RecoveryKind.CLEAR_RUNNING:
            # The server refuses the next heartbeat; the supervisor then kills the process and reports nothing.
            processes.end_supervisor(run.key, task_id, map_index)

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

    def act(self, job: ActJob) -> Acted:
        """What comes of what a person does to runs that have ended."""
        self.sandbox.begin(job.world, RECOVERY)
        processes = self.processes.for_job(job)
        if job.death is not None:
            self._deaths.settle(job.death, processes)
        self.sandbox.clock.advance(job.later_s)
        try:
            touched = self.sandbox.ask(
                f"{job.action} of {job.run}", lambda: rerunning.act(job.run, job.action)
            )
        except rerunning.Refused as refused:
            raise NotRun(str(refused)) from refused
        state = self._driver.drive(job.run, processes)
        outcome = self.sandbox.outcome(self.sandbox.run(job.run), state)
        return Acted(touched=touched, world=self.sandbox.world(), outcome=outcome)

    # --- several intervals --------------------------------------------------------------------

    def _rerun_intervals(self, job: RecoverJob, start: Start, processes: JobProcesses) -> Outcome:
        """Run intervals otherwise than once each, in order."""
        self.sandbox.begin(start.world, job.seed)
        run = self.sandbox.run(job.run)
        if start.recovery in LATE:
            self._recover_late(job, start, run, processes)
            state = self._driver.drive(job.run, processes, counts_all=True)
            return self.sandbox.outcome(run, state, counts_xcoms=False)
        look_after(self.sandbox.clock, CLEARED_S)
        try:
            self._begin_intervals(start.recovery, run, job.logical_dates)
        except rerunning.Refused:
            return self.sandbox.outcome(run, "refused", counts_xcoms=False)
        if start.recovery is RecoveryKind.BACKFILL_BACKWARDS:
            # Airflow allows it. Its own backfill would name the runs otherwise, and so what is named after them.
            self.sandbox.begin(start.world, job.seed)
            look_after(self.sandbox.clock, CLEARED_S)
            for date in job.logical_dates[:0:-1]:
                self._driver.drive(runs.create(run.dag, date), processes)
            runs.create(run.dag, job.logical_dates[0])
        state = self._driver.drive(job.run, processes, counts_all=True)
        return self.sandbox.outcome(run, state, counts_xcoms=False)

    def _recover_late(self, job: RecoverJob, start: Start, run: runs.Run, processes: JobProcesses) -> None:
        """Let a task of the oldest interval die and the newer ones end; then retry it, or clear it as somebody would."""
        due = job.logical_dates[1:]
        death = Death(run=job.run, task_id=str(start.task_id), map_index=start.map_index, due=due)
        self._deaths.settle(death, processes)
        if start.recovery is RecoveryKind.CLEAR_DOWNSTREAM_AFTER_NEWER:
            look_after(self.sandbox.clock, CLEARED_S)
            clear = clear_of(RecoveryKind.CLEAR_DOWNSTREAM, death.task_id, death.map_index)
            assert clear is not None, "a clear clears something"
            run.clear(clear)

    def _begin_intervals(
        self, recovery: RecoveryKind, run: runs.Run, logical_dates: Sequence[datetime]
    ) -> None:
        match recovery:
            case RecoveryKind.CLEAR_RUN_AFTER_NEWER:
                run.clear(Clear())
            case RecoveryKind.CATCHUP:
                for date in logical_dates:
                    runs.create(run.dag, date)
            case _:
                backfill = Backfill(
                    start=logical_dates[0],
                    end=logical_dates[-1],
                    reprocess="none" if recovery is RecoveryKind.BACKFILL_BACKWARDS else "completed",
                    backwards=recovery is not RecoveryKind.BACKFILL_COMPLETED,
                    max_active_runs=1,
                )
                self.sandbox.ask(f"{backfill} of {run.key}", lambda: rerunning.act(run.key, backfill))

    # --- situations ---------------------------------------------------------------------------

    def _forget_endings(self) -> None:
        self._endings, self._endings_of, self._ending, self._situations = {}, None, None, {}

    def _arrive(self, dag_id: str, kind: str) -> bool:
        """Take note of the situation; whether it is known how it goes on."""
        situation = kind + self.sandbox.situation(dag_id)
        self._ending = self._endings.get(situation)
        self._situations.setdefault(situation, len(self.sandbox.journal.attempts))
        return self._ending is not None
