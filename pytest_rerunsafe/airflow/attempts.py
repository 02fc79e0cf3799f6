"""Runs one attempt of a task instance through Airflow's own task runner: `run`, `finalize`, and the supervisor's last word."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import datetime, timezone
from functools import cache
from types import SimpleNamespace
from typing import Any

from airflow.api_fastapi.execution_api.datamodels.taskinstance import TIEnterRunningPayload
from airflow.api_fastapi.execution_api.routes import task_instances
from airflow.dag_processing import processor
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.sdk import BaseOperator
from airflow.sdk.api.datamodels import _generated as client_models
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.supervisor import ActivitySubprocess
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance, finalize, run
from airflow.utils.state import TaskInstanceState
from sqlalchemy import bindparam, select

from .answers import Answers, on_server
from .metadata import session
from .queries import QueuedTask


class Attempt:
    """One try of a task instance, from the start that the server grants to the end that the supervisor reports."""

    def __init__(self, queued: QueuedTask, answers: Answers) -> None:
        self.queued = queued
        self.answers = answers
        self._started = datetime.now(tz=timezone.utc)
        self._context = self._start()
        self.may_retry = bool(self._context.should_retry)
        self.heeds: tuple[str, ...] = ()
        """Once it has run: the signals that the task does something about, `timeout` and `sigterm`."""
        self._given: dict[str, Any] = answers.ask(f"fields {queued.id}", self._fields)

    @property
    def given(self) -> str:
        """All that its process is started with, as text."""
        return repr((self._started, self._context, self._given))

    def _start(self) -> Any:
        """Tell the server that the attempt runs; what it gives the task to know."""
        payload = TIEnterRunningPayload(
            state=TaskInstanceState.RUNNING,
            hostname="worker",
            unixname="airflow",
            pid=1,
            start_date=self._started,
        )
        granted = self.answers.call(task_instances.ti_run, ti_run_payload=payload)
        return client_models.TIRunContext.model_validate_json(granted.model_dump_json(exclude_unset=True))

    def execute(self, load: Callable[[], Any], dag_id: str, log: TaskLog) -> BaseException | None:
        """Load the DAG file with `load` and run the task; the exception that failed it, None if there was none.

        Raises `NotLoaded` if the file does not give the task, `UnansweredMessage`, and whatever ends a process.
        """
        with supervised_by(self.answers):
            ti = self._runtime_task_instance(_task_of(load(), dag_id, self.queued.task_id))
            context = ti.get_template_context()
            state, _, error = run(ti, context, log)  # type: ignore[arg-type]
            self.heeds = tuple(_heeded(ti.task))
            if error is not None and self.answers.terminal_state == TaskInstanceState.SUCCESS:
                state, error = client_models.TaskInstanceState.SUCCESS, None
            context["exception"] = error
            finalize(ti, state, context, log, error)
        return error

    def _runtime_task_instance(self, task: Any) -> RuntimeTaskInstance:
        return RuntimeTaskInstance.model_construct(
            **deepcopy(self._given),
            task=task,
            _ti_context_from_server=self._context,
            max_tries=self._context.max_tries,
            start_date=self._started,
            state=TaskInstanceState.RUNNING,
        )

    def _fields(self) -> dict[str, Any]:
        """What the scheduler hands a worker of a task instance."""
        with session() as opened:
            row = opened.execute(_worker_fields(), {"wanted": self.queued.id}).mappings().one()
            return {name: value for name, value in row.items() if value is not None}

    def end(self, exit_code: int, on_silence: Callable[[], str]) -> str:
        """As `last_word`, of its own process."""
        return last_word(self.answers, self.may_retry, exit_code, on_silence)


def last_word(answers: Answers, may_retry: bool, exit_code: int, on_silence: Callable[[], str]) -> str:
    """The state of a task instance once its process has gone, by its supervisor's own rule.

    `on_silence` does what the scheduler does when nobody has reported an end, and gives the state that comes of it. So it is
    for a process that died and may be retried: the supervisor takes it for granted that the task has asked for that
    (`STATES_SENT_DIRECTLY`).
    """
    process = SimpleNamespace(
        _exit_code=exit_code, _terminal_state=answers.terminal_state, _should_retry=may_retry
    )
    final = ActivitySubprocess.final_state.fget(process)  # type: ignore[attr-defined]
    state = str(getattr(final, "value", final))
    if state == answers.terminal_state and answers.unsent is None:
        return state
    if state in ("failed", "skipped"):
        answers.report_terminal(state, datetime.now(tz=timezone.utc))
        return state
    return on_silence()


@cache
def _worker_fields() -> Any:
    """Selects those fields of a task instance that a worker is told of."""
    known = [name for name in client_models.TaskInstance.model_fields if hasattr(TaskInstance, name)]
    columns = [getattr(TaskInstance, name) for name in known]
    return select(*columns).where(TaskInstance.id == bindparam("wanted"))


def run_callbacks(bag: Any, requests: Sequence[Any], log: TaskLog) -> None:
    """What the DAG processor does when the scheduler asks it to run callbacks; what they raise is Airflow's to deal with."""
    # Typed for structlog's logger, of which it calls no more than `TaskLog` has.
    processor._execute_callbacks(bag, list(requests), log)  # type: ignore[arg-type]


@contextmanager
def supervised_by(answers: Answers) -> Iterator[None]:
    """Inside, messages to the supervisor go to `answers`."""
    with on_server():
        task_runner.SUPERVISOR_COMMS = answers  # type: ignore[assignment]
        try:
            yield
        finally:
            del task_runner.SUPERVISOR_COMMS


def leave_out_what_only_people_read() -> None:
    """Let Airflow keep neither rendered fields nor the history of tries here: much work for pages that nobody opens."""
    task_runner._serialize_rendered_fields = lambda task: {}
    TaskInstanceHistory.record_ti = staticmethod(lambda ti, session=None: None)  # type: ignore[method-assign]


def defer_what_waits_for_a_run() -> None:
    """Let a task that has triggered a run and waits for it be deferred meanwhile, as with `deferrable=True`.

    Airflow's task runner else sleeps in the worker's process, and here no other process can make that run end.
    """
    handle = task_runner._handle_trigger_dag_run

    def handle_deferred(triggered: Any, *given: Any) -> Any:
        triggered.deferrable = triggered.wait_for_completion
        return handle(triggered, *given)

    task_runner._handle_trigger_dag_run = handle_deferred  # type: ignore[assignment]


def _heeded(task: Any) -> Iterator[str]:
    """The signals that a task does something about, of which `run` has just given it Airflow's handler."""
    if task.execution_timeout is not None:
        yield "timeout"
    handler = signal.getsignal(signal.SIGTERM)
    is_airflows = getattr(handler, "__module__", "") == task_runner.__name__
    if not is_airflows or type(task).on_kill is not BaseOperator.on_kill:
        yield "sigterm"


class NotLoaded(Exception):
    """The DAG file did not give the task at the start of an attempt; its argument says why."""


def _task_of(bag: Any, dag_id: str, task_id: str) -> Any:
    if bag.import_errors:
        raise NotLoaded("\n".join(bag.import_errors.values()))
    dag = bag.dags.get(dag_id)
    if dag is None or task_id not in dag.task_dict:
        raise NotLoaded(f"the DAG file no longer defines {dag_id}.{task_id}")
    return dag.task_dict[task_id]


class TaskLog:
    """What Airflow's task runner logs of an attempt: printed as lines where the log is kept, else dropped unformatted."""

    def __init__(self, is_kept: bool) -> None:
        self._is_kept = is_kept

    def _log(self, event: object, *args: object, **details: object) -> None:
        if self._is_kept:
            shown = (str(event) % args if args else str(event), *(f"{k}={v}" for k, v in details.items()))
            with suppress(AttributeError, ValueError):  # the task has taken it away or closed it
                sys.stdout.write(" ".join(shown) + "\n")

    info = warning = warn = error = critical = log = _log

    def debug(self, event: object, *args: object, **details: object) -> None:
        """Dropped."""

    def exception(self, event: object, *args: object, **details: object) -> None:
        """The line with the exception's text; the traceback is shown elsewhere."""
        self._log(f"{event}: {sys.exc_info()[1]!r}", *args)

    def bind(self, **_: object) -> TaskLog:
        """Itself: nothing of what is bound is shown."""
        return self

    def isEnabledFor(self, level: int) -> bool:
        """Whether a line of that level would be kept."""
        return self._is_kept and level >= logging.INFO


def missing_input(error: BaseException | None) -> str:
    """What was not there when a task failed: `file:/path`, `variable:name`, `connection:name`; empty if all was.

    `folder:/path` if the file's folder is not there either.
    """
    while error is not None:
        if isinstance(error, FileNotFoundError) and error.filename is not None:
            path = os.fsdecode(error.filename)
            return f"{'file' if os.path.isdir(os.path.dirname(path) or '.') else 'folder'}:{path}"
        if missing := _missing_in_airflow(error):
            return missing
        error = error.__cause__ or error.__context__
    return ""


def _missing_in_airflow(error: BaseException) -> str:
    """The Variable or Connection that Airflow's own exception names; it does so in its text alone from 3.2 on."""
    text = str(error)
    if found := re.search(r"VARIABLE_NOT_FOUND: .*(?:Variable |'key': ')([^ ']+)", text):
        return f"variable:{found[1]}"
    if found := re.search(
        r"CONNECTION_NOT_FOUND: .*'conn_id': '([^']+)'|conn_id `([^`]+)` isn't defined", text
    ):
        return f"connection:{found[1] or found[2]}"
    return ""
