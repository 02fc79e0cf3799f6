"""Airflow's own scheduler, turn by turn, over all DagRuns in the metadata database, with an executor that hands its tasks to us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.models.asset import AssetDagRunQueue
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.sqlalchemy import prohibit_commit
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select, update

from ..model import RunKey
from . import loading
from .answers import Ask
from .metadata import session
from .runs import now, word
from .versions import scheduler_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedTask:
    """A task instance that a worker may start."""

    id: Any
    run: RunKey
    task_id: str
    map_index: int
    try_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a turn of the scheduler came to."""

    queued: tuple[QueuedTask, ...]
    """What waits for a worker, in the order that workers take it."""
    callbacks: tuple[Any, ...]
    """Airflow's requests to the DAG processor to run callbacks, in order."""
    states: Mapping[RunKey, str]
    """Of every DagRun."""


class _Executor(BaseExecutor):
    """Takes whatever the scheduler gives it: what is queued is read from the database, where a crash leaves it."""

    # The token that a worker would show to the server, which is here the same process.
    jwt_generator = SimpleNamespace(generate=lambda *_, **__: "token")  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.callbacks: list[Any] = []

    def queue_workload(self, workload: Any, session: Any) -> None:
        pass

    def send_callback(self, request: Any) -> None:
        self.callbacks.append(request)


class Scheduler:
    """Airflow's scheduler, and the DAGs that it knows; as long as the stored DAGs stay the same."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._executor = _Executor()
        self._runner = scheduler_runner(Job(), self._executor)
        self._dags: dict[str, Any] = {}

    def dag(self, dag_id: str) -> Any:
        """A DAG as the scheduler reads it from the metadata database."""
        if dag_id not in self._dags:
            self._dags[dag_id] = loading.stored_dag(dag_id)
        return self._dags[dag_id]

    def turn(self) -> Turn:
        """One turn of the scheduler's loop."""
        turned: Turn = self._ask("turn", self._turn)
        return turned

    def _turn(self) -> Turn:
        """The steps of `SchedulerJobRunner._do_scheduling`, those left out that would find nothing to do.

        Runs are made by those who ask for them: the clock alone makes none.
        """
        self._executor.callbacks.clear()
        with session() as opened, prohibit_commit(opened) as guard:
            if _any(opened, AssetDagRunQueue.target_dag_id):
                opened.execute(update(DagModel).values(next_dagrun_create_after=None))
                self._runner._create_dagruns_for_dags(guard, opened)
            if _any(opened, TaskInstance.id, TaskInstance.trigger_timeout < now()):
                self._runner.check_trigger_timeouts(session=opened)
                guard.commit()
            if _any(opened, DagRun.id, DagRun.state == DagRunState.QUEUED):
                self._runner._start_queued_dagruns(opened)
                guard.commit()
            for run in list(DagRun.get_running_dag_runs_to_examine(session=opened)):
                if (callback := self._runner._schedule_dag_run(run, opened)) is not None:
                    self._executor.send_callback(callback)
            guard.commit()
            opened.expunge_all()
            if _any(opened, TaskInstance.id, TaskInstance.state == TaskInstanceState.SCHEDULED):
                self._runner._critical_section_enqueue_task_instances(opened)
            guard.commit()
            return Turn(
                queued=_queued(opened), callbacks=tuple(self._executor.callbacks), states=_run_states(opened)
            )

    def next_deadline(self, *, counts_triggers: bool = True) -> datetime | None:
        """When the earliest retry delay or, if they count, trigger timeout is over; None if there is none."""
        with session() as opened:
            retries = [self._retry_at(ti) for ti in opened.scalars(_waiting(TaskInstanceState.UP_FOR_RETRY))]
            timeouts = [
                ti.trigger_timeout
                for ti in opened.scalars(_waiting(TaskInstanceState.DEFERRED))
                if counts_triggers and ti.trigger_timeout is not None
            ]
            return min((*retries, *timeouts), default=None)

    def _retry_at(self, ti: TaskInstance) -> datetime:
        ti.task = self.dag(ti.dag_id).get_task(ti.task_id)
        ready: datetime = ti.next_retry_datetime()
        return ready

    def next_poke(self) -> datetime | None:
        """When the earliest sensor in reschedule mode pokes again; None if none waits."""
        with session() as opened:
            waiting = opened.scalars(_waiting(TaskInstanceState.UP_FOR_RESCHEDULE))
            return min((_rescheduled_to(ti, opened) for ti in waiting), default=None)

    def waiting(self) -> tuple[str, ...]:
        """The tasks that wait for something but their retry."""
        with session() as opened:
            states = (TaskInstanceState.UP_FOR_RESCHEDULE, TaskInstanceState.DEFERRED)
            return tuple(ti.task_id for ti in opened.scalars(_waiting(*states)))

    def triggers(self) -> tuple[int, ...]:
        """The triggers that deferred tasks wait for, by id."""
        with session() as opened:
            waiting = opened.scalars(_waiting(TaskInstanceState.DEFERRED))
            return tuple(sorted(ti.trigger_id for ti in waiting if ti.trigger_id is not None))


def _waiting(*states: TaskInstanceState) -> Any:
    """Selects the task instances of running DagRuns that are in one of the states."""
    return (
        select(TaskInstance)
        .join(TaskInstance.dag_run)
        .where(TaskInstance.state.in_(states), DagRun.state == DagRunState.RUNNING)
    )


def _rescheduled_to(ti: TaskInstance, opened: Any) -> datetime:
    last = opened.scalars(TaskReschedule.stmt_for_task_instance(ti=ti, descending=True).limit(1)).first()
    again: datetime = last.reschedule_date if last else now() + timedelta(seconds=1)
    return again


def _any(opened: Any, column: Any, *conditions: Any) -> bool:
    return opened.execute(select(column).where(*conditions).limit(1)).first() is not None


def _queued(opened: Any) -> tuple[QueuedTask, ...]:
    """What is queued in the order of `_executable_task_instances_to_queued`, ties by id."""
    waiting = opened.execute(
        select(
            TaskInstance.id,
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.try_number,
        )
        .join(TaskInstance.dag_run)
        .where(TaskInstance.state == TaskInstanceState.QUEUED)
        .order_by(
            -TaskInstance.priority_weight,
            DagRun.logical_date,
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
        )
    ).all()
    return tuple(
        QueuedTask(
            id=row.id,
            run=(row.dag_id, row.run_id),
            task_id=row.task_id,
            map_index=row.map_index,
            try_number=row.try_number,
        )
        for row in waiting
    )


def _run_states(opened: Any) -> Mapping[RunKey, str]:
    found = opened.execute(select(DagRun.dag_id, DagRun.run_id, DagRun.state).order_by(DagRun.id)).all()
    return {(dag_id, run_id): word(state) for dag_id, run_id, state in found}
