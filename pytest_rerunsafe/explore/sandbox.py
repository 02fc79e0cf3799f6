"""Airflow with its world in one process: a state in, what happens out. Lives in forked processes only."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ..airflow import inputs
from ..airflow.answers import Answers, on_server
from ..airflow.metadata import MetadataStore
from ..airflow.queries import QueuedTask
from ..airflow.runs import Run
from ..airflow.scheduling import Scheduler
from ..model import Attempt, Location, Obstacle, Outcome, Row, RowKey, RunKey, WorldState
from ..world.clock import Clock
from ..world.entropy import Entropy
from ..world.files import FileStore
from ..world.guard import Guard, ProcessExited, bind_cpu_again, cpu_bound
from ..world.process import ProcessState, leftover_threads
from . import obstacles
from .journal import Journal
from .outputs import file_outputs
from .parsed import Parsed
from .sources import Sources

EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)
ATTEMPT_CPU_S = 10.0
"""Processor time that one attempt may take: a task that computes longer is taken for one that never ends."""
LOG_BYTES = 64 * 1024
LOADING = "loading the DAG file"
THREADS_S = 2.0
_REAL_MODULES = tuple(
    f"pytest_rerunsafe.{name}" for name in ("explore.channel", "explore.pool", "explore.zygote")
)
"""Modules of ours that work on the real operating system."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A place in a run without recording."""

    world: WorldState
    attempts: tuple[Attempt, ...]
    obstacles: tuple[Obstacle, ...]
    notes: tuple[Obstacle, ...]
    by_callbacks: Mapping[str, Location]


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What a process that has ended by itself left."""

    exit_code: int
    effects: int
    world: WorldState


class Sandbox:
    """The world of one process, with the patches that keep DAG code in it."""

    def __init__(self, rootdir: Path) -> None:
        self._exit = os._exit
        self.on_bound: Callable[[Obstacle], None] = lambda obstacle: None
        """Called when an attempt has used up its processor time; must not return."""
        self.on_begin: Callable[[], None] = lambda: None
        """Called before the world becomes another: what still runs in it ends in it."""
        self.sources = Sources(rootdir)
        self.metadata = MetadataStore()
        self.journal = Journal(self.sources, self.metadata.capture, keeps_effects=False)
        """What happened since `begin`."""
        self._guard = Guard(
            locate=self.sources.locate,
            on_obstacle=lambda obstacle: self.journal.blocked(obstacle),
            on_exit=self._freeze,
        )
        self._frozen: _Frozen | None = None
        self._put_patches_on(rootdir)
        self.metadata.aside = self.aside
        self.base = WorldState(files={}, rows=dict(self.metadata.rows), clock=EPOCH)
        """An Airflow that knows no DAG, and no files."""
        self.seed = ""
        """What all that is random in this world is derived from."""
        self.has_run = False
        """Whether code of a DAG has run in this process since the last `forget`, the parse that is kept aside."""
        self.parsed: Parsed | None = None
        """A file that this process has parsed for more than one attempt."""
        self.runs_besides = LOADING
        """What runs where no attempt does, in words."""
        self.is_stale: Callable[[str, str], bool] = lambda task_id, key: False
        """Whether an XCom that a task reads now was left by an attempt that is to be forgotten."""
        self._scheduler: tuple[object, Scheduler] | None = None
        self._threads: list[threading.Thread] = []

    def _put_patches_on(self, rootdir: Path) -> None:
        folders = _system_folders()  # before the file system is a fake one
        self._guard.install()
        self.files = FileStore(
            skip_modules=_REAL_MODULES, on_unsupported=self._unsupported, lifted=self._guard.lifted
        )
        self.files.start()
        self.files.mount(rootdir, folders)
        self.clock = Clock.start(EPOCH)
        self.entropy = Entropy.start("")
        os.chdir(rootdir)
        self._process = ProcessState.capture(roots=[str(rootdir)], chdir=os.chdir, getcwd=os.getcwd)

    @contextmanager
    def unguarded(self) -> Iterator[None]:
        """Inside, code of ours may reach the real world although a DAG runs."""
        with self._guard.lifted():
            yield

    def hide(self, fd: int) -> None:
        """Let no DAG code close a descriptor of ours, nor write to it."""
        self.files.hide(fd)

    def forget(self) -> None:
        """Undo what DAG code has done to this process."""
        if self.has_run or self.parsed is not None:
            self._process.restore()
            self.has_run, self.parsed = False, None

    def renew(self) -> None:
        """Undo what DAG code has done to this process since a file was parsed for more than one attempt, or since `forget`."""
        if self.parsed is None:
            self.forget()
        elif self.has_run:
            self.parsed.restore()
            self.has_run = False

    @property
    def has_other_functions(self) -> bool:
        """Whether DAG code has replaced functions that this process uses itself."""
        return self._process.has_other_functions

    def capture_process(self) -> tuple[ProcessState, Mapping[str, object]]:
        """What this process knows now, and what of its modules a new one would not have."""
        return self._process.with_project(os.getcwd())

    def exit_now(self) -> NoReturn:
        """End this process, whatever the DAG has done to the functions that do."""
        self._exit(0)

    # --- the world ----------------------------------------------------------------------------

    def begin(self, world: WorldState, seed: str, *, keeps_effects: bool = False) -> None:
        """Make the world that of a state, with an empty journal. A parse that is kept stays."""
        self.on_begin()
        self.files.end()
        self.files.drop_open_files()
        self.renew()
        self.files.restore(world.files)
        self.metadata.restore(world.rows)
        self.clock.move_to(world.clock)
        self.seed = seed
        self.entropy.seed(seed)
        self.is_stale = lambda task_id, key: False
        self.journal = Journal(self.sources, self.metadata.capture, keeps_effects)
        self._report_changes(keeps_effects)

    def _report_changes(self, all_of_them: bool) -> None:
        journal = self.journal
        self.files.begin(
            journal.file_changed if all_of_them else None,
            journal.operation_failed,
            journal.file_read,
            journal.coming if all_of_them else None,
        )

    @contextmanager
    def telling_changes(self) -> Iterator[None]:
        """Inside, the journal is told of each change to a file, even if it keeps none."""
        self._report_changes(True)
        try:
            yield
        finally:
            self._report_changes(self.journal.keeps_effects)

    @contextmanager
    def untold(self) -> Iterator[Journal]:
        """Inside, the journal is another one, which is given."""
        before, self.journal = self.journal, Journal(self.sources, self.metadata.capture, keeps_effects=False)
        self._report_changes(False)
        try:
            yield self.journal
        finally:
            self.journal = before
            self._report_changes(before.keeps_effects)

    def snapshot(self) -> Snapshot:
        """The world and what has happened since `begin`, to go on from more than once."""
        journal = self.journal
        return Snapshot(
            self.world(),
            (*journal.attempts,),
            (*journal.obstacles,),
            (*journal.notes,),
            dict(journal.by_callbacks),
        )

    def resume(self, snapshot: Snapshot, seed: str) -> None:
        """Make the world and the journal those of a snapshot."""
        self.begin(snapshot.world, seed)
        self.journal.attempts += snapshot.attempts
        self.journal.obstacles += snapshot.obstacles
        self.journal.notes += snapshot.notes
        self.journal.by_callbacks |= snapshot.by_callbacks

    def world(self) -> WorldState:
        """What the world is now."""
        self.metadata.capture()
        return WorldState(files=dict(self.files.state), rows=dict(self.metadata.rows), clock=self.clock.now)

    def put_back(self, world: WorldState) -> None:
        """Make files and rows those of an earlier world, all else left as it is."""
        self.files.restore(world.files)
        self.metadata.restore(world.rows)

    def row(self, key: RowKey) -> Row | None:
        """One row of the metadata database; None if there is none."""
        return self.metadata.row(key)

    def states(self) -> object:
        """The states of all DagRuns and task instances."""
        return self.metadata.states()

    def is_queued(self, task: QueuedTask) -> bool:
        """Whether a task still waits for its worker."""
        return self.metadata.state_of(task.run, task.task_id, task.map_index) == "queued"

    def situation(self, dag_id: str) -> str:
        """A digest of all that the rest of the run depends on: files, what Airflow knows, the day."""
        digest = hashlib.blake2b(repr(self.clock.now.date()).encode(), digest_size=16)
        for path, node in sorted(self.files.state.items()):
            digest.update(f"{path} {node.kind} {node.mode} {len(node.content)} ".encode())
            digest.update(node.content)
        for part in inputs.situation(self.metadata, dag_id):
            digest.update(repr(part).encode())
        return digest.hexdigest()

    def outcome(self, run: Run, state: str, *, counts_xcoms: bool = True) -> Outcome:
        """How a run has ended, all of it since `begin`."""
        metadata = inputs.outputs(self.metadata, run.key if counts_xcoms else None)
        return Outcome(
            run_state=state,
            task_states=run.task_states(),
            attempts=tuple(self.journal.attempts),
            outputs={**file_outputs(self.files.state), **metadata},
            obstacles=tuple(self.journal.obstacles),
            notes=tuple(self.journal.notes),
        )

    @property
    def scheduler(self) -> Scheduler:
        """Airflow's scheduler; a new one when other DAGs have been stored."""
        stored = self.metadata.table("serialized_dag")
        if self._scheduler is None or self._scheduler[0] != stored:
            with self.aside():
                self._scheduler = stored, Scheduler(self.ask, self.metadata.select)
        return self._scheduler[1]

    def run(self, key: RunKey) -> Run:
        """A DagRun in the metadata database."""
        return Run(key, self.scheduler.dag(key[0]), self.ask, self.metadata.select)

    def ask(self, question: str, function: Callable[[], Any]) -> Any:
        """What a function of Airflow's returns in the present state; `question` must tell it from others."""
        with self.clock.still() as now:
            return self.metadata.ask((now, question), function)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, Airflow's server and scheduler draw time and randomness that no task sees."""
        # A clear and the scheduler's turn after it happen at the same time, and must not give out the same ids.
        (last,) = self.metadata.select("SELECT max(id) FROM task_instance")
        with self.clock.ticking(False), self.entropy.aside(f"airflow/{self.clock.now}/{last}"):
            yield

    # --- processes ----------------------------------------------------------------------------

    def answers(self, ti_id: Any = None) -> Answers:
        """Airflow's answers to a process that is no worker's, or to the supervisor of a task instance."""
        return Answers(
            ti_id, self.ask, on_effect=self.journal.metadata_changed, on_unanswered=self.unanswered
        )

    @contextmanager
    def process(self) -> Iterator[None]:
        """Inside, code of a DAG runs as in a process of its own; once what that raised is known, `end_process`."""
        self.has_run, self._frozen = True, None
        self._threads = threading.enumerate()
        with self.clock.ticking(), self._guard.up(), cpu_bound(ATTEMPT_CPU_S, self._out_of_time):
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Inside, other processes run while code of a DAG stands still; then it goes on in the world as that is by then."""
        before = self.journal.current, self._frozen, self._threads, self.seed
        self.parsed = None  # its objects are those of the code that stands still
        modules, state = dict(sys.modules), ProcessState.capture(chdir=os.chdir, getcwd=os.getcwd)
        self.journal.current, self._frozen = None, None
        try:
            with (
                self._guard.down(),
                self.clock.aside(),
                self.entropy.beside(),
                self.files.aside(),
                on_server(),
            ):
                yield
                self._process.restore()
        finally:
            self.journal.current, self._frozen, self._threads, self.seed = before
            state.restore()
            sys.modules.update(modules)
            self.has_run = True
            bind_cpu_again(ATTEMPT_CPU_S)

    def end_process(self) -> int | None:
        """Leave of a process what its end leaves; its exit code if it ended by itself, whatever its code made of that."""
        exit_code = None if self._frozen is None else self._frozen.exit_code
        if self._frozen is not None:
            if self.journal.current is not None:
                self.journal.current.has_exited = True
            self._thaw(self._frozen)
        for thread in leftover_threads(self._threads, patience_s=THREADS_S):
            self.journal.blocked(obstacles.outlives_task(thread.name))
        self.files.drop_open_files()
        return exit_code

    def check_alive(self) -> None:
        """Raise `ProcessExited` if the process has gone: nobody hears what code of it still says here."""
        if self._frozen is not None:
            raise ProcessExited(self._frozen.exit_code)

    def _freeze(self, exit_code: int) -> None:
        """The process has gone: what code of it still runs here changes nothing any more."""
        if self._frozen is None:
            self._frozen = _Frozen(exit_code, len(self.journal.effects), self.world())

    def _thaw(self, frozen: _Frozen) -> None:
        del self.journal.effects[frozen.effects :]
        self.files.drop_open_files()
        self.put_back(frozen.world)
        self._frozen = None

    def _out_of_time(self, frame: FrameType | None) -> None:
        current = self.journal.current
        what = current.task_id if current else self.runs_besides
        self.on_bound(obstacles.takes_too_long(what, ATTEMPT_CPU_S, self.journal.where(frame)))

    def unanswered(self, message: str) -> None:
        """Take note of a message that nobody answers here."""
        self.journal.blocked(obstacles.unanswered(message, self.journal.where(sys._getframe(1))))

    def _unsupported(self, what: str) -> None:
        self.journal.blocked(obstacles.unsupported(what, self.journal.where(sys._getframe(1))))


def _system_folders() -> tuple[Path, ...]:
    """What every machine has that runs Python, whatever else there is on it."""
    folders = {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix}
    folders |= {"/usr/share/zoneinfo", "/etc", str(Path(__file__).parents[1])}
    return tuple(Path(folder) for folder in sorted(folders) if os.path.isdir(folder))
