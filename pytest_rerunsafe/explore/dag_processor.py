"""Parses DAG files and runs callbacks, as the DAG processor's process does."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from ..airflow import attempts, loading
from ..airflow.answers import Answers, UnansweredMessage
from ..airflow.scheduling import Loss
from ..world.guard import ProcessExited
from ..world.memory import Memory
from ..world.process import capture_output, replaced
from .inputs import World
from .jobs import RecordJob
from .parsed import Looks, Parsed
from .sandbox import LOG_BYTES, Sandbox

CHANCES = 2
"""How often it is tried to let a parse serve several attempts: the first one may be that which loads libraries."""
Prepare = Callable[[str, Any, World], None]
"""Puts a DAG's inputs in place: DAG file, Airflow DAG, world."""


class DagProcessor:
    """What runs code of DAG files that is no task's."""

    def __init__(self, sandbox: Sandbox, prepare: Prepare) -> None:
        self._sandbox = sandbox
        self._prepare = prepare
        self._folder = ""
        self._failures: Counter[str] = Counter()
        """By file, how often its parse could serve no more than one attempt."""

    # --- inputs -------------------------------------------------------------------------------

    def place_inputs(self, job: RecordJob) -> None:
        """Let the project's conftest put the DAG's inputs in place.

        The hook is given the DAG of a parse whose effects are undone first.
        """
        sandbox = self._sandbox
        files = {**job.related, job.dag.dag_id: job.dag.file}  # its own inputs last: they hold
        dags = [(file, self._dag_for_hook(dag_id, file, job)) for dag_id, file in files.items()]
        sandbox.begin(sandbox.base, job.seed, keeps_effects=job.keeps_effects)
        sandbox.forget()
        for file, dag in dags if job.prepares else ():
            sandbox.has_run = True
            self._prepare(file, dag, World())
        sandbox.forget()

    def _dag_for_hook(self, dag_id: str, file: str, job: RecordJob) -> Any:
        bag = self.parse_first(file, job.folder, job.seed)
        return None if isinstance(bag, str) else bag.dags.get(dag_id)

    # --- files --------------------------------------------------------------------------------

    def parse_first(self, file: str, folder: str, seed: str) -> Any:
        """As `parse`; a file that fails is tried again with the inputs that the hook gives when it knows of no DAG."""
        sandbox = self._sandbox
        sandbox.begin(sandbox.base, seed)
        sandbox.forget()
        bag = self.parse(file, folder)
        if not isinstance(bag, str) and not bag.import_errors:
            return bag
        obstacles = sandbox.journal.obstacles
        sandbox.begin(sandbox.base, seed)
        sandbox.has_run = True
        try:
            self._prepare(file, None, World())
        except Exception:
            sandbox.journal.obstacles = obstacles
            return bag  # a hook that cannot do without the DAG
        sandbox.forget()
        again = self.parse(file, folder)
        return bag if isinstance(again, str) else again

    def parse(self, file: str, folder: str) -> Any:
        """The DagBag of a file, parsed as the DAG processor does; the reason as text if that process would have ended."""
        try:
            return self._parse(file, folder, self._sandbox.answers())
        finally:
            self._sandbox.files.drop_open_files()

    def _parse(self, file: str, folder: str, answers: Answers) -> Any:
        try:
            with self._sandbox.process(), attempts.supervised_by(answers):
                return self.load_bag(file, folder)
        except ProcessExited as exited:
            return f"Loading the file ended the process with exit code {exited.exit_code}."
        except UnansweredMessage as unanswered:
            return f"Loading the file needs what cannot be answered here: {unanswered}."
        except SystemExit as left:
            return f"Loading the file called sys.exit({left.code!r})."
        except KeyboardInterrupt:
            return "Loading the file raised KeyboardInterrupt."

    def load_bag(self, file: str, folder: str) -> Any:
        """The DagBag of a file parsed afresh, unguarded: for code that is guarded already."""
        journal = self._sandbox.journal
        journal.is_parse = True
        self._folder = folder
        self.find_modules()
        try:
            return loading.load_bag(file, folder)
        finally:
            journal.is_parse = False

    def find_modules(self) -> None:
        """Let modules be found where Airflow's processes find them."""
        sys.path[:0] = [path for path in (self._folder, os.getcwd()) if path not in sys.path]

    # --- one parse for several attempts -------------------------------------------------------

    def parsed(self, file: str, folder: str, counts_lines: bool) -> Parsed | None:
        """The parse of a file that this process has been made as after; None where each attempt must have its own.

        So it is if it has done or asked for anything that need not be the same the next time, or has made anything that may
        not be as it was after an attempt.
        """
        sandbox = self._sandbox
        view = sandbox.files.view()
        if view is None or self._failures[file] >= CHANCES:
            return None
        if sandbox.parsed is not None and sandbox.parsed.serves(file, counts_lines, view):
            sandbox.renew()
            return sandbox.parsed
        sandbox.forget()
        before = sandbox.world()
        found = self._parse_for_several(file, folder, counts_lines)
        if found is None:
            self._failures[file] += 1
            sandbox.put_back(before)
            sandbox.forget()
        else:
            sandbox.parsed, sandbox.has_run = found, False
        return found

    def _parse_for_several(self, file: str, folder: str, counts_lines: bool) -> Parsed | None:
        sandbox, answers = self._sandbox, self._sandbox.answers()
        has_asked = False

        def on_message(message: Any, answer: Callable[[], Any]) -> Any:
            nonlocal has_asked
            has_asked = True
            return answer()

        answers.on_message = on_message
        sandbox.entropy.seed(file)
        before = self._traces()
        with ExitStack() as stack:
            journal = stack.enter_context(sandbox.untold())
            passage = stack.enter_context(sandbox.files.watched())
            stack.enter_context(capture_output(LOG_BYTES))
            looks = Looks(sandbox.sources, journal)
            stack.enter_context(replaced(sandbox.clock, "on_look", looks.look))
            counted = stack.enter_context(sandbox.sources.counted_lines()) if counts_lines else None
            bag = self._parse(file, folder, answers)
            executed = counted() if counted is not None else None
            leaves_traces = self._traces() != before
            sandbox.end_process()
        passed = passage()
        if isinstance(bag, str) or bag.import_errors or passed is None or passed.nodes:
            return None
        if leaves_traces or has_asked or looks.of_project or journal.obstacles:
            return None
        if sandbox.has_other_functions:
            return None  # between attempts this process must have its own
        process, loaded = sandbox.capture_process()
        modules = [module for module in loaded.values() if isinstance(module, ModuleType)]
        if any(type(each).__module__ in loaded for each in loaded.values()):
            return None  # a module of the project has put something else in its place
        memory = Memory.capture([bag.dags], modules)
        if memory is None:
            return None
        return Parsed(
            file=file,
            bag=bag,
            memory=memory,
            process=process,
            seen=passed.seen,
            looks=looks.count,
            executed=executed,
        )

    def _traces(self) -> object:
        """What tells whether a parse has used or begun anything that is no file."""
        sandbox = self._sandbox
        threads, has_open = threading.active_count(), sandbox.files.has_open
        return sandbox.entropy.position(), sandbox.metadata.uses, threads, has_open

    # --- callbacks ----------------------------------------------------------------------------

    def lost(self, lost: Loss, load: Callable[[], Any]) -> str:
        """The state that a task got when Airflow found that nobody works on it; callbacks have run."""
        self._sandbox.journal.scheduler_turned()
        self.run_callbacks(lost.callbacks, load)
        return lost.state

    def run_callbacks(self, requests: Sequence[Any], load: Callable[[], Any]) -> None:
        """Do what the scheduler asks of the DAG processor.

        What callbacks do out of our sight is worth a note, but hides no output: they tell people.
        """
        if not requests:
            return
        self._sandbox.forget()
        answers = self._sandbox.answers()
        try:
            with (
                self._sandbox.journal.telling_people(),
                self._sandbox.telling_changes(),
                self._sandbox.process(),
                attempts.supervised_by(answers),
            ):
                attempts.run_callbacks(load(), requests, attempts.TaskLog(False))
        except (ProcessExited, UnansweredMessage, SystemExit, KeyboardInterrupt):
            pass  # of the DAG processor's process, which the manager starts anew
        self._sandbox.end_process()
