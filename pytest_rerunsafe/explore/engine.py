"""Does the jobs of one process: loads files, records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from ..airflow import loading, runs, warm_up_dag
from ..airflow.scheduling import QueuedTask, Turn, dag_of
from ..model import LoadedFile, Obstacle, Outcome, Recording, RecoveryKind, RunKey, WorldState
from .jobs import FindJob, LoadJob, RecordJob, RecoverJob, Start
from .sandbox import EPOCH, Prepare, Sandbox, Snapshot, waits_in_vain
from .waits import Waits

MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
CLEARED_S = 600.0
"""From the end of a run until a person clears it, at least."""
DAY_S = 86_400.0
ROUND_S, ROUND_AT_S = 600, 71
"""Deaths are noticed and tasks cleared every so often, so many seconds past it: so that recoveries from what happened a
little earlier or later go alike, and what is known of one serves the other. No round time: nothing coincides by chance."""
ENDED = frozenset({"success", "failed"})
MOST_RUNS = 100
"""DagRuns in one world: more are taken for DAGs that set each other off for ever."""
_ENDLESS = Obstacle(
    what=f"DAGs set each other off for more than {MOST_RUNS} runs",
    where=None,
    remedy="Break the circle of triggers, sensors and assets, or `skip` the DAG with a reason.",
)
_NO_ASSET_RUN = Obstacle(
    what="no run comes of one event for each asset of the schedule, as where it waits for partitions",
    where=None,
    remedy="`skip` the DAG with a reason.",
)


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

    attempt: Callable[[QueuedTask, bool, Waits, datetime], None]
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
        try:
            run = self.sandbox.run(self._run_of(job))
        except runs.NotCreated as reason:
            raise NotRun(f"Airflow makes no run of this DAG: {reason}") from None
        self.sandbox.journal.scheduler_turned()
        state = self._drive(run.key, self._processes_of(job, bags), True, may_jump=True)
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

    def _parsed(self, job: RecordJob, file: str, dag_ids: Set[str]) -> Any:
        """The bag of a file that is to give some DAGs."""
        bag = self.sandbox.parse(file, job.folder)
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

    def _run_of(self, job: RecordJob) -> RunKey:
        """Make the DagRun under test, as the scheduler or a person would."""
        dag = self.sandbox.scheduler.dag(job.dag.dag_id)
        self.sandbox.clock.move_to(runs.starts_at(dag, job.logical_date) + timedelta(seconds=job.delay_s))
        if not job.dag.set_off_by or job.dag.is_scheduled:
            return runs.create(dag, job.logical_date)
        made = self.sandbox.scheduler.make_asset_run(job.dag.dag_id)
        if made is None:
            self.sandbox.journal.blocked(_NO_ASSET_RUN)
        return made or runs.create(dag, job.logical_date)

    def recover(self, job: RecoverJob) -> tuple[Outcome, ...]:
        """How recoveries end, in the order of their starts.

        What comes after a situation is run once: the world, not the way there, decides how it goes on.
        """
        self._died = None
        self._endings = {situation: _Ending(None, place) for situation, place in job.clean.items()}
        return tuple(self._recover(job, start) for start in job.starts)

    def _recover(self, job: RecoverJob, start: Start) -> Outcome:
        self._ending, self._situations = None, {}
        processes = self._processes_of(job, {})
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
            load = self._loader_of(job, {}, job.dag.dag_id)
            self.sandbox.lose_worker(job.run, start.task_id, start.map_index, load)
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
        waits = Waits(self.sandbox.clock.now)
        seen: object = None
        for _ in range(MAX_TURNS):
            if may_jump and self._arrive(run[0], kind):
                return "jumped"
            turn = self.sandbox.scheduler.turn()
            self.sandbox.journal.scheduler_turned()
            ready = [task for task in turn.queued if self._is_ready(task, waits, without)]
            alone_until = self._alone_until(waits, ready, seen)
            for task in ready:
                if not self.sandbox.is_queued(task):
                    continue  # another task has cleared it meanwhile: the server refuses it to the worker
                if may_jump and self._arrive(run[0], kind):
                    return "jumped"
                processes.attempt(task, keeps_log, waits, alone_until or self.sandbox.clock.now)
            processes.run_callbacks(turn.callbacks)
            if ready:
                continue
            if all(state in ENDED for state in turn.states.values()):
                self.sandbox.run_triggers(self.sandbox.clock.now)  # ends those whose tasks have gone
                return turn.states[run]
            if len(turn.states) > MOST_RUNS:
                self.sandbox.journal.blocked(_ENDLESS)
                return "stuck"
            # A turn may only change states (a skip, a failure handed on): time passes once a turn changes none.
            if (states := self.sandbox.states()) != seen:
                seen = states
            elif without is not None:
                break
            elif not self._pass_time(waits):
                self._tell_who_waits(waits)
                break
        return self._stuck(run, turn)

    def _is_ready(self, task: QueuedTask, waits: Waits, without: tuple[RunKey, str, int] | None) -> bool:
        if (task.run, task.task_id, task.map_index) == without:
            return False
        return waits.is_ready(task.id, self.sandbox.clock.now)

    def _stuck(self, run: RunKey, turn: Turn) -> str:
        """The state of `run` where nothing can go on: others may hang that it does not wait for."""
        if turn.states[run] not in ENDED:
            return "stuck"
        for dag_id in sorted({key[0] for key, state in turn.states.items() if state not in ENDED}):
            self.sandbox.journal.blocked(
                Obstacle(
                    what=f"the run of the DAG {dag_id} that was set off does not end",
                    where=None,
                    remedy="Check that DAG on its own.",
                )
            )
        return turn.states[run]

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

    def _arrive(self, dag_id: str, kind: str) -> bool:
        """Take note of the situation; whether it is known how it goes on."""
        situation = kind + self.sandbox.situation(dag_id)
        self._ending = self._endings.get(situation)
        self._situations.setdefault(situation, len(self.sandbox.journal.attempts))
        return self._ending is not None

    def _processes_of(self, job: RecordJob | RecoverJob, bags: Mapping[str, Any]) -> _Processes:
        """The processes that run the DAGs' code."""
        shares_memory = isinstance(job, RecordJob) and job.shares_memory
        counts_lines = isinstance(job, RecordJob) and job.counts_lines
        may_repeat = isinstance(job, RecoverJob) and not job.keeps_log
        loader_of = partial(self._loader_of, job, bags if shares_memory else {})

        def attempt(task: QueuedTask, keeps_log: bool, waits: Waits, until: datetime) -> None:
            if not shares_memory:
                self.sandbox.forget()
            allowance = waits.allowance(task.id, until)
            taken_back = self.sandbox.attempt(
                task, loader_of(task.run[0]), keeps_log, counts_lines, may_repeat, allowance
            )
            now = self.sandbox.clock.now
            if taken_back is not None:
                waits.taken_back(task.id, task.task_id, taken_back, now)
            else:
                waits.ended(task.id, self.sandbox.journal.attempts[-1].state, now)
                self.sandbox.take_heart()

        def run_callbacks(requests: Sequence[Any]) -> None:
            for dag_id, group in groupby(requests, key=dag_of):
                self.sandbox.run_callbacks(tuple(group), loader_of(dag_id))

        return _Processes(attempt=attempt, run_callbacks=run_callbacks)

    def _loader_of(
        self, job: RecordJob | RecoverJob, bags: Mapping[str, Any], dag_id: str
    ) -> Callable[[], Any]:
        """Gives the bag of a DAG's file, or parses it afresh where there is none."""
        is_own = dag_id == job.dag.dag_id
        file = job.dag.file if is_own else str(self.sandbox.scheduler.dag(dag_id).fileloc)
        return lambda: bags[file] if file in bags else self.sandbox.load_bag(file, job.folder)
