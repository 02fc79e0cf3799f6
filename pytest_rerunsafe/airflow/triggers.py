"""Airflow's triggerer without its processes: its runner on an event loop in virtual time, its supervisor beside it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
import attrs
import msgspec
from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor
from airflow.sdk.execution_time.comms import _RequestFrame

from .answers import Answers
from .attempts import TaskLog, supervised_by
from .runs import now

MOST_TIMERS = 2_000
"""How often triggers may look whether it is time, with nothing else going on: then what they wait for does not come."""


class _Loop(asyncio.SelectorEventLoop):
    """Does in line what other threads would do: their order would be different each time."""

    def __init__(self, on_timer: Callable[[], None]) -> None:
        super().__init__()
        self._on_timer = on_timer

    # Passed on as they come: their signatures differ between the versions of CPython.
    def call_at(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        self._on_timer()
        return super().call_at(*arguments, **options)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as raised:  # whoever awaits gets it, as from an executor
            done.set_exception(raised)
        return done


async def _in_line(func: Callable[..., Any], *args: Any, **_: Any) -> Any:
    """As `anyio.to_thread.run_sync`."""
    return func(*args)


class _Log(TaskLog):
    """The runner's log, which it also writes to while it awaits."""

    async def _alog(self, event: object, *args: object, **details: object) -> None:
        self._log(event, *args, **details)

    ainfo = awarning = aerror = aexception = _alog


class _Supervisor(TriggerRunnerSupervisor):
    """The part of the triggerer that reads and writes the database, made without the process that it supervises."""

    @classmethod
    def alone(cls) -> _Supervisor:
        made = cls.__new__(cls)
        for field in attrs.fields(TriggerRunnerSupervisor):
            default: Any = field.default
            if isinstance(default, attrs.Factory) and not default.takes_self:  # type: ignore[arg-type]
                setattr(made, field.name, default.factory())
            elif default is not attrs.NOTHING:
                setattr(made, field.name, default)
        made.job = SimpleNamespace(id=1, hostname="triggerer")  # type: ignore[assignment]
        return made

    def send_msg(self, msg: Any, *_: Any, **__: Any) -> None:
        self._response = msg

    def told(self, msg: Any) -> Any:
        """The answer to the runner's message, which loses on its way what it loses over the socket."""
        sent = _RequestFrame(id=0, body=msg.model_dump()).as_bytes()
        body = msgspec.msgpack.Decoder(_RequestFrame).decode(sent[4:]).body
        self._handle_request(self.decoder.validate_python(body), TaskLog(False), 0)  # type: ignore[arg-type]
        return self._response

    @property
    def has_news(self) -> bool:
        return bool(self.events or self.failed_triggers)


class _Comms:
    """What `SUPERVISOR_COMMS` is in the triggerer."""

    def __init__(self, supervisor: _Supervisor, answers: Answers) -> None:
        self._supervisor = supervisor
        self._answers = answers

    def send(self, msg: Any) -> Any:
        """The supervisor's answer to a message of the runner or of a trigger."""
        if type(msg).__name__ == "TriggerStateChanges":
            return self._supervisor.told(msg)
        return self._answers.send(msg)

    async def asend(self, msg: Any) -> Any:
        """As `send`."""
        return self.send(msg)


class _Noticed(deque[Any]):
    """A queue that tells when something comes in."""

    def __init__(self, on_append: Callable[[], None]) -> None:
        super().__init__()
        self._on_append = on_append

    def append(self, item: Any) -> None:
        super().append(item)
        self._on_append()


class Triggerer:
    """A triggerer with its memory: triggers that wait go on where they stood when `run` is called again."""

    def __init__(self, answers: Answers) -> None:
        self._timers = 0
        self._news: asyncio.Future[None] | None = None
        self._loop = _Loop(self._count_timer)
        self._supervisor = _Supervisor.alone()
        self._comms = _Comms(self._supervisor, answers)
        self._runner = TriggerRunner()
        self._runner.log = _Log(False)  # type: ignore[assignment]
        self._runner.events = _Noticed(self._wake_up)
        self._runner.comms_decoder = self._comms  # type: ignore[assignment]

    @property
    def is_running(self) -> bool:
        """Whether it has triggers that have not ended."""
        return bool(self._runner.triggers)

    @property
    def is_hopeless(self) -> bool:
        """Whether its triggers have waited in vain for so long that they will for ever."""
        return self._timers > MOST_TIMERS

    def take_heart(self) -> None:
        """Something has happened that triggers may have waited for."""
        self._timers = 0

    def run(self, trigger_ids: Collection[int], until: datetime) -> None:
        """Run these triggers, and end others, until one fires or fails or it is `until`."""
        with self._in_process():
            self._loop.run_until_complete(self._run(set(trigger_ids), until))

    @contextmanager
    def _in_process(self) -> Iterator[None]:
        """Inside, messages go to the supervisor, and `anyio` starts no threads either."""
        run_sync = anyio.to_thread.run_sync
        anyio.to_thread.run_sync = _in_line  # type: ignore[assignment]
        try:
            with supervised_by(self._comms):  # type: ignore[arg-type]
                yield
        finally:
            anyio.to_thread.run_sync = run_sync

    async def _run(self, trigger_ids: set[int], until: datetime) -> None:
        runner = self._runner
        self._supervisor.update_triggers(trigger_ids)
        await runner.sync_state_to_supervisor([])
        await runner.create_triggers()
        ending = [runner.triggers[each]["task"] for each in runner.to_cancel if each in runner.triggers]
        await runner.cancel_triggers()
        if ending:
            await asyncio.wait(ending)
        while True:
            await runner.sync_state_to_supervisor(await runner.cleanup_finished_triggers())
            is_over = not runner.triggers or self.is_hopeless or now() >= until
            if self._supervisor.has_news or is_over:
                return
            self._news = self._loop.create_future()
            tasks = [details["task"] for details in runner.triggers.values()]
            seconds = max((until - now()) / timedelta(seconds=1), 0.0)
            await asyncio.wait([*tasks, self._news], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def submit(self) -> bool:
        """Let Airflow do what the events and failures so far mean for the tasks; whether there were any."""
        has_news = self._supervisor.has_news
        supervisor: Any = self._supervisor
        supervisor.handle_events()
        supervisor.handle_failed_triggers()
        supervisor.clean_unused()
        return has_news

    def close(self) -> None:
        """End all triggers as at the end of the triggerer."""
        with self._in_process():
            self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = [details["task"] for details in self._runner.triggers.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    def _count_timer(self) -> None:
        self._timers += 1
        if self.is_hopeless:
            self._wake_up()

    def _wake_up(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
