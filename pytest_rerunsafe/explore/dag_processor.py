"""Parses DAG files and runs callbacks, as the DAG processor's process does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ..airflow import attempts, loading
from ..airflow.answers import UnansweredMessage
from ..airflow.scheduling import Loss
from ..world.guard import ProcessExited
from .inputs import World
from .jobs import RecordJob
from .sandbox import Sandbox

Prepare = Callable[[str, Any, World], None]
"""Puts a DAG's inputs in place: DAG file, Airflow DAG, world."""


class DagProcessor:
    """What runs code of DAG files that is no task's."""

    def __init__(self, sandbox: Sandbox, prepare: Prepare) -> None:
        self._sandbox = sandbox
        self._prepare = prepare
        self._folder = ""

    # --- inputs -------------------------------------------------------------------------------

    def place_inputs(self, job: RecordJob) -> None:
        """Let the project's conftest put the DAG's inputs in place.

        The hook is given the DAG of a parse whose effects are undone first.
        """
        sandbox = self._sandbox
        files = {**job.related, job.dag.dag_id: job.dag.file}  # its own inputs last: they hold
        dags = [(file, self._dag_for_hook(dag_id, file, job)) for dag_id, file in files.items()]
        sandbox.begin(sandbox.base, job.seed, keeps_effects=job.keeps_effects)
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
        answers = self._sandbox.answers()
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
        finally:
            self._sandbox.files.drop_open_files()

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
