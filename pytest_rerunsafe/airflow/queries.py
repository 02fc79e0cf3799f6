"""What we ask the metadata database about a turn of the scheduler, in plain SQL.

Most turns find most of it empty, and the ORM takes some hundred times as long to say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from airflow import settings
from airflow.models import asset as asset_models
from airflow.models.asset import AssetDagRunQueue
from airflow.models.taskinstance import TaskInstance
from airflow.ti_deps.dependencies_states import EXECUTION_STATES
from airflow.utils.state import TaskInstanceState

from ..model import RunKey

Select = Callable[[str, tuple[object, ...]], Sequence[Any]]
"""Gives the rows that a statement finds with its parameters, as of all that has been flushed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTask:
    """A task instance that a worker may start."""

    id: Any
    run: RunKey
    task_id: str
    map_index: int
    try_number: int


@cache
def _id_of() -> Callable[[Any], Any]:
    """Makes a task instance's id of what the database holds: a UUID from Airflow 3.2 on."""
    assert settings.engine is not None, "set when the engine was installed"
    dialect = settings.engine.dialect
    kind = TaskInstance.__table__.c.id.type.dialect_impl(dialect)
    return kind.result_processor(dialect, None) or (lambda value: value)


def has_trigger_timeouts(select: Select) -> bool:
    """Whether a deferred task's trigger must end by some time."""
    return bool(select("SELECT 1 FROM task_instance WHERE trigger_timeout IS NOT NULL LIMIT 1", ()))


def has_queued_runs(select: Select) -> bool:
    """Whether a DagRun waits for its start."""
    return bool(select("SELECT 1 FROM dag_run WHERE state = 'queued' LIMIT 1", ()))


def waits_for_assets(select: Select) -> bool:
    """Whether there are events that no run has come of yet."""
    if select(f"SELECT 1 FROM {AssetDagRunQueue.__tablename__} LIMIT 1", ()):
        return True
    partitions = getattr(asset_models, "AssetPartitionDagRun", None)  # 3.1 has none
    if partitions is None:
        return False
    name = partitions.__tablename__
    return bool(select(f"SELECT 1 FROM {name} WHERE created_dag_run_id IS NULL LIMIT 1", ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """A task instance of a running DagRun that is scheduled, queued or at work, with what limits it."""

    id: Any
    is_scheduled: bool
    place: tuple[str, int, str | None]
    """Pool, slots, executor."""
    most_of_dag: int
    has_limits: bool
    """Whether a task of the DAG has a limit of its own."""


_ALIVE_STATES = tuple(
    sorted({str(TaskInstanceState.SCHEDULED.value), *(str(s.value) for s in EXECUTION_STATES)})
)
_ALIVE = f"""
    SELECT ti.id, ti.state, ti.pool, ti.pool_slots, ti.executor, dag.max_active_tasks, dag.has_task_concurrency_limits
    FROM task_instance AS ti
    JOIN dag_run ON dag_run.dag_id = ti.dag_id AND dag_run.run_id = ti.run_id
    JOIN dag ON dag.dag_id = ti.dag_id
    WHERE dag_run.state = 'running' AND ti.state IN ({", ".join("?" * len(_ALIVE_STATES))})
"""


def alive(select: Select) -> list[Alive]:
    """What counts against Airflow's limits, or may be held back by them."""
    return [
        Alive(
            id=_id_of()(row[0]),
            is_scheduled=row[1] == "scheduled",
            place=(str(row[2]), int(row[3]), row[4]),
            most_of_dag=int(row[5]),
            has_limits=bool(row[6]),
        )
        for row in select(_ALIVE, _ALIVE_STATES)
    ]


def slots_of(select: Select, pool: str) -> int:
    """How many slots a pool has, -1 for no limit."""
    ((slots,),) = select("SELECT slots FROM slot_pool WHERE pool = ?", (pool,))
    return int(slots)


_QUEUED = """
    SELECT ti.id, ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number
    FROM task_instance AS ti
    JOIN dag_run ON dag_run.dag_id = ti.dag_id AND dag_run.run_id = ti.run_id
    WHERE ti.state = 'queued'
    ORDER BY -ti.priority_weight, dag_run.logical_date, ti.dag_id, ti.run_id, ti.task_id, ti.map_index
"""


def queued(select: Select) -> tuple[QueuedTask, ...]:
    """What is queued in the order of `_executable_task_instances_to_queued`, ties by id."""
    return tuple(
        QueuedTask(id=_id_of()(key), run=(dag_id, run_id), task_id=task_id, map_index=index, try_number=tries)
        for key, dag_id, run_id, task_id, index, tries in select(_QUEUED, ())
    )


def run_states(select: Select) -> Mapping[RunKey, str]:
    """The state of every DagRun, oldest first."""
    found = select("SELECT dag_id, run_id, state FROM dag_run ORDER BY id", ())
    return {(dag_id, run_id): str(state) for dag_id, run_id, state in found}


def task_states(select: Select, run: RunKey) -> dict[str, str]:
    """Of a DagRun by task id, `task_id[map_index]` for mapped ones, sorted; `none` where Airflow has not decided."""
    states = (
        "SELECT task_id, map_index, state FROM task_instance WHERE dag_id = ? AND run_id = ? ORDER BY 1, 2"
    )
    return {
        task_id if map_index < 0 else f"{task_id}[{map_index}]": str(state or "none")
        for task_id, map_index, state in select(states, run)
    }
