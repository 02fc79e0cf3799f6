"""Drives one DagRun. Airflow decides what runs next, what a death means, what a clear touches; here is the loop's body."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.task.trigger_rule import TriggerRule
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select, update

from . import loading
from .answers import Ask
from .metadata import session
from .versions import ParamValidationError

RUN_ID = "rerunsafe"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTask:
    """A task instance that a worker may start."""

    id: Any
    task_id: str
    map_index: int
    try_number: int


class NotCreated(Exception):
    """Airflow makes no DagRun of the DAG as it is; the argument says why."""


class Run:
    """The DagRun under test of one DAG, as it stands in the metadata database."""

    def __init__(self, dag_id: str, ask: Ask) -> None:
        self.dag = loading.stored_dag(dag_id)
        self._ask = ask

    def create(self, logical_date: datetime) -> None:
        """Make the DagRun, running, with its task instances. Raises `NotCreated`."""
        try:
            self._create(logical_date)
        except ParamValidationError as error:
            raise NotCreated(str(error)) from None

    def _create(self, logical_date: datetime) -> None:
        interval = loading.interval_of(self.dag, logical_date)
        is_scheduled = loading.first_run(self.dag) is not None
        with session() as opened:
            self.dag.create_dagrun(
                run_id=RUN_ID,
                logical_date=logical_date,
                data_interval=(interval.start, interval.end),
                run_after=interval.end,
                run_type=DagRunType.SCHEDULED if is_scheduled else DagRunType.MANUAL,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.RUNNING,
                start_date=_now(),
                session=opened,
            )

    def starts_at(self, logical_date: datetime) -> datetime:
        """When a scheduler would run it at the earliest: the end of its data interval."""
        return loading.interval_of(self.dag, logical_date).end

    def step(self) -> tuple[str, tuple[QueuedTask, ...]]:
        """One turn of the scheduler: the DagRun's state after it, and what it queued, in the order that workers take it."""
        turned: tuple[str, tuple[QueuedTask, ...]] = self._ask(f"step {self.dag.dag_id}", self._step)
        return turned

    def _step(self) -> tuple[str, tuple[QueuedTask, ...]]:
        with session() as opened:
            run = self._load(opened)
            if run.state == DagRunState.QUEUED:  # after a clear; the scheduler starts queued runs first
                run.state = DagRunState.RUNNING
                run.start_date = run.start_date or _now()
            schedulable, _ = run.update_state(session=opened, execute_callbacks=False)
            if schedulable:
                run.schedule_tis(schedulable, session=opened)
            state = _word(run.state)
            opened.flush()
            return state, self._queue(opened)

    def _load(self, opened: Any) -> DagRun:
        run: DagRun = opened.scalars(
            select(DagRun).where(DagRun.dag_id == self.dag.dag_id, DagRun.run_id == RUN_ID)
        ).one()
        run.dag = self.dag
        return run

    def _queue(self, opened: Any) -> tuple[QueuedTask, ...]:
        # The scheduler's own order (`_executable_task_instances_to_queued`), ties by task id. What was queued when a
        # worker died is queued still.
        waiting = opened.execute(
            select(TaskInstance.id, TaskInstance.task_id, TaskInstance.map_index, TaskInstance.try_number)
            .where(
                TaskInstance.dag_id == self.dag.dag_id,
                TaskInstance.run_id == RUN_ID,
                TaskInstance.state.in_([TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED]),
            )
            .order_by(-TaskInstance.priority_weight, TaskInstance.task_id, TaskInstance.map_index)
        ).all()
        if waiting:
            opened.execute(
                update(TaskInstance)
                .where(TaskInstance.id.in_([row.id for row in waiting]))
                .values(state=TaskInstanceState.QUEUED, queued_dttm=_now())
                .execution_options(synchronize_session=False)
            )
        return tuple(
            QueuedTask(id=row.id, task_id=row.task_id, map_index=row.map_index, try_number=row.try_number)
            for row in waiting
        )

    def next_wakeup(self) -> datetime | None:
        """When the earliest waiting task instance (retry delay, reschedule) may go on; None if none waits."""
        with session() as opened:
            waiting = [
                ti
                for ti in self._load(opened).get_task_instances(session=opened)
                if ti.state in (TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE)
            ]
            return min((self._ready_at(ti, opened) for ti in waiting), default=None)

    def _ready_at(self, ti: TaskInstance, opened: Any) -> datetime:
        if ti.state == TaskInstanceState.UP_FOR_RETRY:
            ti.task = self.dag.get_task(ti.task_id)
            ready: datetime = ti.next_retry_datetime()
            return ready
        from airflow.models.taskreschedule import TaskReschedule

        last = opened.scalars(TaskReschedule.stmt_for_task_instance(ti=ti, descending=True).limit(1)).first()
        again: datetime = last.reschedule_date if last else _now() + timedelta(seconds=1)
        return again

    def report_death(self, task_id: str, map_index: int) -> str:
        """The task instance's state after its worker was lost: what the scheduler does when heartbeats stay away."""
        question = f"death {self.dag.dag_id} {task_id} {map_index}"
        state: str = self._ask(question, lambda: self._report_death(task_id, map_index))
        return state

    def _report_death(self, task_id: str, map_index: int) -> str:
        with session() as opened:
            ti = self._task_instance(opened, task_id, map_index)
            ti.task = self.dag.get_task(task_id)
            ti.handle_failure(error="worker lost", session=opened)
            return _word(ti.state)

    def _task_instance(self, opened: Any, task_id: str, map_index: int) -> TaskInstance:
        found: TaskInstance = opened.scalars(
            select(TaskInstance).where(
                TaskInstance.dag_id == self.dag.dag_id,
                TaskInstance.run_id == RUN_ID,
                TaskInstance.task_id == task_id,
                TaskInstance.map_index == map_index,
            )
        ).one()
        return found

    def clear(self, task_ids: Collection[str] | None, *, only_failed: bool = False) -> int:
        """Clear tasks of the run (all if None) as Airflow's own clear does; the number of task instances cleared."""
        question = f"clear {self.dag.dag_id} {task_ids} {only_failed}"
        count: int = self._ask(question, lambda: self._clear(task_ids, only_failed))
        return count

    def _clear(self, task_ids: Collection[str] | None, only_failed: bool) -> int:
        with session() as opened:
            count = self.dag.clear(
                task_ids=None if task_ids is None else list(task_ids),
                run_id=RUN_ID,
                only_failed=only_failed,
                session=opened,
            )
            return int(count)

    def reacts_to_failure(self) -> bool:
        """Whether a task may run because another has failed."""
        return any(
            task.trigger_rule != TriggerRule.ALL_SUCCESS or task.is_setup or task.is_teardown
            for task in self.dag.task_dict.values()
        )

    def with_downstream(self, task_id: str) -> tuple[str, ...]:
        """The task and all that hangs on it, as `clear --downstream` selects them."""
        subset = self.dag.partial_subset([task_id], include_downstream=True, include_upstream=False)
        return tuple(sorted(subset.task_dict))

    def task_states(self) -> dict[str, str]:
        """By task id, `task_id[map_index]` for mapped ones, sorted."""
        return dict(self._ask(f"states {self.dag.dag_id}", self._task_states))

    def _task_states(self) -> dict[str, str]:
        with session() as opened:
            found = opened.execute(
                select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state)
                .where(TaskInstance.dag_id == self.dag.dag_id, TaskInstance.run_id == RUN_ID)
                .order_by(TaskInstance.task_id, TaskInstance.map_index)
            ).all()
        return {
            task_id if map_index < 0 else f"{task_id}[{map_index}]": _word(state)
            for task_id, map_index, state in found
        }


def _now() -> datetime:
    return datetime.now(tz=timezone.utc)


def _word(state: Any) -> str:
    """A state as users see it; `none` for a task instance that Airflow has not decided about."""
    return str(getattr(state, "value", state) or "none")
