"""Where the time of our side goes, as a child process of `speed.py`: all checks of a DAG in one process, sampled.

Every few milliseconds a thread looks which of our functions is at work: itself or by what it has called of
Airflow, of the standard library or of the DAG. Prints these with their shares, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from types import FrameType
from typing import Any

from floor import ready_engine

import pytest_rerunsafe.check
from pytest_rerunsafe.settings import Settings

PERIOD_S = 0.002
PACKAGE = str(PurePath(pytest_rerunsafe.check.__file__).parent)
WRAPPERS = ("explore/worker.py", "explore/engine.py", "explore/sandbox.py")
"""Modules that call all the others: a function of theirs is named only where nothing else of ours is at work."""

_write = os.write


class InProcess:
    """Takes the place of the pool of workers: does each job here."""

    def __init__(self, engine: Any, size: int) -> None:
        self._engine = engine

    def run(self, jobs: Sequence[Any]) -> list[Any]:
        """The answers, in the order of the jobs."""
        from pytest_rerunsafe.explore.worker import _answer

        return [_answer(self._engine, job) for job in jobs]

    def close(self) -> None:
        """There is nothing to end."""


class Sampler:
    """Counts what a thread is at."""

    def __init__(self, thread_id: int) -> None:
        self.seen: Counter[str] = Counter()
        self._watched = thread_id
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.seen[_at_work(sys._current_frames().get(self._watched))] += 1


def _at_work(frame: FrameType | None) -> str:
    """Our innermost function on the stack."""
    wrapper = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            module = file[len(PACKAGE) + 1 :]
            name = f"{module} {frame.f_code.co_name}"
            if module not in WRAPPERS:
                return name
            wrapper = wrapper or name
        frame = frame.f_back
    return wrapper or "other"


def _check_all(file: str) -> None:
    checker = pytest_rerunsafe.check.Checker(
        settings=Settings(), rootdir=Path(file).parent, prepare=lambda file, dag, world: None
    )
    (dag,) = checker.load(file).dags
    checks = checker.checks_of(dag)
    for check in checks:
        checker.run(dag, check, checks)


def main(file: str) -> None:
    """Warm up, sample, tell."""
    engine = ready_engine(Path(file).parent)
    module: Any = pytest_rerunsafe.check
    module.Pool = InProcess
    module.Zygote.start = classmethod(lambda cls, rootdir, prepare: engine)
    _check_all(file)
    with Sampler(threading.get_ident()) as sampler:
        _check_all(file)
    shares = {name: count / sampler.seen.total() for name, count in sampler.seen.most_common(14)}
    _write(1, json.dumps(shares).encode())


if __name__ == "__main__":
    main(sys.argv[1])
