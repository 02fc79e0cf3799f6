"""One DagRun in the metadata database. Airflow decides what a clear touches."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.timetables.base import DataInterval
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from ..model import RunKey
from . import loading
from .answers import Ask
from .metadata import session
from .versions import ParamValidationError


class NotCreated(Exception):
    """Airflow makes no DagRun of the DAG as it is; the argument says why."""


def create(dag: Any, logical_date: datetime, interval: DataInterval | None = None) -> RunKey:
    """Make the DagRun of a logical date, queued, with its task instances. Raises `NotCreated`."""
    try:
        return _create(dag, logical_date, interval or loading.interval_of(dag, logical_date))
    except ParamValidationError as error:
        raise NotCreated(str(error)) from None


def _create(dag: Any, logical_date: datetime, interval: DataInterval) -> RunKey:
    run_type = DagRunType.MANUAL if loading.first_run(dag) is None else DagRunType.SCHEDULED
    run_id = dag.timetable.generate_run_id(run_type=run_type, run_after=interval.end, data_interval=interval)
    with session() as opened:
        dag.create_dagrun(
            run_id=run_id,
            logical_date=logical_date,
            data_interval=(interval.start, interval.end),
            run_after=interval.end,
            run_type=run_type,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.QUEUED,
            session=opened,
        )
    return dag.dag_id, run_id


def starts_at(dag: Any, logical_date: datetime) -> datetime:
    """When a scheduler would run it at the earliest: the end of its data interval."""
    return loading.interval_of(dag, logical_date).end


class Run:
    """A DagRun as it stands in the metadata database."""

    def __init__(self, key: RunKey, dag: Any, ask: Ask) -> None:
        self.key = key
        self.dag = dag
        self._ask = ask

    def _question(self, text: str) -> str:
        return f"{text} of {self.key}"

    def clear(self, task_ids: Collection[str] | None, *, only_failed: bool = False) -> int:
        """Clear tasks of the run (all if None) as Airflow's own clear does; the number of task instances cleared."""
        question = self._question(f"clear {task_ids} {only_failed}")
        count: int = self._ask(question, lambda: self._clear(task_ids, only_failed))
        return count

    def _clear(self, task_ids: Collection[str] | None, only_failed: bool) -> int:
        with session() as opened:
            count = self.dag.clear(
                task_ids=None if task_ids is None else list(task_ids),
                run_id=self.key[1],
                only_failed=only_failed,
                session=opened,
            )
            return int(count)

    def with_downstream(self, task_id: str) -> tuple[str, ...]:
        """The task and all that hangs on it, as `clear --downstream` selects them."""
        subset = self.dag.partial_subset([task_id], include_downstream=True, include_upstream=False)
        return tuple(sorted(subset.task_dict))

    def task_states(self) -> dict[str, str]:
        """By task id, `task_id[map_index]` for mapped ones, sorted."""
        return dict(self._ask(self._question("states"), self._task_states))

    def _task_states(self) -> dict[str, str]:
        with session() as opened:
            found = opened.execute(
                select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state)
                .where(TaskInstance.dag_id == self.key[0], TaskInstance.run_id == self.key[1])
                .order_by(TaskInstance.task_id, TaskInstance.map_index)
            ).all()
        return {
            task_id if map_index < 0 else f"{task_id}[{map_index}]": word(state)
            for task_id, map_index, state in found
        }


def now() -> datetime:
    """The time by the virtual clock."""
    return datetime.now(tz=timezone.utc)


def word(state: Any) -> str:
    """A state as users see it; `none` for a task instance that Airflow has not decided about."""
    return str(getattr(state, "value", state) or "none")
