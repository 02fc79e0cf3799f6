"""Airflow's own scheduler, turn by turn, over all DagRuns of the metadata database; what it queues is handed to us."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.pool import Pool
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.utils.sqlalchemy import prohibit_commit
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select, update

from ..model import RunKey
from . import loading, queries, runs
from .answers import Ask, on_server
from .assets import register_events
from .metadata import session
from .queries import QueuedTask, Select
from .runs import now, word
from .versions import scheduler_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a turn of the scheduler came to."""

    queued: tuple[QueuedTask, ...]
    """What waits for a worker, in the order that workers take it."""
    callbacks: tuple[Any, ...]
    """Airflow's requests to the DAG processor to run callbacks, in order."""
    states: Mapping[RunKey, str]
    """Of every DagRun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What Airflow made of a lost worker."""

    state: str
    """Of its task instance."""
    callbacks: tuple[Any, ...]
    """Airflow's requests to the DAG processor to run callbacks, in order."""


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


class NoSuchRun(Exception):
    """A DAG has no run of a logical date, which is the argument."""


class Scheduler:
    """Airflow's scheduler, and the DAGs that it knows; as long as the stored DAGs stay the same."""

    def __init__(self, ask: Ask, select: Select) -> None:
        self._ask = ask
        self._select = select
        self._executor = _Executor()
        self._runner = scheduler_runner(Job(), self._executor)
        self._at_once = min(
            self._runner.job.max_tis_per_query or self._executor.parallelism, self._executor.parallelism
        )
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
            if queries.waits_for_assets(self._select):
                self._make_asset_runs(guard, opened)
            if queries.has_trigger_timeouts(self._select):
                self._runner.check_trigger_timeouts(session=opened)
                guard.commit()
            if queries.has_queued_runs(self._select):
                self._runner._start_queued_dagruns(opened)
                guard.commit()
            for run in list(DagRun.get_running_dag_runs_to_examine(session=opened)):
                if (callback := self._runner._schedule_dag_run(run, opened)) is not None:
                    self._executor.send_callback(callback)
            guard.commit()
            opened.expunge_all()
            if not self._queue_without_limits(opened):
                self._runner._critical_section_enqueue_task_instances(opened)
            guard.commit()
            return Turn(
                queued=queries.queued(self._select),
                callbacks=tuple(self._executor.callbacks),
                states=queries.run_states(self._select),
            )

    def _queue_without_limits(self, opened: Any) -> bool:
        """Queue what is scheduled where no limit of Airflow can keep any of it back; whether that was so.

        What `_executable_task_instances_to_queued` weighs for each task takes it several milliseconds.
        """
        alive = queries.alive(self._select)
        waiting = [each.id for each in alive if each.is_scheduled]
        if not waiting:
            return True
        slots = queries.slots_of(self._select, Pool.DEFAULT_POOL_NAME)
        limits = {each.most_of_dag for each in alive} | {slots % 2**31}  # -1 is no limit
        plain = (Pool.DEFAULT_POOL_NAME, 1, None)
        is_plain = all(each.place == plain and not each.has_limits for each in alive)
        if not is_plain or len(alive) > min(*limits, self._at_once):
            return False
        opened.execute(
            update(TaskInstance)
            .where(TaskInstance.id.in_(waiting))
            .values(state=TaskInstanceState.QUEUED, queued_dttm=now(), queued_by_job_id=self._runner.job.id)
            .execution_options(synchronize_session=False)
        )
        return True

    def _make_asset_runs(self, guard: Any, opened: Any) -> None:
        opened.execute(update(DagModel).values(next_dagrun_create_after=None))
        self._runner._create_dagruns_for_dags(guard, opened)

    def make_asset_run(self, dag_id: str) -> RunKey | None:
        """The DagRun that comes of one event for each asset and alias of a DAG's schedule; None if none comes of them."""
        made: RunKey | None = self._ask(f"asset run of {dag_id}", lambda: self._make_asset_run(dag_id))
        return made

    def _make_asset_run(self, dag_id: str) -> RunKey | None:
        dag = self.dag(dag_id)
        with on_server(), session() as opened:
            register_events(dag.timetable.asset_condition, opened)
        with session() as opened, prohibit_commit(opened) as guard:
            self._make_asset_runs(guard, opened)
            run_id = opened.scalars(select(DagRun.run_id).where(DagRun.dag_id == dag_id)).first()
        return None if run_id is None else (dag_id, run_id)

    def expect_runs(self, dag_id: str, dates: Sequence[datetime]) -> bool:
        """Make the DagRuns of a DAG that the clock would have made of these dates by now; whether there were any to make.

        Raises `LookupError` if the DAG is not known, `NoSuchRun` if it has no run of one of the dates.
        """
        question = f"expected runs of {dag_id} at {dates}"
        return bool(self._ask(question, lambda: self._expect_runs(dag_id, dates)))

    def _expect_runs(self, dag_id: str, dates: Sequence[datetime]) -> bool:
        dag = self.dag(dag_id)
        with session() as opened:
            known = set(opened.scalars(select(DagRun.logical_date).where(DagRun.dag_id == dag_id)))
        made = False
        for date in sorted(set(dates) - known):
            info = loading.run_at(dag, date)
            if info is None:
                raise NoSuchRun(date)
            if info.run_after <= now():
                with on_server():
                    runs.create(dag, date, info.data_interval)
                made = True
        return made

    def lose_worker(self, run: RunKey, task_id: str, map_index: int) -> Loss:
        """What Airflow makes of a running task whose worker has been silent for `heartbeat_timeout_s`."""
        question = f"lost worker of {run} {task_id} {map_index}"
        lost: Loss = self._ask(question, lambda: self._lose_worker(run, task_id, map_index))
        return lost

    def executor_is_done(self, run: RunKey, task_id: str, map_index: int) -> Loss:
        """What Airflow makes of a task that it takes for running while its executor is done with it.

        The executor tells of the supervisor's success, whatever became of the task's process.
        """
        question = f"executor done with {run} {task_id} {map_index}"
        lost: Loss = self._ask(question, lambda: self._executor_is_done(run, task_id, map_index))
        return lost

    def _executor_is_done(self, run: RunKey, task_id: str, map_index: int) -> Loss:
        with self._instance(run, task_id, map_index) as (ti, opened):
            self._executor.success(ti.key)
            self._runner._process_executor_events(self._executor, opened)
            opened.flush()
            return Loss(state=word(ti.state), callbacks=tuple(self._executor.callbacks))

    def running(self, run: RunKey, task_id: str, map_index: int) -> tuple[Any, bool]:
        """The id of a task instance that runs, and whether Airflow would retry it."""
        with self._instance(run, task_id, map_index) as (ti, _):
            return ti.id, bool(ti.is_eligible_to_retry())

    @contextmanager
    def _instance(self, run: RunKey, task_id: str, map_index: int) -> Iterator[tuple[TaskInstance, Any]]:
        """A task instance with its task, and the session that it belongs to; no callbacks have been asked for yet."""
        self._executor.callbacks.clear()
        key = {"dag_id": run[0], "run_id": run[1], "task_id": task_id, "map_index": map_index}
        with session() as opened:
            ti = opened.scalars(select(TaskInstance).filter_by(**key)).one()
            ti.task = self.dag(run[0]).get_task(task_id)
            yield ti, opened

    @property
    def heartbeat_timeout_s(self) -> float:
        """How long a worker may be silent."""
        return float(self._runner._task_instance_heartbeat_timeout_secs)

    def _lose_worker(self, run: RunKey, task_id: str, map_index: int) -> Loss:
        with self._instance(run, task_id, map_index) as (ti, opened):
            if _tells_of_failure(ti.task):
                self._runner._find_and_purge_task_instances_without_heartbeats()
                opened.expire_all()  # that was in a session of its own
                self._runner._process_executor_events(self._executor, opened)
            else:  # the same without what is done for the messages
                ti.handle_failure(error="worker lost", session=opened)
            opened.flush()
            return Loss(state=word(ti.state), callbacks=tuple(self._executor.callbacks))

    def next_deadline(self, *, counts_triggers: bool = True) -> datetime | None:
        """When the earliest retry delay, wait of a queued run or, if they count, trigger timeout is over; None if none is."""
        with session() as opened:
            retries = [self._retry_at(ti) for ti in opened.scalars(_waiting(TaskInstanceState.UP_FOR_RETRY))]
            timeouts = [
                ti.trigger_timeout
                for ti in opened.scalars(_waiting(TaskInstanceState.DEFERRED))
                if counts_triggers and ti.trigger_timeout is not None
            ]
            # The scheduler asks SQLite for the time, which knows whole seconds.
            later = opened.scalars(
                select(DagRun.run_after).where(
                    DagRun.state == DagRunState.QUEUED, DagRun.run_after >= now().replace(microsecond=0)
                )
            )
            return min((*retries, *timeouts, *later), default=None)

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


def _tells_of_failure(task: Any) -> bool:
    """Whether somebody is told when it fails (`SchedulerJobRunner.process_executor_events`)."""
    has_callback = task.has_on_retry_callback or task.has_on_failure_callback
    return bool(has_callback or (task.email and (task.email_on_failure or task.email_on_retry)))


def dag_of(callback: Any) -> str:
    """The DAG whose callback a request is for."""
    return str(getattr(callback, "dag_id", None) or callback.ti.dag_id)
