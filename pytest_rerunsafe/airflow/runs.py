"""One DagRun in the metadata database. Airflow decides what a clear touches."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.models.taskinstance import clear_task_instances
from airflow.timetables.base import DataInterval
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

from ..model import Clear, RunKey, TaskKey
from . import loading, queries
from .answers import Ask
from .metadata import session
from .queries import Select
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
    partition = loading.partition_at(dag, logical_date)
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
            **partition,
        )
    return dag.dag_id, run_id


def starts_at(dag: Any, logical_date: datetime) -> datetime:
    """When a scheduler would run it at the earliest: the end of its data interval."""
    return loading.interval_of(dag, logical_date).end


def logical_dates(dag: Any, first: datetime, count: int) -> tuple[datetime, ...]:
    """The logical dates of up to so many intervals in a row; of a DAG without a schedule only the first."""
    found = [info.logical_date for info in loading.runs_from(dag, first, count)]
    return tuple(loading.plain(date) for date in found) or (first,)


class Run:
    """A DagRun as it stands in the metadata database."""

    def __init__(self, key: RunKey, dag: Any, ask: Ask, select: Select) -> None:
        self.key = key
        self.dag = dag
        self._ask = ask
        self._select = select

    def _question(self, text: str) -> str:
        return f"{text} of {self.key}"

    def clear(self, what: Clear) -> tuple[str, ...]:
        """Clear tasks of this run as Airflow's own clear does; the ids of the tasks that were cleared, sorted."""
        cleared: tuple[str, ...] = self._ask(self._question(f"{what}"), lambda: self._clear(what))
        return cleared

    def _clear(self, what: Clear) -> tuple[str, ...]:
        given: dict[str, Any] = {
            "task_ids": self._with_relatives(what) if what.task_ids else None,
            "run_id": self.key[1],
            "only_failed": what.only_failed,
            "only_running": what.only_running,
        }
        with session() as opened:
            # As `SerializedDAG.clear` does in one call, which does not tell what it has cleared.
            selected = list(self.dag.clear(dry_run=True, **given, session=opened))
            clear_task_instances(selected, opened)
            return tuple(sorted({ti.task_id for ti in selected}))

    def _with_relatives(self, what: Clear) -> list[TaskKey]:
        """The tasks and all that `clear --upstream` and `clear --downstream` select besides."""
        if not (what.upstream or what.downstream):
            return list(what.task_ids)
        named = [key if isinstance(key, str) else key[0] for key in what.task_ids]
        subset = self.dag.partial_subset(
            named, include_downstream=what.downstream, include_upstream=what.upstream
        )
        return sorted(subset.task_dict)

    def mark(self, task_id: str, map_index: int, state: str) -> None:
        """Give a task instance a final state by hand and let the run go on, as the button does."""
        self._ask(
            self._question(f"mark {task_id} {map_index} {state}"),
            lambda: self._mark(task_id, map_index, state),
        )

    def _mark(self, task_id: str, map_index: int, state: str) -> None:
        with session() as opened:
            self.dag.set_task_instance_state(
                task_id=task_id,
                map_indexes=None if map_index < 0 else [map_index],
                run_id=self.key[1],
                state=TaskInstanceState(state),
                session=opened,
            )

    def task_states(self) -> dict[str, str]:
        """By task id, `task_id[map_index]` for mapped ones, sorted."""
        return queries.task_states(self._select, self.key)

    def state_of(self, task_id: str, map_index: int) -> str:
        """That of one task instance."""
        return self.task_states()[task_id if map_index < 0 else f"{task_id}[{map_index}]"]


def now() -> datetime:
    """The time by the virtual clock."""
    return datetime.now(tz=timezone.utc)


def word(state: Any) -> str:
    """A state as users see it; `none` for a task instance that Airflow has not decided about."""
    return str(getattr(state, "value", state) or "none")
