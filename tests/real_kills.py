"""Task functions of real DAG files on a real disk, killed for real; nothing of the plugin may be used here.

Run as a program, for Airflow belongs into a process of its own:
`python real_kills.py FOLDER DAG_FILE...` leaves `FOLDER/report.json`, a `DagReport` by the name of each file.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Template

DAY = "2024-01-01"

Files = dict[str, "str | None"]
"""Content by path below the data folder; None for a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the process of one task ended."""

    is_killed: bool
    operations: list[str]
    """Those that were done, in order, as in `replace output.txt`."""
    value: Any = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What stands there after a crash or a success, and a rerun."""

    task_id: str
    killed_after: str | None
    """The last operation before the kill, `nothing` if there was none; None after a success."""
    rerun: str
    """`task`: from this task on; `run`: from the first one; `alone`: this one only."""
    files: Files
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagReport:
    """All that was seen of one DAG file."""

    import_errors: list[str]
    dags: dict[str, list[str]]
    """Task ids in topological order, by DAG id."""
    parsed: Files
    """What loading the file alone left behind."""
    clean: Files
    outcomes: list[Outcome] = field(default_factory=list)


# --- the data folder --------------------------------------------------------------------------


def snapshot(root: Path) -> Files:
    return {str(path.relative_to(root)): _content(path) for path in sorted(root.rglob("*"))}


def _content(path: Path) -> str | None:
    return None if path.is_dir() else path.read_bytes().decode()


def restore(root: Path, files: Files) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, content in files.items():
        if content is None:
            (root / name).mkdir()
        else:
            (root / name).write_bytes(content.encode())


# --- one task in a process of its own -----------------------------------------------------------


class Killer:
    """Counts the operations below a folder and kills its own process after the n-th."""

    def __init__(self, root: Path, kill_after: int | None, done: int) -> None:
        self._root = f"{root}/"
        self._left = kill_after
        self._done = done
        self._paths: dict[int, str] = {}

    def install(self) -> None:
        # `open` written in Python buffers like the one in C, but makes its system calls through `os`.
        builtins.open = importlib.import_module("_pyio").open
        os.open = self._watched_open(os.open)
        for name in ("write", "ftruncate"):
            setattr(os, name, self._watched(name, getattr(os, name), self._path_of_descriptor))
        for name, path in (("replace", 1), ("rename", 1), ("unlink", 0), ("remove", 0), ("mkdir", 0)):
            setattr(os, name, self._watched(name, getattr(os, name), _argument_at(path)))
        self.after("nothing", None)

    def after(self, name: str, path: str | None) -> None:
        """Note an operation that is done; the process may end here."""
        if path is not None:
            _write(self._done, f"{name} {path.removeprefix(self._root)}\n".encode())
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._left is not None:
            self._left -= 1

    def _path_of_descriptor(self, args: tuple[Any, ...]) -> str:
        return self._paths.get(args[0], "")

    def _watched(
        self, name: str, function: Callable[..., Any], path_of: Callable[[tuple[Any, ...]], str]
    ) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if path_of(args).startswith(self._root):
                self.after(name, path_of(args))
            return result

        return call

    def _watched_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            descriptor = function(path, flags, *args, **kwargs)
            self._paths[descriptor] = str(path)
            if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith(self._root):
                self.after("open", str(path))
            return descriptor

        return call


def _argument_at(position: int) -> Callable[[tuple[Any, ...]], str]:
    return lambda args: str(args[position])


_write = os.write  # the unwatched one


def load(dag_file: Path) -> Any:
    """Airflow's DagBag of one file."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before Airflow 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[attr-defined, no-redef, unused-ignore]
    return DagBag(dag_folder=str(dag_file))


def load_dag(dag_file: Path) -> Any:
    (dag,) = load(dag_file).dags.values()
    return dag


def in_child(function: Callable[[int], None]) -> tuple[int, list[str]]:
    """The exit status of a forked process, and the lines that it wrote to the descriptor it was given."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function(writing)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        lines = pipe.read().splitlines()
    return os.waitpid(child, 0)[1], lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A DAG file and the folder that its tasks write to."""

    dag_file: Path
    root: Path

    def run_task(self, task_id: str, values: dict[str, Any], kill_after: int | None = None) -> Result:
        """Parse the file afresh and run one task of it, in a new process."""
        status, lines = in_child(lambda done: self._work(task_id, values, kill_after, done))
        if os.WIFSIGNALED(status):
            return Result(is_killed=os.WTERMSIG(status) == signal.SIGKILL, operations=lines)
        return Result(is_killed=False, operations=lines[:-1], **json.loads(lines[-1]))

    def _work(self, task_id: str, values: dict[str, Any], kill_after: int | None, done: int) -> None:
        task = load_dag(self.dag_file).get_task(task_id)
        args = [argument(value, values) for value in task.op_args]
        kwargs = {name: argument(value, values) for name, value in task.op_kwargs.items()}
        Killer(self.root, kill_after, done).install()
        try:
            end = {"value": task.python_callable(*args, **kwargs)}
        except Exception as error:  # a rerun that fails is an outcome
            end = {"error": repr(error)}
        _write(done, f"{json.dumps(end)}\n".encode())


def argument(value: Any, values: dict[str, Any]) -> Any:
    """A task's argument as Airflow would give it: templates rendered, results of other tasks looked up."""
    if isinstance(value, str):
        return Template(value).render(ds=DAY)
    return values[value.operator.task_id] if hasattr(value, "operator") else value


# --- every kill, every rerun --------------------------------------------------------------------


def report_on(stage: Stage) -> DagReport:
    restore(stage.root, {})
    bag = load(stage.dag_file)
    parsed = snapshot(stage.root)
    dags = {dag_id: [task.task_id for task in dag.topological_sort()] for dag_id, dag in bag.dags.items()}
    (task_ids,) = dags.values()
    before, values = clean_run(stage, task_ids)
    outcomes = [
        *after_kills(stage, task_ids, before, values),
        *after_success(stage, task_ids, before[-1], values),
    ]
    errors = sorted(bag.import_errors.values())
    return DagReport(import_errors=errors, dags=dags, parsed=parsed, clean=before[-1], outcomes=outcomes)


def clean_run(stage: Stage, task_ids: list[str]) -> tuple[list[Files], dict[str, Any]]:
    """The files before each task and after the last, and what each task returned."""
    restore(stage.root, {})
    before = [snapshot(stage.root)]
    values: dict[str, Any] = {}
    for task_id in task_ids:
        result = stage.run_task(task_id, values)
        assert not result.error, result.error
        values[task_id] = result.value
        before.append(snapshot(stage.root))
    return before, values


def after_kills(
    stage: Stage, task_ids: list[str], before: list[Files], values: dict[str, Any]
) -> Iterator[Outcome]:
    for at, task_id in enumerate(task_ids):
        for operation, crashed in crashes(stage, task_id, before[at], values):
            for name, first in (("task", at), ("run", 0)):
                yield rerun(stage, crashed, task_ids[first:], values, (task_id, operation, name))


def crashes(stage: Stage, task_id: str, before: Files, values: dict[str, Any]) -> Iterator[tuple[str, Files]]:
    """For each operation of a task, the files that a kill right after it leaves."""
    for kill_after in count():
        restore(stage.root, before)
        result = stage.run_task(task_id, values, kill_after)
        if not result.is_killed:
            return
        yield result.operations[-1] if result.operations else "nothing", snapshot(stage.root)


def after_success(
    stage: Stage, task_ids: list[str], clean: Files, values: dict[str, Any]
) -> Iterator[Outcome]:
    for task_id in task_ids:
        yield rerun(stage, clean, [task_id], values, (task_id, None, "alone"))
    yield rerun(stage, clean, task_ids, values, (task_ids[0], None, "run"))


def rerun(
    stage: Stage,
    files: Files,
    task_ids: list[str],
    values: dict[str, Any],
    story: tuple[str, str | None, str],
) -> Outcome:
    restore(stage.root, files)
    errors = [error for task_id in task_ids if (error := stage.run_task(task_id, values).error)]
    task_id, killed_after, name = story
    return Outcome(
        task_id=task_id,
        killed_after=killed_after,
        rerun=name,
        files=snapshot(stage.root),
        error="; ".join(errors),
    )


def redirect(dag_file: Path, folder: Path, root: Path) -> Path:
    """A copy of a DAG file that writes below `root` instead of `/data`."""
    copy = folder / dag_file.name
    copy.write_text(dag_file.read_text().replace('"/data/', f'"{root}/'))
    return copy


def main(folder: Path, *dag_files: Path) -> None:
    root, copies = folder / "data", folder / "dags"
    copies.mkdir()
    stages = [Stage(dag_file=redirect(dag_file, copies, root), root=root) for dag_file in dag_files]
    reports = {stage.dag_file.stem: asdict(report_on(stage)) for stage in stages}
    (folder / "report.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
