"""Answers a task's messages to its supervisor in process, by calling the Execution API's own route functions.

The supervisor's part (what a message asks of the server, what a missing value is answered with) follows
`ActivitySubprocess._handle_request` and `airflow.sdk.api.client` of Airflow 3.1 to 3.3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime, timezone
from functools import cache
from types import SimpleNamespace
from typing import Any

from airflow.api_fastapi.execution_api.datamodels import taskinstance as payloads
from airflow.api_fastapi.execution_api.datamodels.variable import VariablePostBody
from airflow.api_fastapi.execution_api.routes import (
    connections,
    dag_runs,
    task_instances,
    task_reschedules,
    variables,
    xcoms,
)
from airflow.models.dagbag import DBDagBag
from airflow.models.xcom import XComModel
from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms, task_runner
from fastapi import HTTPException

from . import answers_between, state_stores
from .metadata import session

Ask = Callable[[str, Callable[[], Any]], Any]
"""Puts a question to Airflow: what tells it from others, and the function that answers it."""
OnEffect = Callable[[str, str], None]
"""Kind and target of what a message changes durably."""


class UnansweredMessage(Exception):
    """A message that no server of ours answers; its name is the first argument."""


@cache
def _parameters(route: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(route).parameters)


@contextmanager
def on_server() -> Iterator[None]:
    """Inside, Airflow does not take this process for a worker, which would ask its supervisor for a Variable, and so us."""
    supervisor = vars(task_runner).pop("SUPERVISOR_COMMS", None)
    try:
        yield
    finally:
        if supervisor is not None:
            task_runner.SUPERVISOR_COMMS = supervisor


class Answers:
    """The supervisor and the server of one task attempt: what `SUPERVISOR_COMMS` is while it runs."""

    def __init__(
        self,
        ti_id: Any,
        ask: Ask,
        *,
        on_effect: OnEffect,
        on_coming: OnEffect = lambda kind, target: None,
        on_unanswered: Callable[[str], None],
        is_stale: Callable[[str, str], bool] = lambda task_id, key: False,
        is_opaque: Callable[[], bool] = lambda: False,
        expect_runs: Callable[[str, Sequence[datetime]], None] = lambda dag_id, dates: None,
        on_missing_dag: Callable[[str], None] = lambda dag_id: None,
        check_alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._ti_id = ti_id
        self.ask = ask
        self.on_effect = on_effect
        self.on_coming = on_coming
        """Called with kind and target of a change before it is made; what it raises, the task gets."""
        self._is_stale = is_stale
        self._on_unanswered = on_unanswered
        self._is_opaque = is_opaque
        self._expect_runs = expect_runs
        """Called before a question about a DAG's runs of some logical dates, which are by then to have been made."""
        self.on_missing_dag = on_missing_dag
        """Called when the task wants to run a DAG that is not there."""
        self._check_alive = check_alive
        """Called before each message; raises if the task's process has gone, which Airflow's task runner may not have noticed."""
        self.reads: dict[str, bool] = {}
        """XComs that the task found, `task_id/key`, and whether any of them was stale by `is_stale`."""
        self._dag_bag = DBDagBag()
        self.on_message: Callable[[Any, Callable[[], Any]], Any] = lambda msg, answer: answer()
        """Called for each message, with what gives the answer; returns it."""
        self.terminal_state: str | None = None
        """What the task said of its end, None if it said nothing."""
        self.unsent: comms.TaskState | None = None
        """An end that the supervisor reports only once the process has gone."""

    def send(self, msg: Any) -> Any:
        """The supervisor's answer to a message of the task."""
        self._check_alive()
        msg = self._taken_for(msg)
        name = type(msg).__name__
        answer = _ANSWERS.get(name)
        if answer is None:
            # Told at once: the task may catch the exception, and Airflow takes it for the task's failure.
            self._on_unanswered(name)
            raise UnansweredMessage(name)
        try:
            return self.on_message(msg, lambda: answer(self, msg))
        except HTTPException as refused:
            raise answers_between.refusal(refused) from None

    def start_anew(self) -> None:
        """Forget the messages so far."""
        self.reads.clear()
        self.terminal_state = self.unsent = None

    def _taken_for(self, msg: Any) -> Any:
        """A failure of what cannot be done here is taken for a success, so that the rest of the DAG runs."""
        failed = isinstance(msg, comms.RetryTask) or getattr(msg, "state", None) == "failed"
        if not (failed and self._is_opaque()):
            return msg
        return comms.SucceedTask(end_date=msg.end_date, task_outlets=[], outlet_events=[])

    async def asend(self, msg: Any) -> Any:
        """As `send`."""
        return self.send(msg)

    def call(self, route: Callable[..., Any], **arguments: Any) -> Any:
        """What a route function returns, not to be changed.

        The function is given those of FastAPI's dependencies that this version's has.
        """
        question = f"{route.__module__}.{route.__name__} {self._ti_id} {sorted(arguments.items())}"
        return self.ask(question, lambda: self._call(route, arguments))

    def _call(self, route: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        wanted = _parameters(route)
        with session() as opened:
            offered = {
                "session": opened,
                "dag_bag": self._dag_bag,
                "task_instance_id": self._ti_id,
                "team_name": None,
                "token": SimpleNamespace(id=self._ti_id, claims=SimpleNamespace(scope="execution")),
                "response": SimpleNamespace(headers={}),
                "services": None,
                **arguments,
            }
            with on_server():
                return route(**{name: value for name, value in offered.items() if name in wanted})

    def change(self, kind: str, target: str, route: Callable[..., Any], **arguments: Any) -> Any:
        """As `call`, for a route that makes a durable change."""
        self.on_coming(kind, target)
        found = self.call(route, **arguments)
        self.on_effect(kind, target)
        return found

    def find(self, route: Callable[..., Any], **arguments: Any) -> Any | None:
        """As `call`; None where the server answers 404."""
        try:
            return self.call(route, **arguments)
        except HTTPException as refused:
            if refused.status_code != 404:
                raise
            return None

    # --- how the attempt ends ---

    def _end(self, msg: Any) -> None:
        payload = _END_PAYLOADS[type(msg).__name__]
        given = msg.model_dump(exclude_unset=True, exclude={"type"})
        if "end_date" in given:  # by the task's clock, which ticks as often as it looks
            given["end_date"] = self.ask("now", lambda: datetime.now(tz=timezone.utc))
        self.report(payload.model_validate({**given, "state": msg.state}), msg.state)

    def _end_later(self, msg: Any) -> None:
        self.terminal_state = str(getattr(msg.state, "value", msg.state))
        self.unsent = msg

    def report(self, body: Any, state: Any) -> None:
        """Tell the server of the attempt's end."""
        self.call(task_instances.ti_update_state, ti_patch_payload=body)
        self.terminal_state = str(getattr(state, "value", state))
        self.on_effect("state", self.terminal_state)

    def report_terminal(self, state: str, when: Any) -> None:
        """What the supervisor reports of a task that failed or skipped, after its process has gone."""
        self.report(payloads.TITerminalStatePayload.model_validate({"state": state, "end_date": when}), state)

    def _skip_downstream(self, msg: Any) -> None:
        body = payloads.TISkippedDownstreamTasksStatePayload(tasks=msg.tasks)
        self.change("skip", "downstream", task_instances.ti_skip_downstream, ti_patch_payload=body)

    # --- XComs ---

    def _note_read(self, msg: Any) -> None:
        name = f"{msg.task_id}/{msg.key}"
        self.reads[name] = self.reads.get(name, False) or self._is_stale(msg.task_id, msg.key)

    def _set_xcom(self, msg: Any) -> None:
        given = {**_xcom(msg), "value": msg.value, **_given(msg, "dag_result", "mapped_length")}
        self.change("xcom", msg.key, xcoms.set_xcom, **given)

    def _delete_xcom(self, msg: Any) -> None:
        self.change("xcom-delete", msg.key, xcoms.delete_xcom, **_xcom(msg))
        # The task runner fetches what it deletes, for backends that keep values elsewhere: nothing was made of it.
        self.reads.pop(f"{msg.task_id}/{msg.key}", None)

    def _get_xcom(self, msg: Any) -> Any:
        params = xcoms.GetXcomFilterParams(
            map_index=_index(msg.map_index), include_prior_dates=bool(msg.include_prior_dates)
        )
        found = self.find(xcoms.get_xcom, **_xcom(msg), params=params)
        if found is None:
            return comms.XComResult(key=msg.key, value=None)
        self._note_read(msg)
        return comms.XComResult(key=msg.key, value=deepcopy(found.value))

    def _get_xcom_count(self, msg: Any) -> Any:
        response = SimpleNamespace(headers={})
        query = XComModel.get_many(run_id=msg.run_id, key=msg.key, task_ids=msg.task_id, dag_ids=msg.dag_id)
        self._call(xcoms.head_xcom, {**_xcom(msg, index=None), "response": response, "xcom_query": query})
        return comms.XComCountResponse(len=int(response.headers["Content-Range"].split()[-1]))

    def _get_xcom_item(self, msg: Any) -> Any:
        found = self.find(xcoms.get_mapped_xcom_by_index, **_xcom(msg), offset=msg.offset)
        if found is None:
            detail = {"task_id": msg.task_id, "key": msg.key, "offset": msg.offset}
            return comms.ErrorResponse(error=ErrorType.XCOM_NOT_FOUND, detail=detail)
        self._note_read(msg)
        return comms.XComSequenceIndexResult(root=deepcopy(found.root))

    def _get_xcom_slice(self, msg: Any) -> Any:
        chosen = _given(msg, "start", "stop", "step", "include_prior_dates")
        params = xcoms.GetXComSliceFilterParams(**chosen)
        found = self.call(xcoms.get_mapped_xcom_by_slice, **_xcom(msg), params=params)
        if found.root:
            self._note_read(msg)
        return comms.XComSequenceSliceResult(root=deepcopy(found.root))

    # --- Variables and Connections ---

    def _get_variable(self, msg: Any) -> Any:
        found = self.find(variables.get_variable, variable_key=msg.key)
        if found is None:
            return comms.ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={"key": msg.key})
        return comms.VariableResult(key=msg.key, value=found.val)

    def _put_variable(self, msg: Any) -> None:
        body = VariablePostBody(val=msg.value, description=msg.description)
        self.change("variable", msg.key, variables.put_variable, variable_key=msg.key, body=body)

    def _delete_variable(self, msg: Any) -> Any:
        self.change("variable-delete", msg.key, variables.delete_variable, variable_key=msg.key)
        return comms.OKResponse(ok=True)

    def _get_variable_keys(self, msg: Any) -> Any:
        found = self.call(variables.get_variable_keys, prefix=msg.prefix, limit=msg.limit, offset=msg.offset)
        return comms.VariableKeysResult(keys=found.keys, total_entries=found.total_entries)

    def _get_connection(self, msg: Any) -> Any:
        found = self.find(connections.get_connection, connection_id=msg.conn_id)
        if found is None:
            detail = {"conn_id": msg.conn_id}
            return comms.ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND, detail=detail)
        fields = found.model_dump(by_alias=True)
        return comms.ConnectionResult.model_validate({**fields, "type": "ConnectionResult"})

    # --- what a task asks about runs and tasks ---

    def _get_previous_successful_run(self, _: Any) -> Any:
        found = self.call(task_instances.get_previous_successful_dagrun)
        return comms.PrevSuccessfulDagRunResult(**found.model_dump(exclude_defaults=True))

    def _expect(self, msg: Any) -> None:
        if dates := getattr(msg, "logical_dates", None):
            self._expect_runs(msg.dag_id, dates)

    def _get_ti_count(self, msg: Any) -> Any:
        self._expect(msg)
        found = self.call(
            task_instances.get_task_instance_count, **_criteria(msg), states=getattr(msg, "states", None)
        )
        return comms.TICount(count=found)

    def _get_task_states(self, msg: Any) -> Any:
        self._expect(msg)
        found = self.call(task_instances.get_task_instance_states, **_criteria(msg))
        return comms.TaskStatesResult(task_states=deepcopy(found.task_states))

    def _get_dr_count(self, msg: Any) -> Any:
        self._expect(msg)
        chosen = _given(msg, "dag_id", "logical_dates", "run_ids", "states")
        return comms.DRCount(count=self.call(dag_runs.get_dr_count, **chosen))

    def _get_dag_run_state(self, msg: Any) -> Any:
        found = self.call(dag_runs.get_dagrun_state, dag_id=msg.dag_id, run_id=msg.run_id)
        return comms.DagRunStateResult(state=found.state)

    def _get_reschedule_start(self, msg: Any) -> Any:
        found = self.call(task_reschedules.get_start_date, try_number=msg.try_number)
        return comms.TaskRescheduleStartDate(start_date=found)

    # --- what only the user interface reads ---

    def _set_rendered_map_index(self, msg: Any) -> Any:
        self.call(task_instances.ti_patch_rendered_map_index, rendered_map_index=msg.rendered_map_index)
        return comms.OKResponse(ok=True)

    def _validate_inlets_and_outlets(self, _: Any) -> Any:
        found = self.call(task_instances.validate_inlets_and_outlets)
        return comms.InactiveAssetsResult(**found.model_dump(exclude_unset=True))

    def _nothing(self, _: Any) -> Any:
        """Rendered fields and masked secrets are for the user interface and its logs: nothing reads them here."""
        return comms.OKResponse(ok=True)


def _index(map_index: int | None) -> int:
    return -1 if map_index is None else map_index


def _xcom(msg: Any, **instead: Any) -> dict[str, Any]:
    index = instead.get("index", _index(getattr(msg, "map_index", None)))
    return {
        "dag_id": msg.dag_id,
        "run_id": msg.run_id,
        "task_id": msg.task_id,
        "key": msg.key,
        "map_index": index,
    }


def _given(msg: Any, *names: str) -> dict[str, Any]:
    """Those of a message's fields that are set: a route's own defaults hold for the others, as over HTTP."""
    return {name: value for name in names if (value := getattr(msg, name, None)) is not None}


def _criteria(msg: Any) -> dict[str, Any]:
    names = ("dag_id", "map_index", "task_ids", "task_group_id", "logical_dates", "run_ids")
    return {name: getattr(msg, name, None) for name in names}


_END_PAYLOADS: dict[str, Any] = {
    "SucceedTask": payloads.TISuccessStatePayload,
    "RetryTask": payloads.TIRetryStatePayload,
    "RescheduleTask": payloads.TIRescheduleStatePayload,
    "DeferTask": payloads.TIDeferredStatePayload,
}

_ANSWERS: dict[str, Callable[[Answers, Any], Any]] = {
    "SucceedTask": Answers._end,
    "RetryTask": Answers._end,
    "RescheduleTask": Answers._end,
    "DeferTask": Answers._end,
    "TaskState": Answers._end_later,
    "SkipDownstreamTasks": Answers._skip_downstream,
    "SetXCom": Answers._set_xcom,
    "DeleteXCom": Answers._delete_xcom,
    "GetXCom": Answers._get_xcom,
    "GetXComCount": Answers._get_xcom_count,
    "GetXComSequenceItem": Answers._get_xcom_item,
    "GetXComSequenceSlice": Answers._get_xcom_slice,
    "GetVariable": Answers._get_variable,
    "PutVariable": Answers._put_variable,
    "DeleteVariable": Answers._delete_variable,
    "GetVariableKeys": Answers._get_variable_keys,
    "GetConnection": Answers._get_connection,
    "GetPrevSuccessfulDagRun": Answers._get_previous_successful_run,
    "GetTICount": Answers._get_ti_count,
    "GetTaskStates": Answers._get_task_states,
    "GetDRCount": Answers._get_dr_count,
    "GetDagRunState": Answers._get_dag_run_state,
    "GetTaskRescheduleStartDate": Answers._get_reschedule_start,
    "SetRenderedFields": Answers._nothing,
    "SetRenderedMapIndex": Answers._set_rendered_map_index,
    "ValidateInletsAndOutlets": Answers._validate_inlets_and_outlets,
    "MaskSecret": Answers._nothing,
    **state_stores.ANSWERS,
    **answers_between.ANSWERS,
}
