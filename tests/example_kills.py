"""The tasks of DAG files on a real disk, killed for real at each change that they make there.

Nothing of the plugin may be used here. `main` is called in an interpreter of its own, where Airflow belongs.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import random
import runpy
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import time_machine
from real_kills import argument, load
from watched_disk import Killer, Snapshot, in_child, put_on_disk, snapshot, watch_databases, watch_disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What a process finds that loads the DAG file."""

    now: datetime
    drawn: tuple[str, ...]
    """What is random, in the order in which it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Process):
    """One try of one task instance."""

    dag_id: str
    task_id: str
    map_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A DAG file and what runs of it, in order."""

    dag_file: Path
    dag_id: str
    root: Path
    """The folder that stands for `/data`."""
    conftest: Path
    """Puts the inputs in place."""
    dag_processor: Process
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """What one attempt left below the folder."""

    killed: tuple[Snapshot, ...]
    """By a kill before the first change, and after each."""
    ended: Snapshot
    error: str = ""
    """What it raised when nobody killed it."""


class Inputs:
    """The world of `pytest_rerun_safety_prepare`, on the real disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, path: str, content: str) -> None:
        """Put a file in place."""
        place = self._root / path.removeprefix("/data/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)


class Variables:
    """Airflow's Variables, in this process alone."""

    _values: ClassVar[dict[str, str]] = {}

    @classmethod
    def get(cls, key: str, default: str) -> str:
        return cls._values.get(key, default)

    @classmethod
    def set(cls, key: str, value: str) -> None:
        cls._values[key] = value


class Stage:
    """The process of one DAG file: it has loaded the file as the DAG processor does, and forks one for each try to kill."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._drawn: list[str] = []
        """What is still to be drawn."""
        self._results: dict[str, Any] = {}
        """What the tasks returned."""
        self._stand_in()
        put_on_disk(play.root, {})
        prepare = runpy.run_path(str(play.conftest))["pytest_rerun_safety_prepare"]
        prepare(SimpleNamespace(dag_id=play.dag_id), Inputs(play.root))
        before = snapshot(play.root)
        with self._finding(play.dag_processor):
            self._dags = self._load()
        self._loading_writes = snapshot(play.root) != before

    def _stand_in(self) -> None:
        """Put what needs a running Airflow, and what is random, under our control."""
        ti = SimpleNamespace(xcom_pull=lambda task_ids: self._results[task_ids])
        airflow_sdk = importlib.import_module("airflow.sdk")
        vars(airflow_sdk).update(get_current_context=lambda: {"ti": ti}, Variable=Variables)
        vars(uuid).update(uuid4=lambda: uuid.UUID(self._drawn.pop(0)))
        vars(tempfile).update(_get_candidate_names=lambda: iter([self._drawn.pop(0)]))
        vars(random).update(sample=lambda population, k: [self._drawn.pop(0) for _ in range(k)])

    @contextmanager
    def _finding(self, process: Process) -> Iterator[None]:
        """Inside, this is the process that finds all that."""
        self._drawn[:] = process.drawn
        with time_machine.travel(process.now, tick=False):
            yield

    def _load(self) -> dict[str, Any]:
        bag = load(self._play.dag_file)
        assert not bag.import_errors, bag.import_errors
        return bag.dags  # type: ignore[no-any-return]

    def trees(self, attempt: Attempt) -> Trees | None:
        """What an attempt leaves, killed and not; None if its task has no function to call."""
        if self._task(self._dags, attempt) is None:
            return None
        before = snapshot(self._play.root)
        killed: list[Snapshot] = []
        for number in count():
            put_on_disk(self._play.root, before)
            status, end = in_child(partial(self._run, attempt, number))
            if not os.WIFSIGNALED(status):
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            killed.append(snapshot(self._play.root))
        assert status == 0
        self._results[attempt.task_id] = end.get("value")
        return Trees(killed=tuple(killed), ended=snapshot(self._play.root), error=end.get("error", ""))

    def _run(self, attempt: Attempt, number: int) -> dict[str, Any]:
        """What the task came to, if it was not killed after so many changes."""
        killer = Killer(self._play.root, number)
        watch_disk(killer)
        watch_databases(killer)
        with self._finding(attempt):
            # What loading writes is a part of the attempt; if it writes nothing, the fork has all of it already.
            dags = self._load() if self._loading_writes else self._dags
            task = self._task(dags, attempt)
            args = [argument(value, self._results) for value in task.op_args]
            kwargs = {name: argument(value, self._results) for name, value in task.op_kwargs.items()}
            try:
                return {"value": task.python_callable(*args, **kwargs)}
            except Exception as error:  # what fails leaves a tree too
                return {"error": repr(error)}

    def _task(self, dags: dict[str, Any], attempt: Attempt) -> Any:
        task = dags[attempt.dag_id].get_task(attempt.task_id)
        if attempt.map_index >= 0:
            lists = task.op_kwargs_expand_input.value
            task = task.unmap(
                {"op_kwargs": {name: values[attempt.map_index] for name, values in lists.items()}}
            )
        return task if hasattr(task, "python_callable") else None


def trees_of(play: Play) -> list[Trees | None]:
    """What each attempt leaves."""
    stage = Stage(play)
    return [stage.trees(attempt) for attempt in play.attempts]


WARM_UP = """\
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Variable, dag, get_current_context, task

@task
def end():
    pass


with DAG("warm_up"):
    PythonOperator(task_id="begin", python_callable=print) >> end()
"""
"""Imports what the examples need, so that whoever is forked finds it."""


def main() -> None:
    """Take `plays` from the folder that the command line names, and leave there the `trees` of each."""
    folder = Path(sys.argv[1])
    warm_up = folder / "warm_up.py"
    warm_up.write_text(WARM_UP)
    assert not load(warm_up).import_errors
    gc.disable()  # a fork shares memory until somebody touches it
    gc.freeze()
    ended = [in_child(partial(trees_of, play)) for play in pickle.loads((folder / "plays").read_bytes())]
    assert {status for status, _ in ended} == {0}
    (folder / "trees").write_bytes(pickle.dumps([trees for _, trees in ended]))
