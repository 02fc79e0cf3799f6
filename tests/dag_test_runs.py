"""Runs DAGs with Airflow's own `dag.test()` and writes down how each ended: a program, for it needs an Airflow of its own.

It never imports the plugin: what it says is Airflow's word alone. Usage: `dag_test_runs.py WANTED.json ENDED.json`, with
AIRFLOW_HOME pointing to an empty folder.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import json
import os
import sqlite3
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict
from unittest.mock import patch

BOUND_S = 120.0
"""Wall-clock time that one DAG may take; the first in a process takes some seconds."""
LEAP = 30
"""Seconds that the clock moves on for one of sleep."""
AT_A_TIME = 2
"""Processes that run DAGs."""


class Wanted(TypedDict):
    """A DAG to run."""

    file: str
    dag_id: str
    logical_date: str
    now: str
    """What the clock says at the start."""


class Ended(TypedDict):
    """How `dag.test()` ended it."""

    run_state: str
    """That of the DagRun; or why there is none."""
    run_id: str
    states: dict[str, str]
    """By task id, `task_id[map_index]` for mapped ones."""
    tries: dict[str, int]
    xcoms: dict[str, str]
    """JSON text by task id and key, `task_id/key`."""


class Report(TypedDict):
    """What this program leaves."""

    columns: list[str]
    """Of the table of task instances."""
    ended: dict[str, Ended]
    """By DAG id."""


def nothing_but(run_state: str) -> Ended:
    """How a DAG ended that has no run."""
    return Ended(run_state=run_state, run_id="", states={}, tries={}, xcoms={})


def main(wanted_file: str, ended_file: str) -> None:
    """Run what is wanted, in forked children: one that does not come to an end is killed, and another goes on."""
    wanted: list[Wanted] = json.loads(Path(wanted_file).read_text())
    home = Path(os.environ["AIRFLOW_HOME"])
    bags = _set_up({dag["file"] for dag in wanted}, home / "template.db")
    shares = [_Share(home / f"{number}", wanted[number::AT_A_TIME]) for number in range(AT_A_TIME)]
    running = {share.fork(bags): share for share in shares}
    while running:
        share = running.pop(os.wait()[0])
        if not share.is_done():
            running[share.fork(bags)] = share
    ended = {dag_id: how for share in shares for dag_id, how in share.ended().items()}
    from airflow.models.taskinstance import TaskInstance

    report = Report(columns=[column.name for column in TaskInstance.__table__.columns], ended=ended)
    Path(ended_file).write_text(json.dumps(report))


class _Share:
    """DAGs that run one after the other, for only the first in a process takes seconds."""

    def __init__(self, place: Path, dags: list[Wanted]) -> None:
        self._database = place.with_suffix(".db")
        self._results = place.with_suffix(".jsonl")
        self._dags = dags
        self._results.touch()

    def _lines(self) -> list[str]:
        return self._results.read_text().splitlines()

    def is_done(self) -> bool:
        """Whether there is a result for each DAG; a child that has died gets one for the DAG that killed it."""
        if len(self._lines()) < len(self._dags):
            self._write(nothing_but(f"did not end within {BOUND_S:.0f} s"))
        return len(self._lines()) == len(self._dags)

    def ended(self) -> dict[str, Ended]:
        """By DAG id."""
        return {dag["dag_id"]: json.loads(line) for dag, line in zip(self._dags, self._lines(), strict=True)}

    def _write(self, ended: Ended) -> None:
        with self._results.open("a") as results:
            results.write(json.dumps(ended) + "\n")

    def fork(self, bags: dict[str, Any]) -> int:
        """Begin the rest in a child; its process id."""
        pid = os.fork()
        if pid == 0:
            try:
                for dag in self._dags[len(self._lines()) :]:
                    # No alarm: that is what Airflow bounds a task's time with.
                    faulthandler.dump_traceback_later(BOUND_S, exit=True)
                    self._write(self._run(dag, bags[dag["file"]].dags[dag["dag_id"]]))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        return pid

    def _run(self, wanted: Wanted, dag: Any) -> Ended:
        with closing(sqlite3.connect(self._database.with_name("template.db"))) as template:
            self._database.unlink(missing_ok=True)
            with closing(sqlite3.connect(self._database)) as copy:
                template.backup(copy)
        _use(self._database)
        try:
            with _clock_at(datetime.fromisoformat(wanted["now"])):
                run = dag.test(logical_date=datetime.fromisoformat(wanted["logical_date"]))
        except Exception as error:
            traceback.print_exc()
            return nothing_but(f"{type(error).__name__}: {error}".partition("\n")[0])
        return _ended(self._database, dag.dag_id, run.run_id, str(run.state))


def _set_up(files: set[str], database: Path) -> dict[str, Any]:
    """Make a metadata database that knows all DAGs; the DagBag of each file.

    Each file is a DAG bundle of its own: `dag.test()` reads the bundle of its DAG anew, whatever it takes.
    """
    bundles = {f"bundle-{number}": file for number, file in enumerate(sorted(files))}
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
        [{"name": name, "classpath": classpath, "kwargs": {"path": file}} for name, file in bundles.items()]
    )
    _use(database)
    from airflow import settings
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.models.base import Base
    from airflow.models.tasklog import LogTemplate
    from airflow.sdk.execution_time.supervisor import in_process_api_server
    from airflow.utils import db
    from airflow.utils.session import create_session

    if hasattr(db, "import_all_models"):
        db.import_all_models()
    Base.metadata.create_all(settings.engine)
    db.add_default_pool_if_not_exists()
    with create_session() as session:
        session.add(LogTemplate(filename="{{ ti.task_id }}", elasticsearch_id="{{ ti.task_id }}"))
    DagBundlesManager().sync_bundles_to_db()
    bags = {file: _stored(name, file) for name, file in bundles.items()}
    _ = in_process_api_server().app  # made once, not in each child; its threads start with its first use
    return bags


def _stored(bundle: str, file: str) -> Any:
    # 3.2 moved it.
    places = ("airflow.dag_processing.dagbag", "airflow.models.dagbag")
    module = importlib.import_module(next(name for name in places if importlib.util.find_spec(name)))
    bag = module.DagBag(dag_folder=file, safe_mode=False, bundle_path=Path(file), bundle_name=bundle)
    module.sync_bag_to_db(bag, bundle, None)
    return bag


def _use(database: Path) -> None:
    """Let Airflow work on that database."""
    os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{database}"
    from airflow import settings

    settings.configure_vars()
    settings.configure_orm()


@contextmanager
def _clock_at(now: datetime) -> Iterator[None]:
    """Inside, the clock starts there, and sleeping moves it on: retry delays and pokes cost no time.

    By more than is asked, for `dag.test()` looks once a second whether something may go on, and each look has its price.
    """
    import time_machine

    with ExitStack() as stack:
        traveller = stack.enter_context(time_machine.travel(now, tick=True))
        stack.enter_context(patch("time.sleep", lambda seconds: traveller.shift(LEAP * seconds)))
        yield


def _ended(database: Path, dag_id: str, run_id: str, state: str) -> Ended:
    run = (dag_id, run_id)
    with closing(sqlite3.connect(database)) as connection:
        tasks = connection.execute(
            "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?",
            run,
        ).fetchall()
        xcoms = connection.execute(
            'SELECT task_id, map_index, "key", value FROM xcom WHERE dag_id = ? AND run_id = ?', run
        ).fetchall()
    return Ended(
        run_state=state,
        run_id=run_id,
        states={_name(task_id, index): state or "none" for task_id, index, state, _ in tasks},
        tries={_name(task_id, index): number for task_id, index, _, number in tasks},
        xcoms={f"{_name(task_id, index)}/{key}": _text(value) for task_id, index, key, value in xcoms},
    )


def _text(value: Any) -> str:
    """SQLite makes a number of text that looks like one."""
    return value if isinstance(value, str) else json.dumps(value)


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


if __name__ == "__main__":
    main(*sys.argv[1:])
