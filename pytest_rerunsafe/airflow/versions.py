"""What differs between the supported versions of Airflow (3.1 to 3.3), in one place."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner


def _first(*modules: str) -> Any:
    """The first of some modules that this version has."""
    return importlib.import_module(next(name for name in modules if importlib.util.find_spec(name)))


# 3.2 moved the DagBag that reads files out of the models.
_dagbag = _first("airflow.dag_processing.dagbag", "airflow.models.dagbag")
DagBag: Any = _dagbag.DagBag
sync_bag_to_db: Any = _dagbag.sync_bag_to_db

# 3.2 moved it; this module has used it all along.
ParamValidationError: Any = importlib.import_module("airflow.sdk.definitions.param").ParamValidationError

# 3.2 split serialization from the scheduler's DAG.
_serialization = importlib.import_module("airflow.serialization.serialized_objects")
_serializer: Any = getattr(_serialization, "DagSerialization", None) or _serialization.SerializedDAG


def _route(name: str) -> Any:
    """A module of the Execution API's routes; None where this version has none of that name."""
    module = f"airflow.api_fastapi.execution_api.routes.{name}"
    return importlib.import_module(module) if importlib.util.find_spec(module) else None


# New in 3.3.
task_state_store: Any = _route("task_state_store")
asset_state_store: Any = _route("asset_state_store")


def encoded(dag: Any) -> dict[str, Any]:
    """The DAG as Airflow stores it."""
    data: dict[str, Any] = _serializer.serialize_dag(dag)
    return data


def decoded(data: dict[str, Any]) -> Any:
    """A stored DAG as Airflow's scheduler knows it."""
    return _serializer.deserialize_dag(data)


def known_arguments(function: Any, **arguments: Any) -> dict[str, Any]:
    """Those of the arguments that this version's function has."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in arguments.items() if name in known}


def scheduler_runner(job: Any, executor: Any) -> Any:
    """Airflow's scheduler with one executor."""
    job.executors = [executor]  # where 3.1 has it
    return SchedulerJobRunner(job, **known_arguments(SchedulerJobRunner.__init__, executors=[executor]))
