"""What people do to DagRuns that have ended, by the functions that Airflow's own buttons and commands call."""

from __future__ import annotations

import inspect
from argparse import Namespace
from typing import Any

from airflow.api.common import mark_tasks
from airflow.exceptions import AirflowException  # type: ignore[attr-defined]
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import backfill as backfills
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from fastapi import HTTPException
from pydantic import ValidationError
from sqlalchemy import select

from ..model import Action, Backfill, Clear, Mark, RunKey
from .loading import stored_dag
from .metadata import session
from .versions import known_arguments


class Refused(Exception):
    """Airflow does not allow it; the argument says why, in Airflow's words."""


def act(run: RunKey, action: Action) -> tuple[str, ...]:
    """Do it; the task instances that it touched. Raises `Refused`."""
    before = _task_instances(run)
    try:
        _act(run, action)
    except HTTPException as refused:
        raise Refused(str(refused.detail)) from refused
    except ValidationError as refused:
        raise Refused("; ".join(error["msg"] for error in refused.errors())) from refused
    except (AirflowException, ValueError) as refused:
        raise Refused(str(refused)) from refused
    return tuple(name for name, what in _task_instances(run).items() if before.get(name) != what)


def _act(run: RunKey, action: Action) -> None:
    match action:
        case Clear(pattern=""):
            _clear(run, action)
        case Clear():
            _clear_by_pattern(run, action)
        case Mark(task_id=""):
            _mark_run(run, action)
        case Mark():
            _mark_task(run, action)
        case Backfill():
            _backfill(run[0], action)


def _task_instances(run: RunKey) -> dict[str, object]:
    """Those of the DAG by name, with what a clear or a mark changes."""
    columns = (TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    with session() as opened:
        found = opened.execute(
            select(*columns, TaskInstance.id, TaskInstance.state)
            .where(TaskInstance.dag_id == run[0])
            .order_by(*columns)
        ).all()
    names = [
        ("" if row.run_id == run[1] else f"{row.run_id}/")
        + (row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]")
        for row in found
    ]
    return {name: (row.id, row.state) for name, row in zip(names, found, strict=True)}


# --- clear ------------------------------------------------------------------------------------


def _clear(run: RunKey, clear: Clear) -> None:
    """What the button does: the route of the REST API."""
    # Imported here for they bring all of the API server along, which no check needs.
    from airflow.api_fastapi.core_api.datamodels.task_instances import ClearTaskInstancesBody
    from airflow.api_fastapi.core_api.routes.public.task_instances import post_clear_task_instances

    if clear.only_failed and clear.only_running:
        # The route says so itself, but stumbles over its own exception in 3.1.
        raise Refused("only_failed and only_running both are set to True")
    body: dict[str, Any] = {
        "dry_run": False,
        "only_failed": clear.only_failed,
        "only_running": clear.only_running,
        "task_ids": list(clear.task_ids) or None,
        "include_upstream": clear.upstream,
        "include_downstream": clear.downstream,
        "include_past": clear.past,
        "include_future": clear.future,
    }
    has_range = clear.start is not None or clear.end is not None
    body |= {"start_date": clear.start, "end_date": clear.end} if has_range else {"dag_run_id": run[1]}
    with session() as opened:
        arguments = known_arguments(
            post_clear_task_instances,
            dag_id=run[0],
            dag_bag=DBDagBag(),
            body=ClearTaskInstancesBody.model_validate(body),
            session=opened,
            user=None,
        )
        post_clear_task_instances(**arguments)


def _clear_by_pattern(run: RunKey, clear: Clear) -> None:
    """What `airflow tasks clear --task-regex` does; of one run, as the command does, by its logical date."""
    from airflow.cli.commands import task_command

    if clear.task_ids or clear.past or clear.future:
        raise Refused(
            "a pattern goes with upstream, downstream, start, end, only_failed and only_running alone"
        )
    with session() as opened:
        wanted = select(DagRun.logical_date).where(DagRun.dag_id == run[0], DagRun.run_id == run[1])
        logical_date = opened.scalars(wanted).one()
    has_range = clear.start is not None or clear.end is not None
    command = inspect.unwrap(task_command.task_clear)  # without the log entry and the providers' registration
    command(
        Namespace(
            dag_id=run[0],
            dag_regex=False,
            bundle_name=None,
            task_regex=clear.pattern,
            upstream=clear.upstream,
            downstream=clear.downstream,
            start_date=clear.start if has_range else logical_date,
            end_date=clear.end if has_range else logical_date,
            only_failed=clear.only_failed,
            only_running=clear.only_running,
            yes=True,
        )
    )


# --- mark -------------------------------------------------------------------------------------


def _mark_task(run: RunKey, mark: Mark) -> None:
    dag = stored_dag(run[0])
    if mark.task_id not in dag.task_dict:
        raise Refused(f"no task {mark.task_id!r} in {run[0]}; tasks: {', '.join(sorted(dag.task_dict))}")
    with session() as opened:
        dag.set_task_instance_state(
            task_id=mark.task_id,
            map_indexes=None if mark.map_index is None else [mark.map_index],
            run_id=run[1],
            state=TaskInstanceState(mark.state),
            upstream=mark.upstream,
            downstream=mark.downstream,
            past=mark.past,
            future=mark.future,
            session=opened,
        )


def _mark_run(run: RunKey, mark: Mark) -> None:
    functions = {
        "success": mark_tasks.set_dag_run_state_to_success,
        "failed": mark_tasks.set_dag_run_state_to_failed,
    }
    if mark.state not in functions:
        raise Refused(f"a run cannot be marked {mark.state!r}; states: {', '.join(functions)}")
    with session() as opened:
        functions[mark.state](dag=stored_dag(run[0]), run_id=run[1], commit=True, session=opened)


# --- backfill ---------------------------------------------------------------------------------


def _backfill(dag_id: str, wanted: Backfill) -> None:
    with session() as opened:
        # Of the scheduler's own only this, which it does by a timer.
        SchedulerJobRunner._mark_backfills_complete(_Quiet(), session=opened)  # type: ignore[arg-type]
    backfills._create_backfill(
        dag_id=dag_id,
        from_date=wanted.start,
        to_date=wanted.end,
        max_active_runs=wanted.max_active_runs,
        reverse=wanted.backwards,
        dag_run_conf=None,
        triggering_user_name=None,
        reprocess_behavior=backfills.ReprocessBehavior(wanted.reprocess),
    )


class _Quiet:
    """Stands for a scheduler that logs nothing."""

    class log:
        """Its log."""

        @staticmethod
        def debug(*_: object) -> None:
            """Dropped."""

        info = debug
