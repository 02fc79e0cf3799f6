"""The processes that workers are forked from: they import Airflow, and never run a line of a DAG.

One is forked from pytest and knows what conftest.py has done; others are fresh interpreters with hash seeds of their own.
"""

from __future__ import annotations

import gc
import json
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
        self._is_ready = False

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
        zygote._get_ready()
        return zygote

    @classmethod
    def begin(cls, rootdir: Path, hash_seed: int) -> Zygote:
        """A fresh interpreter with that hash seed, and thus an order of sets of its own; it becomes ready by itself.

        It knows nothing of conftest.py, so it can put no inputs in place.
        """
        ours, theirs = Channel.pair()
        pid = _fork()
        if pid == 0:
            ours.close()
            _become_fresh(theirs, rootdir, hash_seed)
        theirs.close()
        return cls(pid, ours)

    def _get_ready(self) -> None:
        """Wait until it is. Raises `ZygoteError`."""
        try:
            problem = None if self._is_ready else self._channel.receive()
        except Closed:
            problem = "The process ended while it imported Airflow."
        if problem is not None:
            self.close()
            raise ZygoteError(problem)
        self._is_ready = True

    def spawn(self) -> tuple[int, Channel]:
        """A new worker: its process id, and the channel to it. Raises `ZygoteError` if it does not become ready."""
        self._get_ready()
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


_FRESH = """\
import json, os, sys
fd, rootdir, hash_seed, path, argv = json.loads(sys.argv[1])
sys.path[:], sys.argv[:] = path, argv
os.environ.pop("PYTHONHASHSEED")
os.environ.update({} if hash_seed is None else {"PYTHONHASHSEED": hash_seed})
from pytest_rerunsafe.explore.zygote import serve_apart
serve_apart(fd, rootdir)
"""


def _become_fresh(channel: Channel, rootdir: Path, hash_seed: int) -> NoReturn:
    try:
        os.set_inheritable(channel.fileno(), True)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        told = [channel.fileno(), str(rootdir), os.environ.get("PYTHONHASHSEED"), sys.path, sys.argv]
        env = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
        os.execve(sys.executable, [sys.executable, "-c", _FRESH, json.dumps(told)], env)
    finally:
        os._exit(1)


def serve_apart(fd: int, rootdir: str) -> NoReturn:
    """What a fresh interpreter does."""
    _main(Channel.of(fd), Path(rootdir), _no_inputs)


def _no_inputs(file: str, dag: Any, world: Any) -> None:
    """Who runs a DAG here is given its inputs."""


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
    gc.callbacks.clear()  # Hypothesis has one that looks at the clock, in the middle of whatever runs


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

    scratch, leave = engine.sandbox.files.scratch, engine.sandbox.exit_now
    try:
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
                    scratch.remove(pid)  # it may have been killed
                    channel.send(os.waitstatus_to_exitcode(status))
    finally:
        scratch.remove()
