"""One process's Airflow with its world: records clean runs, runs recoveries. Lives in forked processes only."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..airflow import attempts, inputs, loading, scheduling, warm_up_dag
from ..airflow.answers import Answers, UnansweredMessage
from ..airflow.metadata import MetadataStore
from ..model import (
    Attempt,
    LoadedFile,
    Obstacle,
    Outcome,
    Recording,
    RecoveryKind,
    WorldState,
)
from ..world.clock import Clock
from ..world.entropy import Entropy
from ..world.files import FileStore
from ..world.guard import Guard, ProcessExited, cpu_bound
from ..world.process import ProcessState, capture_output, leftover_threads
from .inputs import World
from .jobs import FindJob, LoadJob, RecordJob, RecoverJob, Start
from .journal import Journal, OpenAttempt
from .outputs import file_outputs
from .sources import Sources

EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)
ATTEMPT_CPU_S = 10.0
"""Processor time that one attempt may take: a task that computes longer is taken for one that never ends."""
LOG_BYTES = 64 * 1024
MAX_TURNS = 10_000
"""Turns of the scheduler in one run, sensors in reschedule mode included."""
DETECTED_S = 60.0
"""From a worker's death until the scheduler notices."""
CLEARED_S = 600.0
"""From the end of a run until a person clears it."""
DAY_S = 86_400.0
THREADS_S = 2.0
_REAL_MODULES = tuple(
    f"pytest_rerunsafe.{name}" for name in ("explore.channel", "explore.pool", "explore.zygote")
)
"""Modules of ours that work on the real operating system."""

Prepare = Callable[[str, Any, World], None]
"""Puts a DAG's inputs in place: DAG file, Airflow DAG, world."""


class NotRun(Exception):
    """A DAG could not be run at all: its file does not give it once the inputs are in place. The argument says why."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a situation goes on: as the rest of an outcome, None standing for that of a clean run."""

    outcome: Outcome | None
    place: tuple[int, int]
    """Which of the clean runs, and the number of its attempts before the situation."""


class Engine:
    """Airflow and the world of one process."""

    def __init__(self, rootdir: Path, prepare: Prepare) -> None:
        self._prepare = prepare
        self._exit = os._exit
        self.on_bound: Callable[[Obstacle], None] = lambda obstacle: None
        """Called when an attempt has used up its processor time; must not return."""
        self.on_attempt: Callable[[], None] = lambda: None
        """Called at the start of each attempt."""
        self._sources = Sources(rootdir)
        self._metadata = MetadataStore()
        self._journal = Journal(self._sources, self._metadata.capture, keeps_effects=False)
        self._guard = Guard(
            locate=self._sources.locate,
            on_obstacle=lambda obstacle: self._journal.blocked(obstacle),
            on_exit=lambda code: self._freeze(),
        )
        self._frozen: tuple[int, WorldState] | None = None
        self._put_patches_on(rootdir)
        self._metadata.aside = self._aside
        self._base = WorldState(files={}, rows=dict(self._metadata.rows), clock=EPOCH)
        self._seed = ""
        self._stale: Callable[[str, str], bool] = lambda task_id, key: False
        self._died: tuple[WorldState, WorldState] | None = None
        """The last state that a worker died in, before and after Airflow knew: recoveries from one state follow each other."""
        self._endings: dict[str, _Ending] = {}
        self._ending: _Ending | None = None
        self._situations: dict[str, int] = {}
        self._runs: dict[str, tuple[object, scheduling.Run]] = {}

    def _put_patches_on(self, rootdir: Path) -> None:
        folders = _system_folders()  # before the file system is a fake one
        self._guard.install()
        self._files = FileStore(skip_modules=_REAL_MODULES, on_unsupported=self._unsupported)
        self._files.start()
        self._files.mount(rootdir, folders)
        self._clock = Clock.start(EPOCH)
        self._entropy = Entropy.start("")
        os.chdir(rootdir)
        self._process = ProcessState.capture(roots=[str(rootdir)], chdir=os.chdir, getcwd=os.getcwd)

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

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Inside, code of ours may reach the real world although a DAG runs."""
        with self._guard.lifted():
            yield

    def hide(self, fd: int) -> None:
        """Let no DAG code close a descriptor of ours, nor write to it."""
        self._files.hide(fd)

    def forget(self) -> None:
        """Undo what the last job's code did to this process."""
        self._process.restore()

    def exit_now(self) -> NoReturn:
        """End this process, whatever the DAG has done to the functions that do."""
        self._exit(0)

    # --- jobs ---------------------------------------------------------------------------------

    def find(self, job: FindJob) -> tuple[str, ...]:
        """The DAG files among files and folders."""
        return loading.find_dag_files(job.paths)

    def load(self, job: LoadJob) -> LoadedFile:
        """What a DAG file holds."""
        bag = self._parse_first(job.file, job.folder, "load")
        self._process.restore()
        if isinstance(bag, str):
            return LoadedFile(file=job.file, dags=(), error=bag, obstacles=tuple(self._journal.obstacles))
        loaded = loading.describe(job.file, bag)
        return replace(
            loaded, error=self._sources.cut(loaded.error), obstacles=tuple(self._journal.obstacles)
        )

    def record(self, job: RecordJob) -> Recording:
        """A clean run, effect by effect."""
        self._place_inputs(job)
        initial = self._world()
        self._journal.effects.clear()
        bag = self._parse(job.dag.file, job.folder)
        if not job.shares_memory:
            self._process.restore()
        if isinstance(bag, str):
            raise NotRun(bag)
        if job.dag.dag_id not in bag.dags:
            raise NotRun(self._sources.cut("\n".join(bag.import_errors.values())))
        self._journal.scheduler_turned()
        loading.store(bag)
        run = self._stored_run(job.dag.dag_id)
        self._clock.move_to(run.starts_at(job.logical_date) + timedelta(seconds=job.delay_s))
        run.create(job.logical_date)
        self._journal.scheduler_turned()
        state = self._drive(run, self._attempt_of(job, bag), True, may_jump=True)
        outcome = self._outcome(run, state)
        if not job.keeps_effects:
            return Recording(
                initial=initial, effects=(), final=initial, outcome=outcome, situations=self._situations
            )
        return Recording(
            initial=initial,
            effects=tuple(self._journal.effects),
            final=self._world(),
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
        if start.is_crash:
            self._die(job, start)
        else:
            self._begin(start.world, job.seed)
        run = self._stored_run(job.dag.dag_id)  # a new worker learns of it from the state
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
            self._begin(start.world, job.seed)
            self._clock.advance(DETECTED_S)
            self._stored_run(job.dag.dag_id).report_death(start.task_id, start.map_index)
            self._died = start.world, self._world()
        else:
            self._begin(self._died[1], job.seed)

    def _ended(self, run: scheduling.Run, state: str) -> Outcome:
        """The outcome of a recovery; from now on it tells how each situation that was passed ends."""
        ending = self._ending
        outcome = self._outcome(run, state) if ending is None else self._continued(ending)
        for situation, done in self._situations.items():
            self._endings.setdefault(situation, _Ending(outcome, (0, done)))
        return outcome

    def _continued(self, ending: _Ending) -> Outcome:
        """What an earlier run makes of the rest."""
        mine = tuple(self._journal.attempts)
        if ending.outcome is None:
            return Outcome(
                run_state="success",
                task_states={},
                attempts=mine,
                outputs={},
                obstacles=tuple(self._journal.obstacles),
                as_clean_from=ending.place,
            )
        rest = ending.outcome.attempts[ending.place[1] :]
        obstacles = dict.fromkeys((*self._journal.obstacles, *ending.outcome.obstacles))
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
        self._clock.advance(DAY_S if is_day_later else CLEARED_S)
        self._stale = self._left_by(start.world, cleared)
        run.clear(cleared)

    def _clear_rest(self, run: scheduling.Run, drive: Callable[..., str]) -> str:
        """Clear what the failed task took down with it, as a person does who wants the run to end well.

        Airflow leaves `upstream_failed` tasks alone when the task above them is cleared (apache/airflow#52640).
        """
        self._clock.advance(CLEARED_S)
        run.clear(None, only_failed=True)
        return drive(may_jump=True)

    def _left_by(self, world: WorldState, cleared: tuple[str, ...]) -> Callable[[str, str], bool]:
        """Tells whether an XCom that is read now was left by an attempt that has been cleared and not run again."""
        before = {key: row for key, row in world.rows.items() if key[0] == "xcom"}

        def is_stale(task_id: str, key: str) -> bool:
            if task_id not in cleared:
                return False
            return any(
                self._metadata.row(rowkey) == row and {task_id, key} <= set(row)
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
            self._journal.scheduler_turned()
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
                self._clock.move_to(max(wakeup, self._clock.now) + timedelta(seconds=1))
                continue
            # A turn may only change states (a skip, a failure handed on): nothing can go on once a turn changes none.
            if (states := run.task_states()) == seen:
                return "stuck"
            seen = states
        return "stuck"

    def _arrive(self, dag_id: str) -> bool:
        """Take note of the situation; whether it is known how it goes on."""
        situation = self._situation(dag_id)
        self._ending = self._endings.get(situation)
        self._situations.setdefault(situation, len(self._journal.attempts))
        return self._ending is not None

    def _situation(self, dag_id: str) -> str:
        """A digest of all that the rest of the run depends on: files, what Airflow knows, the day."""
        digest = hashlib.blake2b(repr(self._clock.now.date()).encode(), digest_size=16)
        for path, node in sorted(self._files.state.items()):
            digest.update(f"{path} {node.kind} {node.mode} {len(node.content)} ".encode())
            digest.update(node.content)
        for part in inputs.situation(self._metadata, dag_id):
            digest.update(repr(part).encode())
        return digest.hexdigest()

    def _attempt_of(self, job: RecordJob | RecoverJob, bag: Any) -> Callable[..., None]:
        """Runs one attempt of a queued task of the job's DAG."""
        shares_memory = isinstance(job, RecordJob) and job.shares_memory
        counts_lines = isinstance(job, RecordJob) and job.counts_lines

        def load() -> Any:
            return bag if shares_memory else self._load_bag(job.dag.file, job.folder)

        def attempt(run: scheduling.Run, task: scheduling.QueuedTask, keeps_log: bool) -> None:
            if not shares_memory:
                self._process.restore()
            self._attempt(run, task, load, job.dag.dag_id, keeps_log, counts_lines)

        return attempt

    def _attempt(
        self,
        run: scheduling.Run,
        task: scheduling.QueuedTask,
        load: Callable[[], Any],
        dag_id: str,
        keeps_log: bool,
        counts_lines: bool,
    ) -> None:
        self.on_attempt()
        self._clock.advance(1)
        self._entropy.seed(f"{self._seed}/{task.task_id}/{task.map_index}/{task.try_number}")
        journal = self._journal
        journal.current = opened = OpenAttempt(
            task_id=task.task_id,
            map_index=task.map_index,
            try_number=task.try_number,
            started=self._clock.now,
        )
        answers = Answers(task.id, self._ask, on_effect=journal.metadata_changed, is_stale=self._stale)
        attempt = attempts.Attempt(task, answers)
        opened.may_retry = attempt.may_retry
        journal.metadata_changed("state", "running")
        with ExitStack() as stack:
            printed = stack.enter_context(capture_output(LOG_BYTES))
            lines = stack.enter_context(self._sources.counted_lines()) if counts_lines else lambda: 0
            exit_code, error = self._execute(attempt, load, dag_id, attempts.TaskLog(keeps_log))
            executed = lines()
        state = attempt.end(exit_code or 0, lambda: run.report_death(task.task_id, task.map_index))
        journal.metadata_changed("state", state)
        journal.attempts.append(
            Attempt(
                task_id=opened.task_id,
                map_index=opened.map_index,
                try_number=opened.try_number,
                started=opened.started,
                state=state,
                may_retry=opened.may_retry,
                exit_code=exit_code,
                executed_lines=executed,
                failed_operations=tuple(opened.failed_operations),
                xcom_reads=tuple(answers.reads),
                stale_xcom_reads=tuple(name for name, is_stale in answers.reads.items() if is_stale),
                error=self._sources.describe(error) if error is not None else "",
                missing_input=attempts.missing_input(error),
                log=printed.getvalue() if keeps_log else "",
            )
        )
        journal.current = None

    def _execute(
        self, attempt: attempts.Attempt, load: Callable[[], Any], dag_id: str, log: attempts.TaskLog
    ) -> tuple[int | None, BaseException | None]:
        """Run the task as its process would; the process's exit code if it ended by itself, and the exception."""
        before = threading.enumerate()
        self._frozen = None
        exit_code: int | None = None
        error: BaseException | None = None
        try:
            with self._clock.ticking(), self._guard.up(), cpu_bound(ATTEMPT_CPU_S, self._out_of_time):
                error = attempt.execute(load, dag_id, log)
        except ProcessExited as exited:
            exit_code = exited.exit_code
        except attempts.NotLoaded as failed:
            exit_code, error = 1, failed
        except UnansweredMessage as unanswered:
            exit_code, error = 1, unanswered
            self._journal.blocked(_unanswered(unanswered))
        except (SystemExit, KeyboardInterrupt) as exited_early:
            exit_code, error = 1, exited_early
        except Exception as failed_anyhow:
            exit_code, error = 1, failed_anyhow
        self._end_of_process(before)
        return exit_code, error

    def _end_of_process(self, before: list[threading.Thread]) -> None:
        if self._frozen is not None:
            self._thaw()
        for thread in leftover_threads(before, patience_s=THREADS_S):
            self._journal.blocked(
                Obstacle(
                    what=f"the thread {thread.name} outlives its task",
                    where=None,
                    remedy="Join threads before the task ends.",
                )
            )
        self._files.drop_open_files()

    def _unsupported(self, what: str) -> None:
        self._journal.blocked(
            Obstacle(
                what=f"{what} cannot be followed",
                where=self._journal.where(sys._getframe(1)),
                remedy="Read and write the file with `open` instead, or `skip` the DAG with a reason.",
            )
        )

    def _freeze(self) -> None:
        """The process has gone: what code of it still runs here changes nothing any more."""
        if self._frozen is None:
            self._frozen = len(self._journal.effects), self._world()

    def _thaw(self) -> None:
        assert self._frozen is not None, "only called when frozen"
        count, world = self._frozen
        del self._journal.effects[count:]
        self._files.drop_open_files()
        self._files.restore(world.files)
        self._metadata.restore(world.rows)
        self._frozen = None

    def _out_of_time(self, frame: FrameType | None) -> None:
        task = self._journal.current.task_id if self._journal.current else "loading the DAG file"
        self.on_bound(
            Obstacle(
                what=f"{task} did not end within {ATTEMPT_CPU_S:.0f} s of processor time",
                where=self._journal.where(frame),
                remedy="Give it smaller inputs in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
            )
        )

    # --- the world ----------------------------------------------------------------------------

    def _begin(self, world: WorldState, seed: str, *, keeps_effects: bool = False) -> None:
        """Make the world that of a state, with an empty journal."""
        self._files.end()
        self._files.drop_open_files()
        self._process.restore()
        self._files.restore(world.files)
        self._metadata.restore(world.rows)
        self._clock.move_to(world.clock)
        self._seed = seed
        self._entropy.seed(seed)
        self._stale = lambda task_id, key: False
        self._ending = None
        self._situations = {}
        self._journal = journal = Journal(self._sources, self._metadata.capture, keeps_effects)
        self._files.begin(journal.file_changed if keeps_effects else None, journal.operation_failed)

    def _stored_run(self, dag_id: str) -> scheduling.Run:
        """The run of a stored DAG, which is read anew only if another DAG of that id has been stored."""
        stored = self._metadata.table("serialized_dag")
        known = self._runs.get(dag_id)
        if known is None or known[0] != stored:
            known = self._runs[dag_id] = stored, scheduling.Run(dag_id, self._ask)
        return known[1]

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Inside, Airflow's server and scheduler draw time and randomness that no task sees."""
        with self._clock.ticking(False), self._entropy.aside(f"airflow/{self._clock.now}"):
            yield

    def _ask(self, question: str, function: Callable[[], Any]) -> Any:
        with self._clock.ticking(False):
            now = self._clock.now
        return self._metadata.ask((now, question), function)

    def _world(self) -> WorldState:
        self._metadata.capture()
        return WorldState(
            files=dict(self._files.state), rows=dict(self._metadata.rows), clock=self._clock.now
        )

    def _place_inputs(self, job: RecordJob) -> None:
        """Let the project's conftest put the DAG's inputs in place.

        The hook is given the DAG of a parse whose effects are undone first.
        """
        self._endings = {}
        bag = self._parse_first(job.dag.file, job.folder, job.seed)
        dag = None if isinstance(bag, str) else bag.dags.get(job.dag.dag_id)
        self._begin(self._base, job.seed, keeps_effects=job.keeps_effects)
        if job.prepares:
            self._prepare(job.dag.file, dag, World())
        self._process.restore()

    def _parse_first(self, file: str, folder: str, seed: str) -> Any:
        """As `_parse`; a file that fails is tried again with the inputs that the hook gives when it knows of no DAG."""
        self._begin(self._base, seed)
        bag = self._parse(file, folder)
        if not isinstance(bag, str) and not bag.import_errors:
            return bag
        obstacles = self._journal.obstacles
        self._begin(self._base, seed)
        try:
            self._prepare(file, None, World())
        except Exception:
            self._journal.obstacles = obstacles
            return bag  # a hook that cannot do without the DAG
        self._process.restore()
        again = self._parse(file, folder)
        return bag if isinstance(again, str) else again

    def _parse(self, file: str, folder: str) -> Any:
        """The DagBag of a file, parsed as the DAG processor does; the reason as text if that process would have ended."""
        answers = Answers(None, self._ask, on_effect=self._journal.metadata_changed)
        try:
            with (
                self._clock.ticking(),
                self._guard.up(),
                cpu_bound(ATTEMPT_CPU_S, self._out_of_time),
                attempts.supervised_by(answers),
            ):
                return self._load_bag(file, folder)
        except ProcessExited as exited:
            return f"Loading the file ended the process with exit code {exited.exit_code}."
        except UnansweredMessage as unanswered:
            self._journal.blocked(_unanswered(unanswered))
            return f"Loading the file needs what cannot be answered here: {unanswered}."
        except SystemExit as left:
            return f"Loading the file called sys.exit({left.code!r})."
        except KeyboardInterrupt:
            return "Loading the file raised KeyboardInterrupt."
        finally:
            self._files.drop_open_files()

    def _load_bag(self, file: str, folder: str) -> Any:
        self._journal.is_parse = True
        sys.path[:0] = [path for path in (folder, os.getcwd()) if path not in sys.path]
        try:
            return loading.load_bag(file, folder)
        finally:
            self._journal.is_parse = False

    def _outcome(self, run: scheduling.Run, state: str) -> Outcome:
        return Outcome(
            run_state=state,
            task_states=run.task_states(),
            attempts=tuple(self._journal.attempts),
            outputs={**file_outputs(self._files.state), **inputs.outputs(self._metadata, run.dag.dag_id)},
            obstacles=tuple(self._journal.obstacles),
        )


def _system_folders() -> tuple[Path, ...]:
    """What every machine has that runs Python, whatever else there is on it."""
    folders = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
    folders |= {"/usr/share/zoneinfo", "/etc", str(Path(__file__).parents[1])}
    return tuple(Path(folder) for folder in sorted(folders) if os.path.isdir(folder))


def _unanswered(message: UnansweredMessage) -> Obstacle:
    return Obstacle(
        what=f"Airflow's request {message} is not answered here",
        where=None,
        remedy="`skip` the DAG with a reason; please report what it does.",
    )
