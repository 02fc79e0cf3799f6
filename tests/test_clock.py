"""The virtual clock: everything that tells the time agrees, and waiting moves it instead of lasting."""

from __future__ import annotations

import asyncio
import datetime as datetime_module
import os
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from time import monotonic as early_monotonic
from time import sleep as early_sleep
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.world import process
from pytest_rerunsafe.world.clock import Clock

START = datetime(2024, 1, 15, 12, 30, 15, 123456, tzinfo=timezone.utc)
BUILTINS = ("sleep", "monotonic", "perf_counter", "process_time", "ctime", "clock_gettime")


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock.start(START) as running:
        yield running


def elapsed(clock: Clock) -> float:
    return (clock.now - START).total_seconds()


@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")
def test_every_way_to_read_the_time_agrees(clock: Clock) -> None:
    stamp = START.timestamp()
    assert datetime.now(timezone.utc) == datetime_module.datetime.now(timezone.utc) == START
    assert datetime.now() == datetime.today() == START.replace(tzinfo=None)  # noqa: DTZ002, DTZ005
    assert getattr(datetime, "utcnow")() == START.replace(tzinfo=None)  # noqa: B009
    assert date.today() == START.date()  # noqa: DTZ011
    assert time.time() == time.clock_gettime(time.CLOCK_REALTIME) == pytest.approx(stamp, abs=1e-6)
    assert time.time_ns() == time.clock_gettime_ns(time.CLOCK_REALTIME) == 1705321815123456000
    assert time.localtime()[:6] == time.gmtime()[:6] == (2024, 1, 15, 12, 30, 15)
    assert time.strftime("%Y-%m-%d %H:%M:%S %Z") == "2024-01-15 12:30:15 UTC"
    assert time.ctime() == time.asctime() == "Mon Jan 15 12:30:15 2024"
    assert time.ctime(0) == time.asctime(time.gmtime(0)) == "Thu Jan  1 00:00:00 1970"


def steady() -> list[float]:
    return [
        time.monotonic(),
        early_monotonic(),
        time.perf_counter(),
        time.monotonic_ns() / 1e9,
        time.perf_counter_ns() / 1e9,
        time.clock_gettime(time.CLOCK_MONOTONIC),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e9,
    ]


def test_steady_clocks_stand_still_and_move_with_the_clock(clock: Clock) -> None:
    before = steady()
    assert steady() == before
    clock.advance(90.5)
    assert [after - first for first, after in zip(before, steady(), strict=True)] == pytest.approx([90.5] * 7)


def test_computing_costs_no_time(clock: Clock) -> None:
    before = (time.process_time(), time.thread_time(), time.process_time_ns(), time.thread_time_ns())
    sum(range(200_000))
    assert (time.process_time(), time.thread_time(), time.process_time_ns(), time.thread_time_ns()) == before


def test_steady_clocks_depend_on_the_time_alone(clock: Clock) -> None:
    first = steady()
    clock.advance(1000)
    clock.move_to(START)
    assert steady() == first


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2199, 1, 1)))  # noqa: DTZ001
def test_the_clock_goes_to_any_time_exactly(moment: datetime) -> None:
    at = moment.replace(tzinfo=timezone.utc)
    with Clock.start(START) as clock:
        clock.move_to(at)
        assert clock.now == at
    with Clock.start(at) as clock:
        assert clock.now == at


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_sleeping_adds_up(lengths: list[float]) -> None:
    with Clock.start(START) as clock:
        for length in lengths:
            time.sleep(length)
        assert elapsed(clock) == pytest.approx(sum(lengths), abs=2e-6 * (len(lengths) + 1))


def test_times_of_other_zones_are_understood(clock: Clock) -> None:
    clock.move_to(datetime(2024, 6, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now == datetime(2024, 6, 1, tzinfo=timezone.utc)


def test_a_naive_time_is_refused(clock: Clock) -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        clock.move_to(naive)
    with pytest.raises(ValueError, match="time zone"):
        Clock.start(naive)


# --- waiting ----------------------------------------------------------------------------------


def test_sleep_takes_no_time_wherever_it_was_imported(clock: Clock) -> None:
    late: dict[str, Any] = {}
    exec("from time import sleep", late)
    for sleep in (time.sleep, early_sleep, late["sleep"]):
        sleep(3600)
    assert elapsed(clock) == 3 * 3600


def test_the_shortest_sleep_moves_the_clock(clock: Clock) -> None:
    time.sleep(1e-9)
    assert elapsed(clock) == 1e-6
    time.sleep(0)
    assert elapsed(clock) == 1e-6


@pytest.mark.parametrize(("length", "error"), [(-1, ValueError), (-0.5, ValueError), ("1", TypeError)])
def test_sleep_refuses_what_the_real_one_refuses(clock: Clock, length: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        time.sleep(length)
    assert elapsed(clock) == 0


def test_waiting_for_what_nobody_can_bring_moves_the_clock(clock: Clock) -> None:
    assert threading.Event().wait(100) is False
    with pytest.raises(queue.Empty):
        queue.Queue[int]().get(timeout=50)
    condition = threading.Condition()
    with condition:
        assert condition.wait_for(lambda: False, timeout=25) is False
    assert elapsed(clock) == pytest.approx(175)


def test_what_is_there_already_is_not_waited_for(clock: Clock) -> None:
    event = threading.Event()
    event.set()
    assert event.wait(100) is True
    assert elapsed(clock) == 0


def test_a_thread_that_works_is_really_waited_for(clock: Clock) -> None:
    done = threading.Event()

    def work() -> None:
        for _ in range(30):
            sum(range(200_000))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert done.wait(1000) is True
    thread.join()
    assert elapsed(clock) == 0


def test_a_thread_that_waits_too_does_not_hold_up(clock: Clock) -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    assert threading.Event().wait(1000) is False
    release.set()
    thread.join()
    assert elapsed(clock) == 1000


def test_pool_workers_may_sleep(clock: Clock) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(time.sleep, [60, 60]))
    assert elapsed(clock) == 120


def test_a_loop_that_polls_a_thread_ends(clock: Clock) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.set)
    thread.start()
    while not done.is_set():
        time.sleep(1)
    thread.join()


async def wait_for_others() -> list[str]:
    order: list[str] = []

    async def worker(name: str, length: float) -> None:
        await asyncio.sleep(length)
        order.append(name)

    await asyncio.gather(worker("late", 600), worker("early", 30))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 60)
    return order


def test_asyncio_waits_in_virtual_time_and_in_order(clock: Clock) -> None:
    assert asyncio.run(wait_for_others()) == ["early", "late"]
    assert elapsed(clock) == pytest.approx(660, abs=1e-4)


def test_asyncio_hears_of_threads(clock: Clock) -> None:
    async def main() -> int:
        return await asyncio.wait_for(asyncio.to_thread(lambda: sum(range(500_000))), 1000)

    assert asyncio.run(main()) == sum(range(500_000))
    assert elapsed(clock) == 0


def test_asyncio_reads_what_is_there_before_time_flies(clock: Clock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.send(b"x")

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(ours, 1), 1000)

    async def later() -> float:
        arrived = asyncio.Event()
        asyncio.get_running_loop().add_reader(ours, arrived.set)
        theirs.send(b"y")
        await asyncio.wait_for(arrived.wait(), 1000)
        return elapsed(clock)

    assert asyncio.run(main()) == b"x"
    assert asyncio.run(later()) == 0
    ours.close()
    theirs.close()


def test_our_own_bounds_are_in_real_time(clock: Clock) -> None:
    assert process._real_now() < time.monotonic() - 10**6


def test_the_timeouts_of_sockets_and_select_are_real(clock: Clock) -> None:
    ours, theirs = socket.socketpair()
    assert select.select([ours], [], [], 0.001) == ([], [], [])
    ours.settimeout(0.001)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    theirs.send(b"x")
    assert ours.recv(1) == b"x"
    ours.close()
    theirs.close()
    assert elapsed(clock) == 0


# --- put on and off ---------------------------------------------------------------------------


def test_stop_brings_the_real_time_back() -> None:
    before = {name: getattr(time, name) for name in BUILTINS}
    waits = (threading.Condition.wait, asyncio.selector_events.BaseSelectorEventLoop.__init__)
    year, sleep = date.today().year, early_sleep  # noqa: DTZ011
    clock = Clock.start(datetime(1999, 1, 1, tzinfo=timezone.utc))
    assert date.today().year == 1999  # noqa: DTZ011
    assert time.sleep is not before["sleep"]
    clock.stop()
    assert date.today().year == year  # noqa: DTZ011
    assert {name: getattr(time, name) for name in BUILTINS} == before
    assert (threading.Condition.wait, asyncio.selector_events.BaseSelectorEventLoop.__init__) == waits
    assert early_sleep is sleep is time.sleep


def test_the_time_zone_is_utc_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    with Clock.start(START):
        assert time.tzname == ("UTC", "UTC")
        assert START.astimezone().utcoffset() == timedelta()
        del os.environ["TZ"]  # as DAG code may
    assert time.timezone == -9 * 3600
    assert os.environ["TZ"] == "Asia/Tokyo"
    monkeypatch.undo()
    time.tzset()


def test_odd_objects_among_the_modules_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    monkeypatch.setitem(sys.modules, "odd_none", None)
    monkeypatch.setitem(sys.modules, "odd_module", Hostile("odd_module"))
    with Clock.start(START) as clock:
        assert clock.now == START
