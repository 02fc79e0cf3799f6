"""Airflow with its world in one process: a state in, what happens out. Lives in forked processes only."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..airflow import attempts, inputs, loading, sensors
from ..airflow.answers import Answers, UnansweredMessage
from ..airflow.metadata import MetadataStore
from ..airflow.runs import Run
from ..airflow.scheduling import NoSuchRun, QueuedTask, Scheduler
from ..airflow.triggers import Triggerer
from ..model import Attempt, Obstacle, Outcome, Row, RowKey, RunKey, WorldState
from ..world.clock import Clock
from ..world.entropy import Entropy
from ..world.files import FileStore
from ..world.guard import Guard, ProcessExited, cpu_bound
from ..world.process import ProcessState, capture_output, leftover_threads
from .inputs import World
from .jobs import RecordJob
from .journal import Journal, OpenAttempt
from .memo import Memo
from .outputs import file_outputs
from .sources import Sources
from .waits import EXACT_POKES, Allowance, TakenBack, stretched

EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)
ATTEMPT_CPU_S = 10.0
"""Processor time that one attempt may take: a task that computes longer is taken for one that never ends."""
LOG_BYTES = 64 * 1024
THREADS_S = 2.0
_REAL_MODULES = tuple(
    f"pytest_rerunsafe.{name}" for name in ("explore.channel", "explore.pool", "explore.zygote")
)
"""Modules of ours that work on the real operating system."""

Prepare = Callable[[str, Any, World], None]
"""Puts a DAG's inputs in place: DAG file, Airflow DAG, world."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A place in a run without recording."""

    world: WorldState
    attempts: tuple[Attempt, ...]
    obstacles: tuple[Obstacle, ...]
    notes: tuple[Obstacle, ...]


class Sandbox:
    """The world of one process, with the patches that keep DAG code in it."""

    def __init__(self, rootdir: Path, prepare: Prepare) -> None:
        self._prepare = prepare
        self._exit = os._exit
        self.on_bound: Callable[[Obstacle], None] = lambda obstacle: None
        """Called when an attempt has used up its processor time; must not return."""
        self.on_attempt: Callable[[], None] = lambda: None
        """Called at the start of each attempt."""
        self.sources = Sources(rootdir)
        self._metadata = MetadataStore()
        self.journal = Journal(self.sources, self._metadata.capture, keeps_effects=False)
        """What happened since `begin`."""
        self._guard = Guard(
            locate=self.sources.locate,
            on_obstacle=lambda obstacle: self.journal.blocked(obstacle),
            on_exit=lambda code: self._freeze(),
        )
        self._frozen: tuple[int, WorldState] | None = None
        self._put_patches_on(rootdir)
        self._metadata.aside = self._aside
        self._memo = Memo(self._files, self._metadata, self.clock)
        self.base = WorldState(files={}, rows=dict(self._metadata.rows), clock=EPOCH)
        """An Airflow that knows no DAG, and no files."""
        self._seed = ""
        self._has_run = False
        self.is_stale: Callable[[str, str], bool] = lambda task_id, key: False
        """Whether an XCom that a task reads now was left by an attempt that is to be forgotten."""
        self._scheduler: tuple[object, Scheduler] | None = None
        self._triggerer: Triggerer | None = None
        self._slices = 0
        self._folder = ""

    def _put_patches_on(self, rootdir: Path) -> None:
        folders = _system_folders()  # before the file system is a fake one
        self._guard.install()
        self._files = FileStore(skip_modules=_REAL_MODULES, on_unsupported=self._unsupported)
        self._files.start()
        self._files.mount(rootdir, folders)
        self.clock = Clock.start(EPOCH)
        self._entropy = Entropy.start("")
        os.chdir(rootdir)
        self._process = ProcessState.capture(roots=[str(rootdir)], chdir=os.chdir, getcwd=os.getcwd)

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Inside, code of ours may reach the real world although a DAG runs."""
        with self._guard.lifted():
            yield

    def hide(self, fd: int) -> None:
        """Let no DAG code close a descriptor of ours, nor write to it."""
        self._files.hide(fd)

    def forget(self) -> None:
        """Undo what DAG code has done to this process since the last time."""
        if self._has_run:
            self._process.restore()
            self._has_run = False

    def exit_now(self) -> NoReturn:
        """End this process, whatever the DAG has done to the functions that do."""
        self._exit(0)

    # --- the world ----------------------------------------------------------------------------

    def begin(self, world: WorldState, seed: str, *, keeps_effects: bool = False) -> None:
        """Make the world that of a state, with an empty journal."""
        self._end_triggerer()
        self._files.end()
        self._files.drop_open_files()
        self.forget()
        self._files.restore(world.files)
        self._metadata.restore(world.rows)
        self.clock.move_to(world.clock)
        self._seed = seed
        self._entropy.seed(seed)
        self.is_stale = lambda task_id, key: False
        self.journal = journal = Journal(self.sources, self._metadata.capture, keeps_effects)
        self._files.begin(journal.file_changed if keeps_effects else None, journal.operation_failed)

    def snapshot(self) -> Snapshot:
        """The world and what has happened since `begin`, to go on from more than once."""
        journal = self.journal
        return Snapshot(self.world(), (*journal.attempts,), (*journal.obstacles,), (*journal.notes,))

    def resume(self, snapshot: Snapshot, seed: str) -> None:
        """Make the world and the journal those of a snapshot."""
        self.begin(snapshot.world, seed)
        self.journal.attempts += snapshot.attempts
        self.journal.obstacles += snapshot.obstacles
        self.journal.notes += snapshot.notes

    def world(self) -> WorldState:
        """What the world is now."""
        self._metadata.capture()
        return WorldState(files=dict(self._files.state), rows=dict(self._metadata.rows), clock=self.clock.now)

    def row(self, key: RowKey) -> Row | None:
        """One row of the metadata database; None if there is none."""
        return self._metadata.row(key)

    def states(self) -> object:
        """The states of all DagRuns and task instances."""
        return self._metadata.states()

    def is_queued(self, task: QueuedTask) -> bool:
        """Whether a task still waits for its worker."""
        return (*task.run, task.task_id, task.map_index, "queued") in self._metadata.states()

    def situation(self, dag_id: str) -> str:
        """A digest of all that the rest of the run depends on: files, what Airflow knows, the day."""
        digest = hashlib.blake2b(repr(self.clock.now.date()).encode(), digest_size=16)
        for path, node in sorted(self._files.state.items()):
            digest.update(f"{path} {node.kind} {node.mode} {len(node.content)} ".encode())
            digest.update(node.content)
        for part in inputs.situation(self._metadata, dag_id):
            digest.update(repr(part).encode())
        return digest.hexdigest()

    def outcome(self, run: Run, state: str, *, counts_xcoms: bool = True) -> Outcome:
        """How a run has ended, all of it since `begin`."""
        metadata = inputs.outputs(self._metadata, run.key if counts_xcoms else None)
        return Outcome(
            run_state=state,
            task_states=run.task_states(),
            attempts=tuple(self.journal.attempts),
            outputs={**file_outputs(self._files.state), **metadata},
            obstacles=tuple(self.journal.obstacles),
            notes=tuple(self.journal.notes),
        )

    @property
    def scheduler(self) -> Scheduler:
        """Airflow's scheduler; a new one when other DAGs have been stored."""
        stored = self._metadata.table("serialized_dag")
        if self._scheduler is None or self._scheduler[0] != stored:
            with self._aside():
                self._scheduler = stored, Scheduler(self.ask)
        return self._scheduler[1]

    def run(self, key: RunKey) -> Run:
        """A DagRun in the metadata database."""
        return Run(key, self.scheduler.dag(key[0]), self.ask)

    def ask(self, question: str, function: Callable[[], Any]) -> Any:
        """What a function of Airflow's returns in the present state; `question` must tell it from others."""
        with self.clock.still() as now:
            return self._metadata.ask((now, question), function)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Inside, Airflow's server and scheduler draw time and randomness that no task sees."""
        with self.clock.ticking(False), self._entropy.aside(f"airflow/{self.clock.now}"):
            yield

    # --- loading ------------------------------------------------------------------------------

    def place_inputs(self, job: RecordJob) -> None:
        """Let the project's conftest put the DAG's inputs in place.

        The hook is given the DAG of a parse whose effects are undone first.
        """
        files = {**job.related, job.dag.dag_id: job.dag.file}  # its own inputs last: they hold
        dags = [(file, self._dag_for_hook(dag_id, file, job)) for dag_id, file in files.items()]
        self.begin(self.base, job.seed, keeps_effects=job.keeps_effects)
        for file, dag in dags if job.prepares else ():
            self._has_run = True
            self._prepare(file, dag, World())
        self.forget()

    def _dag_for_hook(self, dag_id: str, file: str, job: RecordJob) -> Any:
        bag = self.parse_first(file, job.folder, job.seed)
        return None if isinstance(bag, str) else bag.dags.get(dag_id)

    def parse_first(self, file: str, folder: str, seed: str) -> Any:
        """As `_parse`; a file that fails is tried again with the inputs that the hook gives when it knows of no DAG."""
        self.begin(self.base, seed)
        bag = self.parse(file, folder)
        if not isinstance(bag, str) and not bag.import_errors:
            return bag
        obstacles = self.journal.obstacles
        self.begin(self.base, seed)
        self._has_run = True
        try:
            self._prepare(file, None, World())
        except Exception:
            self.journal.obstacles = obstacles
            return bag  # a hook that cannot do without the DAG
        self.forget()
        again = self.parse(file, folder)
        return bag if isinstance(again, str) else again

    def parse(self, file: str, folder: str) -> Any:
        """The DagBag of a file, parsed as the DAG processor does; the reason as text if that process would have ended."""
        self._has_run = True
        answers = Answers(
            None, self.ask, on_effect=self.journal.metadata_changed, on_unanswered=self._unanswered
        )
        try:
            with (
                self.clock.ticking(),
                self._guard.up(),
                cpu_bound(ATTEMPT_CPU_S, self._out_of_time),
                attempts.supervised_by(answers),
            ):
                return self.load_bag(file, folder)
        except ProcessExited as exited:
            return f"Loading the file ended the process with exit code {exited.exit_code}."
        except UnansweredMessage as unanswered:
            return f"Loading the file needs what cannot be answered here: {unanswered}."
        except SystemExit as left:
            return f"Loading the file called sys.exit({left.code!r})."
        except KeyboardInterrupt:
            return "Loading the file raised KeyboardInterrupt."
        finally:
            self._files.drop_open_files()

    def load_bag(self, file: str, folder: str) -> Any:
        """The DagBag of a file parsed afresh, unguarded: for code that is guarded already."""
        self.journal.is_parse = True
        self._folder = folder
        _find_modules_in(folder)
        try:
            return loading.load_bag(file, folder)
        finally:
            self.journal.is_parse = False

    # --- attempts -----------------------------------------------------------------------------

    def attempt(
        self,
        task: QueuedTask,
        load: Callable[[], Any],
        keeps_log: bool,
        counts_lines: bool,
        may_repeat: bool,
        allowance: Allowance,
    ) -> TakenBack | None:
        """Run one attempt of a queued task, from the start that Airflow grants to the end that it records.

        With `may_repeat` one that is known to go as one that ran before is not run again. A sensor that finds nothing is
        taken back, if it may poke no longer and has done nothing but poke.
        """
        self.on_attempt()
        before, effects = self.world(), len(self.journal.effects)
        self.clock.advance(1)
        seed = self._seed_of(task)
        self._entropy.seed(seed)
        journal = self.journal
        journal.current = opened = OpenAttempt(
            run=task.run,
            task_id=task.task_id,
            map_index=task.map_index,
            try_number=task.try_number,
            started=self.clock.now,
            operator=self.scheduler.dag(task.run[0]).get_task(task.task_id).task_type,
        )
        answers = Answers(
            task.id,
            self.ask,
            on_effect=journal.metadata_changed,
            is_stale=self.is_stale,
            on_unanswered=self._unanswered,
            is_opaque=lambda: opened.is_opaque,
            expect_runs=partial(self._expect_runs, task),
            on_missing_dag=partial(self._misses_dag, "it triggers the DAG"),
        )
        attempt = attempts.Attempt(task, answers)
        opened.may_retry = attempt.may_retry
        journal.metadata_changed("state", "running")
        key = (seed, attempt.given)
        ended = self._memo.repeat(key, answers) if may_repeat else None
        if ended is None:
            with ExitStack() as stack:
                watch = stack.enter_context(self._memo.watching(key, answers)) if may_repeat else None
                pokes = stack.enter_context(self._poking(opened, before, allowance))
                ended = self._run_process(attempt, opened, load, keeps_log, counts_lines)
            if pokes.taken_back is not None:
                self._take_back(before, effects, pokes)
                return pokes.taken_back
            if pokes.is_hopeless:
                journal.blocked(waits_in_vain(task.task_id))
            cannot_repeat = opened.has_exited or opened.is_opaque or pokes.count
            if watch is not None and ended.exit_code is None and not cannot_repeat:
                self._memo.keep(watch, ended)
        state = attempt.end(ended.exit_code or 0, lambda: self._notice_death(task, load))
        journal.metadata_changed("state", state)
        stale = tuple(name for name, is_stale in answers.reads.items() if is_stale)
        journal.attempts.append(
            replace(ended, state=state, xcom_reads=tuple(answers.reads), stale_xcom_reads=stale)
        )
        journal.current = None
        return None

    def _expect_runs(self, task: QueuedTask, dag_id: str, dates: Sequence[datetime]) -> None:
        """Make the runs of another DAG that a task asks for: the clock alone makes none here."""
        if dag_id == task.run[0]:
            return
        waits = "it waits for"
        try:
            if self.scheduler.expect_runs(dag_id, dates):
                self.journal.scheduler_turned()
        except LookupError:
            self._misses_dag(f"{waits} the DAG", dag_id)
            raise
        except NoSuchRun as none:
            self.journal.blocked(
                Obstacle(
                    what=f"{waits} a run of the DAG {dag_id} at {none}, which has none then by its start and schedule",
                    where=None,
                    remedy="Let it wait for one that there is (`execution_delta`), or set the DAG's `logical_date` later.",
                )
            )
            raise

    def _misses_dag(self, what: str, dag_id: str) -> None:
        self.journal.blocked(
            Obstacle(
                what=f"{what} {dag_id}, which no file of the DAGs folder gives",
                where=None,
                remedy="Put its file there, or one with a DAG of that name in its stead; see that it loads.",
            )
        )

    def _run_process(
        self,
        attempt: attempts.Attempt,
        opened: OpenAttempt,
        load: Callable[[], Any],
        keeps_log: bool,
        counts_lines: bool,
    ) -> Attempt:
        """What the process of an attempt leaves; the state is not known yet."""
        with ExitStack() as stack:
            printed = stack.enter_context(capture_output(LOG_BYTES))
            lines = stack.enter_context(self.sources.counted_lines()) if counts_lines else lambda: 0
            exit_code, error = self._execute(attempt, load, opened.run[0], attempts.TaskLog(keeps_log))
            executed = lines()
        return Attempt(
            run=opened.run,
            task_id=opened.task_id,
            map_index=opened.map_index,
            try_number=opened.try_number,
            started=opened.started,
            state="",
            may_retry=opened.may_retry,
            exit_code=exit_code,
            executed_lines=executed,
            failed_operations=tuple(opened.failed_operations),
            error=self.sources.describe(error) if error is not None else "",
            missing_input=attempts.missing_input(error),
            log=printed.getvalue() if keeps_log else "",
            is_opaque=opened.is_opaque,
        )

    def _notice_death(self, task: QueuedTask, load: Callable[[], Any]) -> str:
        self.clock.advance(self.scheduler.heartbeat_timeout_s + 1)
        return self.lose_worker(task.run, task.task_id, task.map_index, load)

    def lose_worker(self, run: RunKey, task_id: str, map_index: int, load: Callable[[], Any]) -> str:
        """The state that a running task gets when its worker has been silent for too long; callbacks have run."""
        lost = self.scheduler.lose_worker(run, task_id, map_index)
        self.journal.scheduler_turned()
        self.run_callbacks(lost.callbacks, load)
        return lost.state

    def run_callbacks(self, requests: Sequence[Any], load: Callable[[], Any]) -> None:
        """Do what the scheduler asks of the DAG processor.

        What callbacks do out of our sight is worth a note, but hides no output: they tell people.
        """
        if not requests:
            return
        self.forget()
        self._has_run = True
        answers = Answers(
            None, self.ask, on_effect=self.journal.metadata_changed, on_unanswered=self._unanswered
        )
        before = threading.enumerate()
        try:
            with (
                self.journal.telling_people(),
                self.clock.ticking(),
                self._guard.up(),
                cpu_bound(ATTEMPT_CPU_S, self._out_of_time),
                attempts.supervised_by(answers),
            ):
                attempts.run_callbacks(load(), requests, attempts.TaskLog(False))
        except (ProcessExited, UnansweredMessage, SystemExit, KeyboardInterrupt):
            pass  # of the DAG processor's process, which the manager starts anew
        self._end_of_process(before)

    def _seed_of(self, task: QueuedTask) -> str:
        """Another one for each attempt of a try: one that resumes is a new process."""
        place = (task.run, task.task_id, task.map_index, task.try_number)
        earlier = sum(
            1
            for done in self.journal.attempts
            if (done.run, done.task_id, done.map_index, done.try_number) == place
        )
        parts = (self._seed, *place, earlier) if earlier else (self._seed, *place)
        return "/".join(map(str, parts))

    @contextmanager
    def _poking(self, opened: OpenAttempt, before: WorldState, allowance: Allowance) -> Iterator[_Pokes]:
        """Inside, a sensor pokes as long as it may."""
        pokes = _Pokes()
        first_poke = time.monotonic() if allowance.first_poke is None else allowance.first_poke

        def sleep(seconds: float) -> None:
            wait = stretched(seconds, pokes.count, EXACT_POKES)
            pokes.count += 1
            pokes.is_hopeless = self.clock.now >= allowance.hopeless_at
            if pokes.is_hopeless or self.clock.now + wait > allowance.until:
                has_effects = opened.has_effects or self._files.state != before.files
                if not has_effects:
                    pokes.taken_back = TakenBack(first_poke=first_poke, interval_s=seconds)
                    pokes.obstacles = len(self.journal.obstacles)
                if pokes.is_hopeless or not has_effects:
                    raise _PokesNoMore
            self.clock.advance(wait.total_seconds())
            pokes.waited += wait

        with sensors.poking(sleep, first_poke):
            yield pokes

    def _take_back(self, before: WorldState, effects: int, pokes: _Pokes) -> None:
        """Undo an attempt, but for the time that it took."""
        journal = self.journal
        del journal.effects[effects:], journal.obstacles[pokes.obstacles :]
        journal.current = None
        self._files.restore(before.files)
        self._metadata.restore(before.rows)
        self.clock.move_to(before.clock + timedelta(seconds=1) + pokes.waited)

    # --- triggers -----------------------------------------------------------------------------

    @property
    def has_triggers(self) -> bool:
        """Whether a deferred task waits for a trigger."""
        return bool(self.scheduler.triggers())

    @property
    def has_hopeless_triggers(self) -> bool:
        """Whether the triggers have run in vain for too long."""
        return self._triggerer is not None and self._triggerer.is_hopeless

    def take_heart(self) -> None:
        """Let triggers look again: something has happened."""
        if self._triggerer is not None:
            self._triggerer.take_heart()

    def run_triggers(self, until: datetime) -> bool:
        """Run what deferred tasks wait for, until one of the triggers has come to an end or it is `until`.

        Whether one has. They go on where they stood the last time; after `begin` they start afresh, as with a new triggerer.
        """
        trigger_ids = self.scheduler.triggers()
        if self._triggerer is None and not trigger_ids:
            return False
        if self._triggerer is None:
            self._triggerer = Triggerer(
                Answers(
                    None, self.ask, on_effect=self.journal.metadata_changed, on_unanswered=self._unanswered
                )
            )
        triggerer = self._triggerer
        if not triggerer.is_hopeless and (trigger_ids or triggerer.is_running):
            self.forget()
            with self._in_triggerer():
                triggerer.run(trigger_ids, until)
        with self._aside():
            has_fired = triggerer.submit()
        self.journal.scheduler_turned()
        return has_fired

    @contextmanager
    def _in_triggerer(self) -> Iterator[None]:
        """Inside, this is the triggerer's process."""
        self._has_run, self._frozen = True, None
        self._slices += 1
        self._entropy.seed(f"{self._seed}/triggerer/{self._slices}")
        before = threading.enumerate()
        with (
            capture_output(LOG_BYTES),
            self.clock.ticking(),
            self._guard.up(),
            cpu_bound(ATTEMPT_CPU_S, self._out_of_time),
        ):
            _find_modules_in(self._folder)
            yield
        self._end_of_process(before)

    def _end_triggerer(self) -> None:
        """End the triggers in the world that they belong to."""
        if self._triggerer is not None:
            with self._in_triggerer():
                self._triggerer.close()
        self._triggerer, self._slices = None, 0

    # --- processes ----------------------------------------------------------------------------

    def _execute(
        self, attempt: attempts.Attempt, load: Callable[[], Any], dag_id: str, log: attempts.TaskLog
    ) -> tuple[int | None, BaseException | None]:
        """Run the task as its process would; the process's exit code if it ended by itself, and the exception."""
        before = threading.enumerate()
        self._has_run = True
        self._frozen = None
        exit_code: int | None = None
        error: BaseException | None = None
        try:
            with self.clock.ticking(), self._guard.up(), cpu_bound(ATTEMPT_CPU_S, self._out_of_time):
                error = attempt.execute(load, dag_id, log)
        except ProcessExited as exited:
            exit_code = exited.exit_code
        except attempts.NotLoaded as failed:
            exit_code, error = 1, failed
        except (SystemExit, KeyboardInterrupt) as exited_early:
            exit_code, error = 1, exited_early
        except Exception as failed_anyhow:
            exit_code, error = 1, failed_anyhow
        self._end_of_process(before)
        return exit_code, error

    def _end_of_process(self, before: list[threading.Thread]) -> None:
        if self._frozen is not None:
            if self.journal.current is not None:
                self.journal.current.has_exited = True
            self._thaw()
        for thread in leftover_threads(before, patience_s=THREADS_S):
            self.journal.blocked(
                Obstacle(
                    what=f"the thread {thread.name} outlives its task",
                    where=None,
                    remedy="Join threads before the task ends.",
                )
            )
        self._files.drop_open_files()

    def _freeze(self) -> None:
        """The process has gone: what code of it still runs here changes nothing any more."""
        if self._frozen is None:
            self._frozen = len(self.journal.effects), self.world()

    def _thaw(self) -> None:
        assert self._frozen is not None, "only called when frozen"
        count, world = self._frozen
        del self.journal.effects[count:]
        self._files.drop_open_files()
        self._files.restore(world.files)
        self._metadata.restore(world.rows)
        self._frozen = None

    def _out_of_time(self, frame: FrameType | None) -> None:
        current = self.journal.current
        task = current.task_id if current else "a trigger" if self._triggerer else "loading the DAG file"
        self.on_bound(
            Obstacle(
                what=f"{task} did not end within {ATTEMPT_CPU_S:.0f} s of processor time",
                where=self.journal.where(frame),
                remedy="Give it smaller inputs in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
            )
        )

    def _unanswered(self, message: str) -> None:
        what = f"Airflow's request {message} is not answered here"
        remedy = "`skip` the DAG with a reason; please report what it does."
        if message in ("CreateHITLDetailPayload", "AwaitInputTask"):
            what = "a person is asked, and nobody answers here"
            remedy = (
                "What follows is checked as if there were no answer; `skip` the DAG if that makes no sense."
            )
        where = self.journal.where(sys._getframe(1))
        self.journal.blocked(Obstacle(what=what, where=where, remedy=remedy))

    def _unsupported(self, what: str) -> None:
        self.journal.blocked(
            Obstacle(
                what=f"{what} cannot be followed",
                where=self.journal.where(sys._getframe(1)),
                remedy="Read and write the file with `open` instead, or `skip` the DAG with a reason.",
            )
        )


class _PokesNoMore(BaseException):
    """Ends the process of a sensor that may poke no longer."""


@dataclass(slots=True)
class _Pokes:
    """What became of a sensor's attempt."""

    count: int = 0
    is_hopeless: bool = False
    taken_back: TakenBack | None = None
    waited: timedelta = timedelta()
    obstacles: int = 0


def _find_modules_in(folder: str) -> None:
    """Let modules be found where Airflow's processes find them."""
    sys.path[:0] = [path for path in (folder, os.getcwd()) if path not in sys.path]


def waits_in_vain(task_id: str) -> Obstacle:
    """A task that waits for something which neither the inputs nor another task give."""
    return Obstacle(
        what=f"{task_id} waits for something that does not come",
        where=None,
        remedy="Put it in place in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
    )


def _system_folders() -> tuple[Path, ...]:
    """What every machine has that runs Python, whatever else there is on it."""
    folders = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
    folders |= {"/usr/share/zoneinfo", "/etc", str(Path(__file__).parents[1])}
    return tuple(Path(folder) for folder in sorted(folders) if os.path.isdir(folder))
