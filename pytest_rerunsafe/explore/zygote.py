"""The process that workers are forked from: forked from pytest once, imports Airflow, and never runs a line of a DAG."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from .channel import Channel, Closed


class ZygoteError(Exception):
    """The process could not be made ready; the argument is the traceback."""


class Zygote:
    """Forks workers that are ready at once: imports, patches and warm-up lie behind them."""

    def __init__(self, pid: int, channel: Channel) -> None:
        self._pid = pid
        self._channel = channel

    @classmethod
    def start(cls, rootdir: Path, prepare: Callable[[str, Any, Any], None]) -> Zygote:
        """Fork it from this process; returns when it is ready. Raises `ZygoteError`."""
        ours, theirs = Channel.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = _fork()
        if pid == 0:
            ours.close()
            _main(theirs, rootdir, prepare)
        theirs.close()
        zygote = cls(pid, ours)
        try:
            problem = ours.receive()
        except Closed:
            problem = "The process ended while it imported Airflow."
        if problem is not None:
            zygote.close()
            raise ZygoteError(problem)
        return zygote

    def spawn(self) -> tuple[int, Channel]:
        """A new worker: its process id, and the channel to it."""
        ours, theirs = Channel.pair()
        self._channel.send("spawn")
        self._channel.send_end(theirs)
        theirs.close()
        return self._channel.receive(), ours

    def wait(self, pid: int) -> int:
        """The exit code of a worker that has ended, negative for a signal."""
        self._channel.send(pid)
        code: int = self._channel.receive()
        return code

    def close(self) -> None:
        """End it. Workers end when their channels close."""
        self._channel.close()
        with suppress(ChildProcessError):  # somebody has reaped it for us
            os.waitpid(self._pid, 0)


def _fork() -> int:
    with warnings.catch_warnings():
        # CPython 3.12 warns if there are threads (xdist has one): the child never takes a lock that they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _main(channel: Channel, rootdir: Path, prepare: Callable[[str, Any, Any], None]) -> NoReturn:
    leave = os._exit  # the guard replaces it
    try:
        _leave_pytest(channel)
        try:
            engine = _make_ready(rootdir, prepare)
        except BaseException:
            channel.send(traceback.format_exc())
            leave(1)
        channel.send(None)
        _serve(engine, channel)
    except Closed:
        pass
    finally:
        leave(0)


def _leave_pytest(channel: Channel) -> None:
    """Nothing of pytest's may happen here: no output, no interrupt, no tracing, no exit handlers (we leave by `_exit`)."""
    null = os.open(os.devnull, os.O_RDWR)
    # What pytest and xdist have open must not be reached by a DAG that tries numbers. Not closed: objects hold them.
    for fd in {0, 1, 2, *map(int, os.listdir("/dev/fd"))} - {null, channel.fileno()}:
        with suppress(OSError):  # the folder that was listed
            os.fstat(fd)
            os.dup2(null, fd)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.settrace(None)
    sys.setprofile(None)


def _make_ready(rootdir: Path, prepare: Callable[[str, Any, Any], None]) -> Any:
    from ..airflow.boot import boot

    gc.disable()  # imports make no garbage worth the tenth of their time that looking for it takes
    boot()
    from .engine import Engine
    from .worker import serve  # noqa: F401  (so that no worker imports it)

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a run makes many objects and few cycles
    gc.enable()  # now, for DAG code is undone to what is set when the engine is made
    engine = Engine(rootdir, prepare)
    engine.warm_up()
    gc.freeze()  # a collection in a worker would copy every page that it looks at
    return engine


def _serve(engine: Any, channel: Channel) -> None:
    from .worker import serve

    leave = engine.sandbox.exit_now
    while True:
        match channel.receive():
            case "spawn":
                end = channel.receive_end()
                pid = os.fork()
                if pid == 0:
                    channel.close()
                    try:
                        serve(engine, end)
                    finally:
                        leave()
                end.close()
                channel.send(pid)
            case int() as pid:
                _, status = os.waitpid(pid, 0)
                channel.send(os.waitstatus_to_exitcode(status))
