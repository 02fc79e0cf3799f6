"""Answers what a task asks about other DAGs, their runs and assets, by the Execution API's own route functions.

What a message asks of the server follows `ActivitySubprocess._handle_request` and `airflow.sdk.api.client`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.execution_api.datamodels.dagrun import TriggerDAGRunPayload
from airflow.api_fastapi.execution_api.routes import asset_events, assets, dag_runs, task_instances
from airflow.sdk.api.datamodels import _generated as client_models
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms
from fastapi import HTTPException

if TYPE_CHECKING:
    from .answers import Answers


def _over_http(model: Any, found: Any) -> Any:
    """What the server found as its client gets it: a value of its own, with the client's defaults."""
    return model.model_validate_json(found.model_dump_json(exclude_unset=True))


# --- runs -------------------------------------------------------------------------------------


def _trigger_dag_run(answers: Answers, msg: Any) -> Any:
    fields = set(TriggerDAGRunPayload.model_fields)
    body = msg.model_dump_json(include=fields, exclude_defaults=True)
    payload = TriggerDAGRunPayload.model_validate_json(body)
    answers.on_coming("trigger", msg.dag_id)
    try:
        answers.call(dag_runs.trigger_dag_run, dag_id=msg.dag_id, run_id=msg.run_id, payload=payload)
    except HTTPException as refused:
        if refused.status_code == 404:
            answers.on_missing_dag(msg.dag_id)
        if refused.status_code != 409:
            raise refusal(refused) from None
        if not msg.reset_dag_run:
            return comms.ErrorResponse(error=ErrorType.DAGRUN_ALREADY_EXISTS)
        answers.call(dag_runs.clear_dag_run, dag_id=msg.dag_id, run_id=msg.run_id)
    answers.on_effect("trigger", msg.dag_id)
    return comms.OKResponse(ok=True)


def server_error() -> AirflowRuntimeError:
    """What a task gets where the server has failed and its client tries no more."""
    detail = {"status_code": 500, "message": "Internal Server Error", "detail": None}
    return AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


def refusal(refused: HTTPException) -> AirflowRuntimeError:
    """What the supervisor makes of an answer that its client raises."""
    detail = {"status_code": refused.status_code, "detail": refused.detail}
    return AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


def _get_dag_run(answers: Answers, msg: Any) -> Any:
    found = answers.call(dag_runs.get_dag_run, dag_id=msg.dag_id, run_id=msg.run_id)
    return comms.DagRunResult.from_api_response(_over_http(client_models.DagRun, found))


def _get_previous_dag_run(answers: Answers, msg: Any) -> Any:
    given = {"state": msg.state} if msg.state else {}
    found = answers.call(
        dag_runs.get_previous_dagrun, dag_id=msg.dag_id, logical_date=msg.logical_date, **given
    )
    run = None if found is None else _over_http(client_models.DagRun, found)
    return comms.PreviousDagRunResult(dag_run=run)


def _get_previous_ti(answers: Answers, msg: Any) -> Any:
    given = {name: value for name in ("logical_date", "state") if (value := getattr(msg, name)) is not None}
    found = answers.call(
        task_instances.get_previous_task_instance,
        dag_id=msg.dag_id,
        task_id=msg.task_id,
        map_index=msg.map_index,
        **given,
    )
    previous = None if found is None else _over_http(client_models.PreviousTIResponse, found)
    return comms.PreviousTIResult(task_instance=previous)


def _get_task_breadcrumbs(answers: Answers, msg: Any) -> Any:
    found = answers.call(task_instances.get_task_instance_breadcrumbs, dag_id=msg.dag_id, run_id=msg.run_id)
    return comms.TaskBreadcrumbsResult.from_api_response(
        _over_http(client_models.TaskBreadcrumbsResponse, found)
    )


def _get_dag(answers: Answers, msg: Any) -> Any:
    routes = importlib.import_module("airflow.api_fastapi.execution_api.routes.dags")  # 3.1 has none
    found = answers.call(routes.get_dag, dag_id=msg.dag_id)
    return comms.DagResult.from_api_response(_over_http(client_models.DagResponse, found))


# --- assets -----------------------------------------------------------------------------------


def _get_asset_by_name(answers: Answers, msg: Any) -> Any:
    return _asset(answers.find(assets.get_asset_by_name, name=msg.name), {"name": msg.name})


def _get_asset_by_uri(answers: Answers, msg: Any) -> Any:
    return _asset(answers.find(assets.get_asset_by_uri, uri=msg.uri), {"uri": msg.uri})


def _asset(found: Any, wanted: dict[str, str]) -> Any:
    if found is None:
        return comms.ErrorResponse(error=ErrorType.ASSET_NOT_FOUND, detail=wanted)
    return comms.AssetResult.from_asset_response(_over_http(client_models.AssetResponse, found))


def _get_assets_by_alias(answers: Answers, msg: Any) -> Any:
    found = answers.call(assets.get_assets_by_alias, alias_name=msg.alias_name)
    return comms.AssetsByAliasResult.from_asset_responses(
        [_over_http(client_models.AssetResponse, asset) for asset in found]
    )


def _get_events_by_asset(answers: Answers, msg: Any) -> Any:
    route = asset_events.get_asset_event_by_asset_name_uri
    return _events(answers.call(route, name=msg.name, uri=msg.uri, **_window(msg)))


def _get_events_by_alias(answers: Answers, msg: Any) -> Any:
    route = asset_events.get_asset_event_by_asset_alias
    return _events(answers.call(route, name=msg.alias_name, **_window(msg)))


def _window(msg: Any) -> dict[str, Any]:
    """The bounds of a question about events, where the version's message has them."""
    names = ("after", "before", "ascending", "limit")
    return {name: value for name in names if (value := getattr(msg, name, None)) is not None}


def _events(found: Any) -> Any:
    events = _over_http(client_models.AssetEventsResponse, found)
    return comms.AssetEventsResult.from_asset_events_response(events)


ANSWERS: dict[str, Callable[[Answers, Any], Any]] = {
    "TriggerDagRun": _trigger_dag_run,
    "GetDagRun": _get_dag_run,
    "GetPreviousDagRun": _get_previous_dag_run,
    "GetPreviousTI": _get_previous_ti,
    "GetTaskBreadcrumbs": _get_task_breadcrumbs,
    "GetDag": _get_dag,
    "GetAssetByName": _get_asset_by_name,
    "GetAssetByUri": _get_asset_by_uri,
    "GetAssetsByAlias": _get_assets_by_alias,
    "GetAssetEventByAsset": _get_events_by_asset,
    "GetAssetEventByAssetAlias": _get_events_by_alias,
}
