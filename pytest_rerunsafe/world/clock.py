"""The virtual clock of a worker process. Nothing in here waits, and nothing reads the real time.

It stands on time-machine, which changes what the C functions behind `datetime.now` and `time.time` answer:
every reference to them, however early taken, follows the clock, and `datetime` stays the class that it is.
"""

from __future__ import annotations

import asyncio.selector_events
import operator
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace, TracebackType
from typing import Any

import time_machine

from .alarm import Alarm
from .process import replaced

_SMALLEST_STEP = timedelta(microseconds=1)
_SLICE_S = 0.01
"""How long other threads are let run before we look whether they still work."""
_IDLE_SLICES = 3
_OWN_PACKAGE = "pytest_rerunsafe."
_STEADY_CLOCKS = ("CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME", "CLOCK_UPTIME_RAW")


class Clock:
    """The time that this process sees: it stands still until it is moved, and waiting moves it."""

    def __init__(self, at: datetime) -> None:
        _refuse_naive(at)
        self._undo = ExitStack()
        self.alarm = Alarm(lambda: self.now.timestamp())
        self.kill = Alarm(lambda: self.now.timestamp(), signal.SIGKILL)
        """Ends a process that was asked to end."""
        self._lock = threading.Lock()
        # A number: with a datetime, time-machine also takes charge of TZ, which DAG code may unset.
        travel = time_machine.travel(int(at.timestamp()), tick=False)
        self._traveller = travel.start()
        self._is_ticking = False
        self._ticks = 0
        self.on_look: Callable[[], None] = lambda: None
        """Called whenever somebody looks at the clock while it ticks."""
        self._make_reads_tick()
        self._undo.callback(travel.stop)
        self.move_to(at)

    @classmethod
    def start(cls, at: datetime) -> Clock:
        """The clock of this process from now on; the local time zone becomes UTC."""
        clock = cls(at)
        clock._fix_time_zone()
        clock._replace_functions()
        clock._replace_waits()
        clock._undo.enter_context(clock.alarm.installed())
        return clock

    @property
    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def move_to(self, at: datetime) -> None:
        """Set the clock, forwards or backwards."""
        _refuse_naive(at)
        with self._lock:
            self._traveller.shift(at - self.now)

    def advance(self, seconds: float) -> None:
        """Move the clock on; by a microsecond at least, so that whoever waits for less gets there."""
        left = max(timedelta(seconds=seconds), _SMALLEST_STEP) if seconds else timedelta()
        while left:
            step = self.kill.stop_within(self.alarm.stop_within(left))
            with self._lock:
                self._traveller.shift(step)
            left -= step
            self.kill.ring()
            self.alarm.ring()

    @contextmanager
    def ticking(self, is_ticking: bool = True) -> Iterator[None]:
        """Inside, each look at the clock moves it by a microsecond: what is measured takes time, as rates divide by it.

        Afterwards the ticks made inside are taken back: what comes next does not depend on how often somebody looked.
        """
        before, ticks = self._is_ticking, self._ticks
        self._is_ticking = is_ticking
        try:
            yield
        finally:
            self._is_ticking = before
            if is_ticking:
                self.alarm.clear()
                self.kill.clear()
            self._traveller.shift((ticks - self._ticks) * _SMALLEST_STEP)
            self._ticks = ticks

    def tick(self, times: int) -> None:
        """Move it on as if somebody had looked so often."""
        self._ticks += times
        self._traveller.shift(times * _SMALLEST_STEP)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, the process that has set alarms stands still, and time passes for others."""
        with self.ticking(False), self.alarm.aside(), self.kill.aside():
            yield

    @contextmanager
    def still(self) -> Iterator[datetime]:
        """Inside, the time without the ticks so far, which is given: how often a task has looked shows to nobody else."""
        is_ticking, ticks = self._is_ticking, self._ticks
        self._is_ticking, self._ticks = False, 0
        self._traveller.shift(-ticks * _SMALLEST_STEP)
        try:
            yield self.now
        finally:
            self._traveller.shift(ticks * _SMALLEST_STEP)
            self._is_ticking, self._ticks = is_ticking, ticks

    def _make_reads_tick(self) -> None:
        # Whatever asks for the time gets it from one of these, the C functions too.
        for name in ("time", "time_ns"):
            if hasattr(self._traveller, name):
                setattr(self._traveller, name, self._ticking_read(getattr(self._traveller, name)))

    def _ticking_read(self, read: Callable[[], Any]) -> Callable[[], Any]:
        def ticking_read() -> Any:
            if self._is_ticking:
                self._ticks += 1
                self._traveller.shift(_SMALLEST_STEP)
                self.on_look()
            return read()

        return ticking_read

    def stop(self) -> None:
        self._undo.close()

    def __enter__(self) -> Clock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what the process finds in place of the real thing ------------------------------------

    def _fix_time_zone(self) -> None:
        self._undo.callback(_set_time_zone, os.environ.get("TZ"))
        _set_time_zone("UTC")

    def _replace_functions(self) -> None:
        sleep = {time.sleep: self._sleep_function(time.sleep)}
        replacements = _steady_functions() | _text_functions() | sleep
        for owner, name, function in _references(replacements):
            self._undo.enter_context(replaced(owner, name, replacements[function]))

    def _sleep_function(self, real: Callable[[float], None]) -> Callable[[float], None]:
        def sleep(seconds: Any, /) -> None:
            length = seconds if isinstance(seconds, float) else operator.index(seconds)
            if length < 0:
                raise ValueError("sleep length must be non-negative")
            if threading.active_count() > 1:
                real(min(length, _SLICE_S / 10))  # so that a loop that polls lets the others run
            self.advance(length)

        return sleep

    def _replace_waits(self) -> None:
        loop = asyncio.selector_events.BaseSelectorEventLoop
        self._undo.enter_context(replaced(threading.Condition, "wait", self._condition_wait()))
        self._undo.enter_context(replaced(loop, "__init__", self._loop_init()))

    def _condition_wait(self) -> Callable[..., bool]:
        real = threading.Condition.wait

        def wait(condition: Any, timeout: float | None = None) -> bool:
            if timeout is None or timeout <= 0:
                return real(condition, timeout)
            if not condition._is_owned():
                raise RuntimeError("cannot wait on un-acquired lock")
            return self._wait_in_line(condition, timeout)

        return wait

    def _wait_in_line(self, condition: Any, timeout: float) -> bool:
        """As the real one waits, but in slices: several real waits would miss what comes between them."""
        place = threading.Lock()
        place.acquire()
        condition._waiters.append(place)
        held = condition._release_save()
        try:
            return self._wait(lambda seconds: place.acquire(True, seconds), timeout)
        finally:
            condition._acquire_restore(held)
            with suppress(ValueError):  # called up, and so out of the line
                condition._waiters.remove(place)

    def _loop_init(self) -> Callable[..., None]:
        real = asyncio.selector_events.BaseSelectorEventLoop.__init__

        def init(loop: Any, selector: selectors.BaseSelector | None = None) -> None:
            real(loop, selector or _Selector(self._wait))

        return init

    def _wait(self, wait: Callable[[float], bool], timeout: float) -> bool:
        """Whether it came true: waits really for as long as other threads work, then time flies."""
        if _came_true(wait, timeout):
            return True
        self.advance(timeout)
        return False


def _came_true(wait: Callable[[float], bool], timeout: float) -> bool:
    idle, waited = 0, 0.0
    while threading.active_count() > 1 and idle < _IDLE_SLICES and waited < timeout:
        before = _cpu_s()
        if wait(_SLICE_S):
            return True
        idle = 0 if _cpu_s() - before > _SLICE_S / 10 else idle + 1
        waited += _SLICE_S
    return wait(0)  # of the thread that ended last, or with nobody there who could do anything


def _cpu_s() -> float:
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)


class _Selector(selectors.DefaultSelector):
    """An event loop's selector whose waiting is virtual."""

    def __init__(self, wait: Callable[[Callable[[float], bool], float], bool]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready: list[tuple[selectors.SelectorKey, int]] = []

        def wait(seconds: float) -> bool:
            ready.extend(selectors.DefaultSelector.select(self, seconds))
            return bool(ready)

        self._wait(wait, timeout)
        return ready


def _refuse_naive(at: datetime) -> None:
    if at.tzinfo is None:
        raise ValueError(f"The clock needs a time with a time zone, not {at!r}")


def _set_time_zone(name: str | None) -> None:
    if name is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = name
    time.tzset()


def _steady_functions() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Replacements of the clocks that time-machine leaves alone, by the function that they replace.

    They show the time of day: a function of the virtual clock alone, whatever ran before in this process.
    What was computed costs nothing: a real figure would make each run differ from the last.
    """
    now, now_ns = time.time, time.time_ns
    steady = {getattr(time, name) for name in _STEADY_CLOCKS if hasattr(time, name)}
    gettime, gettime_ns = time.clock_gettime, time.clock_gettime_ns
    return {
        time.monotonic: lambda: now(),
        time.monotonic_ns: lambda: now_ns(),
        time.perf_counter: lambda: now(),
        time.perf_counter_ns: lambda: now_ns(),
        time.process_time: lambda: 0.0,
        time.process_time_ns: lambda: 0,
        time.thread_time: lambda: 0.0,
        time.thread_time_ns: lambda: 0,
        time.clock_gettime: lambda clock: now() if clock in steady else gettime(clock),
        time.clock_gettime_ns: lambda clock: now_ns() if clock in steady else gettime_ns(clock),
        time.get_clock_info: _clock_info(time.get_clock_info),
    }


def _clock_info(real: Callable[..., Any]) -> Callable[[str], SimpleNamespace]:
    """Tells how coarse the clock is: an event loop would wait for ever for less than its floats can show."""

    def get_clock_info(name: str, /) -> SimpleNamespace:
        return SimpleNamespace(**{**vars(real(name)), "resolution": _SMALLEST_STEP.total_seconds()})

    return get_clock_info


def _text_functions() -> dict[Callable[..., Any], Callable[..., Any]]:
    now, ctime, asctime, localtime = time.time, time.ctime, time.asctime, time.localtime
    return {
        time.ctime: lambda seconds=None, /: ctime(now() if seconds is None else seconds),
        time.asctime: lambda *moment: asctime(*(moment or (localtime(),))),
    }


def _references(functions: Iterable[Any]) -> list[tuple[Any, str, Any]]:
    """Where loaded modules hold one of these built-in functions: owner, name, function."""
    wanted, kind = {id(function): function for function in functions}, type(len)
    return [
        (module, name, value)
        for module_name, module in list(sys.modules.items())
        if not module_name.startswith(_OWN_PACKAGE) and hasattr(module, "__dict__")
        for name, value in list(vars(module).items())
        if type(value) is kind and id(value) in wanted
    ]
