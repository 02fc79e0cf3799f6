"""Airflow's processes besides the scheduler, all in one: worker, DAG processor and triggerer."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from ..airflow import attempts
from ..airflow.queries import QueuedTask
from ..airflow.scheduling import dag_of
from ..model import RunKey
from .attempts import Attempts
from .dag_processor import DagProcessor, Prepare
from .faults import Strike
from .jobs import ActJob, RecordJob, RecordRecoveryJob, RecoverJob
from .parsed import Parsed
from .sandbox import Sandbox
from .triggers import Triggers
from .waits import Waits


class Processes:
    """What runs the DAGs' code in a sandbox."""

    def __init__(self, sandbox: Sandbox, prepare: Prepare) -> None:
        self.sandbox = sandbox
        self.dag_processor = DagProcessor(sandbox, prepare)
        self.attempts = Attempts(sandbox, self.dag_processor)
        self.triggers = Triggers(sandbox, self.dag_processor)

    def for_job(
        self, job: RecordJob | RecoverJob | RecordRecoveryJob | ActJob, bags: Mapping[str, Any] | None = None
    ) -> JobProcesses:
        """Them as a job wants them to be; with the bags of files that are parsed already."""
        return JobProcesses(self, job, bags)


class JobProcesses:
    """What runs the DAGs' code for a job while the scheduler takes its turns."""

    def __init__(
        self,
        processes: Processes,
        job: RecordJob | RecoverJob | RecordRecoveryJob | ActJob,
        bags: Mapping[str, Any] | None,
    ) -> None:
        self._sandbox = processes.sandbox
        self._dag_processor = processes.dag_processor
        self._attempts = processes.attempts
        self._triggers = processes.triggers
        self._job = job
        self._shares_memory = isinstance(job, RecordJob) and job.shares_memory
        self._bags = bags if bags is not None and self._shares_memory else {}
        self._counts_lines = isinstance(job, RecordJob) and job.counts_lines
        self._keeps_log = job.keeps_log if isinstance(job, RecoverJob) else True
        self.may_repeat = isinstance(job, RecoverJob) and not job.keeps_log
        """Whether an attempt that is known to go as one before is not run again."""
        self.strike: Strike | None = None
        """What waits for the attempts of a task instance."""

    def attempt(self, task: QueuedTask, waits: Waits, until: datetime) -> None:
        """A worker's: one attempt of a queued task; a sensor may poke until then."""
        parsed = self._parsed(task.run[0])
        if parsed is None and not self._shares_memory:
            self._sandbox.forget()
        strike = self.strike
        if strike is not None and strike.instance != (task.run, task.task_id, task.map_index):
            strike = None
        taken_back = self._attempts.run(
            task,
            self._loader_of(task.run[0]),
            self._keeps_log,
            self._counts_lines,
            self.may_repeat,
            waits.allowance(task.id, until),
            strike,
            parsed,
        )
        now = self._sandbox.clock.now
        if taken_back is not None:
            waits.taken_back(task.id, task.task_id, taken_back, now)
        else:
            waits.ended(task.id, self._sandbox.journal.attempts[-1].state, now)
            self._triggers.take_heart()

    def lose_worker(self, run: RunKey, task_id: str, map_index: int) -> None:
        """Let Airflow find that a task's worker has been silent for too long."""
        lost = self._sandbox.scheduler.lose_worker(run, task_id, map_index)
        self._dag_processor.lost(lost, self._loader_of(run[0]))

    def lose_process(self, run: RunKey, task_id: str, map_index: int) -> None:
        """Let the supervisor of a task do what it does when the task's process has been killed."""
        ti_id, may_retry = self._sandbox.scheduler.running(run, task_id, map_index)

        def tell_executor() -> str:
            self.end_supervisor(run, task_id, map_index)
            return ""

        attempts.last_word(self._sandbox.answers(ti_id), may_retry, -signal.SIGKILL, tell_executor)
        self._sandbox.journal.scheduler_turned()

    def end_supervisor(self, run: RunKey, task_id: str, map_index: int) -> None:
        """Let the executor tell that it is done with a task of which nobody has told the end."""
        done = self._sandbox.scheduler.executor_is_done(run, task_id, map_index)
        self._dag_processor.lost(done, self._loader_of(run[0]))

    def run_callbacks(self, requests: Sequence[Any]) -> None:
        """The DAG processor's: what the scheduler asks of it."""
        for dag_id, group in groupby(requests, key=dag_of):
            self._dag_processor.run_callbacks(tuple(group), self._loader_of(dag_id))

    def _parsed(self, dag_id: str) -> Parsed | None:
        """The parse that an attempt of the DAG under test begins with; None if it makes one for itself."""
        job = self._job
        if self._shares_memory or dag_id != job.dag.dag_id or (isinstance(job, RecoverJob) and job.keeps_log):
            return None
        return self._dag_processor.parsed(job.dag.file, job.folder, self._counts_lines)

    def _loader_of(self, dag_id: str) -> Callable[[], Any]:
        """Gives the bag of a DAG's file, or parses it afresh where there is none."""
        job = self._job
        is_own = dag_id == job.dag.dag_id
        file = job.dag.file if is_own else str(self._sandbox.scheduler.dag(dag_id).fileloc)
        load_bag = self._dag_processor.load_bag
        return lambda: self._bags[file] if file in self._bags else load_bag(file, job.folder)
