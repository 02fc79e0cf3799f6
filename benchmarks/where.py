"""Where the time of the checks of one DAG goes: all jobs done in one process, under CPython's profiler.

Run by `speed.py --table`, in a process of its own. The profiler slows calls down: shares count, not times.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from floor import ready_engine

import pytest_rerunsafe.check
from pytest_rerunsafe.settings import Settings

_write = os.write
"""The real one: the engine puts another in its place."""
PARTS = {
    "Airflow's scheduler, server and clear, asked for the first time": ("metadata.py", "_put"),
    "loading the DAG file": ("loading.py", "load_bag"),
    "putting back what that has made in memory": ("memory.py", "restore"),
    "making the world that of a state": ("sandbox.py", "begin"),
    "undoing what an attempt did to its process": ("process.py", "restore"),
    "telling situations apart": ("sandbox.py", "situation"),
}
"""By title, a function of ours; none of them calls another."""
REST = "the rest: Airflow's task runner, tasks, answers given again"


class InProcess:
    """Takes the place of the pool of workers: does each job here."""

    def __init__(self, engine: Any, *_: Any) -> None:
        self._engine = engine

    def run(self, file: str, jobs: Sequence[Any], **_: Any) -> list[Any]:
        """The answers, in the order of the jobs."""
        from pytest_rerunsafe.explore.worker import _answer

        return [_answer(self._engine, job) for job in jobs]

    def take_spent(self) -> dict[str, float]:
        """The profile tells that."""
        return {}

    def close(self) -> None:
        """There is nothing to end."""


def _check_all(file: str) -> None:
    checker = pytest_rerunsafe.check.Checker(
        settings=Settings(),
        rootdir=Path(file).parent,
        prepare=lambda file, dag, world: None,
    )
    (dag,) = checker.load(file).dags
    checks = checker.checks_of(dag)
    for check in checks:
        checker.run(dag, check, checks)


def _shares(profile: cProfile.Profile) -> dict[str, float]:
    """The share of each part, largest first, the rest last."""
    stats: Any = pstats.Stats(profile)
    took = {(Path(file).name, name): row[3] for (file, _, name), row in stats.stats.items()}
    shares = {title: took.get(part, 0.0) / stats.total_tt for title, part in PARTS.items()}
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    return {**ordered, REST: 1 - sum(shares.values())}


def main(file: str) -> None:
    """Profile, tell."""
    engine: Any = ready_engine(Path(file).resolve().parent)
    process = engine.sandbox._process
    # A new process has no profiler: that is put back too, and ours must stay.
    process._parts = tuple(part for part in process._parts if "_keep_settings" not in part.__qualname__)
    module: Any = pytest_rerunsafe.check
    module.Pool = InProcess
    module.Zygote.start = classmethod(lambda cls, rootdir, prepare: engine)
    profile = cProfile.Profile()
    profile.enable()
    _check_all(file)
    profile.disable()
    _write(1, json.dumps(_shares(profile)).encode())


if __name__ == "__main__":
    main(sys.argv[1])
