"""Finds DAG files by Airflow's rule, loads them with Airflow's DagBag, and tells what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pendulum
from airflow.exceptions import SerializationError
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion  # noqa: F401  (its table is written when a DAG is stored)
from airflow.models.dagbundle import DagBundleModel
from airflow.models.pool import Pool
from airflow.models.serialized_dag import SerializedDagModel
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.simple import NullTimetable
from airflow.utils.file import list_py_file_paths
from sqlalchemy import select, update

from ..model import DagInfo, LoadedFile, TaskInfo
from .metadata import session
from .neighbours import leads_to, set_off_by
from .versions import DagBag, decoded, encoded, known_arguments, sync_bag_to_db

BUNDLE = "dags-folder"
DEFAULT_START = datetime(2024, 1, 1, tzinfo=timezone.utc)
"""The logical date of a DAG that has neither a schedule nor a start date."""


def find_dag_files(paths: Iterable[str]) -> tuple[str, ...]:
    """The DAG files among files and folders, sorted: by Airflow's safe-mode heuristics and `.airflowignore`."""
    found = {file for path in paths for file in list_py_file_paths(path, safe_mode=True)}
    return tuple(sorted(os.path.abspath(file) for file in found))


def load_bag(file: str, folder: str) -> Any:
    """The DagBag of one DAG file, parsed afresh; `folder` is the DAGs folder it stands in."""
    bundle = known_arguments(DagBag, bundle_path=Path(folder), bundle_name=BUNDLE)
    return DagBag(dag_folder=file, safe_mode=False, load_op_links=False, **bundle)


def describe(file: str, bag: Any) -> LoadedFile:
    """What a loaded file holds, DAGs by id."""
    if bag.import_errors:
        return LoadedFile(file=file, dags=(), error="\n".join(bag.import_errors.values()))
    try:
        dags = tuple(_describe_dag(file, bag.dags[dag_id]) for dag_id in sorted(bag.dags))
    except SerializationError as error:  # an import error for the DAG processor too
        return LoadedFile(file=file, dags=(), error=str(error))
    return LoadedFile(file=file, dags=dags)


def _describe_dag(file: str, dag: Any) -> DagInfo:
    data = encoded(dag)
    dependencies = data["dag_dependencies"]
    known = decoded(data)
    info = first_run(known)
    return DagInfo(
        dag_id=dag.dag_id,
        file=file,
        line=_line_of(file, dag.dag_id),
        tasks=tuple(_describe_task(task) for task in _topological(dag)),
        is_scheduled=info is not None and bool(known.timetable.periodic),
        logical_date=plain(info.logical_date if info else dag.start_date or DEFAULT_START),
        leads_to=leads_to(dag, dependencies),
        set_off_by=set_off_by(dag.dag_id, dependencies),
        has_deadline=bool(getattr(dag, "deadline", None)),
    )


def plain(date: datetime | None) -> datetime:
    """The instant in UTC as a plain datetime: Airflow's are of a class that not every process has."""
    assert date is not None, "a run that the clock makes has a logical date"
    return datetime.fromtimestamp(date.timestamp(), tz=timezone.utc)


def _describe_task(task: Any) -> TaskInfo:
    return TaskInfo(
        task_id=task.task_id,
        operator=task.task_type,
        downstream=tuple(sorted(task.downstream_task_ids)),
        retries=int(task.retries or 0),
        calls_back=bool(task.has_on_retry_callback or task.has_on_failure_callback),
    )


def _topological(dag: Any) -> Sequence[Any]:
    waiting = dict(sorted(dag.task_dict.items()))
    ordered: list[Any] = []
    while waiting:
        ready = [task for task in waiting.values() if not task.upstream_task_ids & waiting.keys()]
        ordered += ready
        for task in ready:
            del waiting[task.task_id]
    return ordered


def _line_of(file: str, dag_id: str) -> int:
    """The line that names the DAG, the first that could; 1 if its name is made at run time."""
    lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    quoted = (f'"{dag_id}"', f"'{dag_id}'", f"def {dag_id}(")
    return next((number for number, text in enumerate(lines, 1) if any(q in text for q in quoted)), 1)


def first_run(dag: Any) -> DagRunInfo | None:
    """The run that the scheduler would make first were the DAG to catch up; None if it makes none by the clock."""
    return _run_after(dag, None, dag.start_date or DEFAULT_START)


def runs_from(dag: Any, logical_date: datetime, count: int) -> list[DagRunInfo]:
    """Up to so many runs in a row that the scheduler would make by the clock, the first of that logical date."""
    found: list[DagRunInfo] = []
    while len(found) < count:
        last = found[-1].data_interval if found else None
        info = _run_after(dag, last, logical_date)
        if info is None or (not found and info.logical_date != logical_date):
            break
        found.append(info)
    return found


def _run_after(dag: Any, last: DataInterval | None, earliest: datetime) -> DagRunInfo | None:
    restriction = TimeRestriction(earliest=pendulum.instance(earliest), latest=dag.end_date, catchup=True)
    info: DagRunInfo | None = dag.timetable.next_dagrun_info(
        last_automated_data_interval=last, restriction=restriction
    )
    return info if info is not None and info.logical_date is not None else None


def run_at(dag: Any, logical_date: datetime) -> DagRunInfo | None:
    """The run that a DAG has at a logical date by its schedule, or by a person if it has none; None if it has no run then."""
    timetable, date = dag.timetable, pendulum.instance(logical_date)
    if dag.start_date is not None and date < dag.start_date:
        return None
    if isinstance(timetable, NullTimetable):
        return DagRunInfo.interval(*timetable.infer_manual_data_interval(run_after=date))
    restriction = TimeRestriction(earliest=date, latest=date, catchup=True)
    info: DagRunInfo | None = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=restriction
    )
    return info if info is not None and info.logical_date == date else None


def interval_of(dag: Any, logical_date: datetime) -> DataInterval:
    """The data interval that a run of that logical date gets."""
    for info in runs_from(dag, logical_date, 1):
        if info.data_interval is not None:
            return info.data_interval
    interval: DataInterval = dag.timetable.infer_manual_data_interval(
        run_after=pendulum.instance(logical_date)
    )
    return interval


def partition_at(dag: Any, logical_date: datetime) -> dict[str, Any]:
    """The key and the date of the partition that a run by a `CronPartitionTimetable` makes; nothing for other runs."""
    partitions = getattr(dag.timetable, "iter_partition_dagrun_infos", None)  # Airflow has it from 3.3 on
    if partitions is None or type(dag.timetable).__name__ != "CronPartitionTimetable":
        return {}
    date = pendulum.instance(logical_date)
    (info,) = partitions(earliest=date, latest=date)
    return {"partition_key": info.partition_key, "partition_date": info.partition_date}


def store(bag: Any) -> None:
    """Write a bag's DAGs to the metadata database, as the DAG processor does."""
    with session() as opened:
        if opened.get(DagBundleModel, BUNDLE) is None:
            opened.add(DagBundleModel(name=BUNDLE))
    sync_bag_to_db(bag, BUNDLE, None)
    with session() as opened:
        opened.execute(update(DagModel).values(is_paused=False))  # a person has switched them on
        _make_pools(bag, opened)


def _make_pools(bag: Any, opened: Any) -> None:
    """Make the pools that tasks name and nobody has set, as wide as Airflow's own: it schedules no task without its pool."""
    known = {pool.pool: pool.slots for pool in opened.scalars(select(Pool))}
    wanted: dict[str, int] = {}
    for task in (task for dag in bag.dags.values() for task in dag.tasks):
        wanted[task.pool] = max(task.pool_slots, wanted.get(task.pool, known[Pool.DEFAULT_POOL_NAME]))
    for name in sorted(wanted.keys() - known.keys()):
        opened.add(Pool(pool=name, slots=wanted[name], description="", include_deferred=False))


def stored_dag(dag_id: str) -> Any:
    """The DAG as the scheduler reads it from the metadata database."""
    with session() as opened:
        row = SerializedDagModel.get(dag_id, session=opened)
        if row is None:
            raise LookupError(dag_id)
        return row.dag
