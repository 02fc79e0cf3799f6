"""Answers messages about the state stores of tasks and assets, which Airflow has from 3.3 on (AIP-103).

What a message asks of the server follows `TaskStateStoreOperations` and `AssetStateStoreOperations` of `airflow.sdk.api.client`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import ErrorType
from airflow.sdk.execution_time import comms

from .versions import asset_state_store, task_state_store

if TYPE_CHECKING:
    from .answers import Answers


def _get_of_task(answers: Answers, msg: Any) -> Any:
    found = answers.find(task_state_store.get_task_state_store, key=msg.key)
    if found is None:
        return comms.ErrorResponse(error=ErrorType.TASK_STORE_NOT_FOUND, detail={"key": msg.key})
    return comms.TaskStateStoreResult(value=deepcopy(found.value))


def _set_of_task(answers: Answers, msg: Any) -> Any:
    body = task_state_store.TaskStateStorePutBody(value=msg.value, expires_at=msg.expires_at)
    return _changed(
        answers, "task-state", msg.key, task_state_store.set_task_state_store, key=msg.key, body=body
    )


def _delete_of_task(answers: Answers, msg: Any) -> Any:
    route = task_state_store.delete_task_state_store
    return _changed(answers, "task-state-delete", msg.key, route, key=msg.key)


def _clear_of_task(answers: Answers, _: Any) -> Any:
    return _changed(answers, "task-state-delete", "all", task_state_store.clear_task_state_store)


def _route_of_asset(verb: str, msg: Any) -> tuple[Callable[..., Any], dict[str, str]]:
    """The route for the asset that the message means, by name or by URI, and its arguments."""
    by = "name" if hasattr(msg, "name") else "uri"
    given = {name: getattr(msg, name) for name in (by, "key") if hasattr(msg, name)}
    return getattr(asset_state_store, f"{verb}_asset_state_store_by_{by}"), given


def _get_of_asset(answers: Answers, msg: Any) -> Any:
    route, given = _route_of_asset("get", msg)
    found = answers.find(route, **given)
    if found is None:
        return comms.ErrorResponse(error=ErrorType.ASSET_STORE_NOT_FOUND, detail={"key": msg.key})
    return comms.AssetStateStoreResult(value=deepcopy(found.value))


def _set_of_asset(answers: Answers, msg: Any) -> Any:
    route, given = _route_of_asset("set", msg)
    body = asset_state_store.AssetStateStorePutBody(value=msg.value)
    return _changed(answers, "asset-state", msg.key, route, **given, body=body)


def _delete_of_asset(answers: Answers, msg: Any) -> Any:
    route, given = _route_of_asset("delete", msg)
    return _changed(answers, "asset-state-delete", msg.key, route, **given)


def _clear_of_asset(answers: Answers, msg: Any) -> Any:
    route, given = _route_of_asset("clear", msg)
    return _changed(answers, "asset-state-delete", "all", route, **given)


def _changed(answers: Answers, kind: str, target: str, route: Callable[..., Any], **given: Any) -> Any:
    answers.change(kind, target, route, **given)
    return comms.OKResponse(ok=True)


ANSWERS: dict[str, Callable[[Answers, Any], Any]] = {
    "GetTaskStateStore": _get_of_task,
    "SetTaskStateStore": _set_of_task,
    "DeleteTaskStateStore": _delete_of_task,
    "ClearTaskStateStore": _clear_of_task,
    **{
        f"{verb}AssetStateStoreBy{by}": answer
        for verb, answer in (
            ("Get", _get_of_asset),
            ("Set", _set_of_asset),
            ("Delete", _delete_of_asset),
            ("Clear", _clear_of_asset),
        )
        for by in ("Name", "Uri")
    },
}
