"""What a user would do today, as a child process of `speed.py`: `dag.test()` with an injected failure, and again.

Reads a number of scenarios per line from its input and answers each when they are done. Nothing of the plugin is
imported here.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

TASKS = 5
NAMES = ("open", "json.dump", "os.fsync", "os.replace")
"""What the tasks of the example call; a scenario lets one call of one of them fail."""


class Injected(Exception):
    """The failure that stands for a crash."""


def failing_at(number: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but its call of that number fails."""
    calls = iter(range(1, sys.maxsize))

    def function(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise Injected
        return real(*arguments, **options)

    return function


@contextmanager
def injected(names: dict[str, Any], name: str, number: int) -> Iterator[None]:
    """Inside, one call of a function fails where a DAG file's code makes it; `names` are the file's globals."""
    owner, _, function = name.rpartition(".")
    if owner:
        module = names[owner]
        replacement: Any = SimpleNamespace(**vars(module))
        setattr(replacement, function, failing_at(number, getattr(module, function)))
        names[owner] = replacement
    else:
        names[name] = failing_at(number, open)
    try:
        yield
    finally:
        if owner:
            names[owner] = module
        else:
            del names[name]


def scenario(dag: Any, names: dict[str, Any], name: str, number: int) -> None:
    """One scenario, from an empty folder. Raises AssertionError if it was none."""
    shutil.rmtree(names["DATA_DIR"], ignore_errors=True)
    with injected(names, name, number):
        failed = dag.test()
    again = dag.test()
    assert failed.state == "failed", f"{name} #{number}: no failure was injected"
    assert again.state == "success", f"{name} #{number}: the second run ended {again.state}"
    written = [entry for entry in os.listdir(names["DATA_DIR"]) if entry.endswith(".json")]
    assert len(written) == TASKS, f"{name} #{number}: {written}"


def prepared(file: Path, folder: str) -> tuple[Any, dict[str, Any]]:
    """The DAG of a file, and the file's globals, with its data in the folder."""
    from airflow.utils import db

    db.initdb()
    bag = dag_bag_class()(str(file))
    assert not bag.import_errors, bag.import_errors
    (dag,) = bag.dags.values()
    names: dict[str, Any] = dag.tasks[0].python_callable.__globals__
    names["DATA_DIR"] = f"{folder}/data"
    return dag, names


def dag_bag_class() -> Any:
    """Airflow's DagBag, which has moved with 3.2."""
    try:
        from airflow.dag_processing import dagbag
    except ImportError:
        from airflow.models import dagbag  # type: ignore[no-redef]
    return dagbag.DagBag


def serve(file: Path, folder: str, answers: TextIO) -> None:
    """Answer requests until the input ends."""
    dag, names = prepared(file, folder)
    points = cycle(product(NAMES, range(1, TASKS + 1)))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            scenario(dag, names, *next(points))
        print("done", file=answers, flush=True)


def main(file: Path) -> None:
    """Run with a metadata database and a data folder of its own, both temporary."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Airflow's log goes where it costs least
    with tempfile.TemporaryDirectory(prefix="rerunsafe-naive-") as folder:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(file.parent)
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        serve(file, folder, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
