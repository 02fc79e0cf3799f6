"""What ties DAGs to each other, by Airflow's own account of it: triggers, sensors, assets and their aliases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor

Dependency = Mapping[str, Any]
"""One of the `dag_dependencies` of a stored DAG."""

_ANY_DAG = "dag:*"
_SCHEDULES = frozenset({"asset", "asset-alias", "asset-name-ref", "asset-uri-ref"})


def leads_to(dag: Any, dependencies: Sequence[Dependency]) -> frozenset[str]:
    """What a DAG's runs may set off or wait for: the `leads_to` of its `DagInfo`."""
    found = {name for dependency in dependencies for name in _led_to(dag.dag_id, dependency)}
    if any(_names_dags_at_run_time(task) for task in dag.task_dict.values()):
        found.add(_ANY_DAG)
    return frozenset(found)


def set_off_by(dag_id: str, dependencies: Sequence[Dependency]) -> frozenset[str]:
    """The assets and aliases of a DAG's schedule: the `set_off_by` of its `DagInfo`."""
    return frozenset(
        f"{dependency['dependency_type']}:{dependency['dependency_id']}"
        for dependency in dependencies
        if dependency["dependency_type"] in _SCHEDULES and dependency["target"] == dag_id
    )


def _led_to(dag_id: str, dependency: Dependency) -> Iterator[str]:
    match dependency["dependency_type"]:
        case "trigger":
            yield _dag(dependency["target"])
        case "sensor":
            yield _dag(dependency["source"])
        case "asset" if dependency["source"] == dag_id:
            key = json.loads(dependency["dependency_id"])
            yield f"asset:{dependency['dependency_id']}"
            yield f"asset-name-ref:{key['name']}"
            yield f"asset-uri-ref:{key['uri']}"
        case kind if kind in _SCHEDULES and dependency["source"] == dag_id:
            yield f"{kind}:{dependency['dependency_id']}"


def _dag(dag_id: str) -> str:
    return _ANY_DAG if "{{" in dag_id else f"dag:{dag_id}"


def _names_dags_at_run_time(task: Any) -> bool:
    """Whether each of a mapped task's instances has a DAG of its own, of which Airflow's account says nothing."""
    if not task.is_mapped:  # Airflow knows a class of these too
        return False
    operator, fixed = task.operator_class, task.partial_kwargs
    kinds: Iterable[tuple[type, str]] = (
        (TriggerDagRunOperator, "trigger_dag_id"),
        (ExternalTaskSensor, "external_dag_id"),
    )
    return isinstance(operator, type) and any(
        issubclass(operator, kind) and name not in fixed for kind, name in kinds
    )
