"""Imports Airflow into a process of ours: no file written, no service asked, no user's database touched."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Mapping

from .postponed import postpone

HOME = "/opt/airflow"
"""AIRFLOW_HOME as DAG code sees it where the user has set none: that of the official image."""

_OURS: Mapping[str, str] = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    # Whole tracebacks: what is not the user's is cut later.
    "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH": "100",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    # Airflow's default asks the name server for the machine's full name.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{__name__}.hostname",
    # An encrypted Variable differs at each write: rows would never compare equal.
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__API_AUTH__JWT_SECRET": "pytest-rerunsafe",
    "AIRFLOW__METRICS__STATSD_ON": "False",
    "AIRFLOW__METRICS__OTEL_ON": "False",
    "AIRFLOW__TRACES__OTEL_ON": "False",
    "AIRFLOW__SENTRY__SENTRY_ON": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
}


class Unsupported(Exception):
    """The user's configuration of Airflow cannot be followed; the argument says what and what to do, in one line."""


def hostname() -> str:
    """The worker's name: the same on every machine."""
    return "worker"


def boot() -> None:
    """Import all of Airflow that a run needs. Raises what the import raises."""
    # The user's filters may turn a deprecation inside Airflow into an error; that is not what is tested.
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    os.environ.update(_OURS)
    with tempfile.TemporaryDirectory(prefix="rerunsafe-") as folder:
        given = _point_away_from_home(folder)
        _import_airflow()
        _forget(folder, given)


def _point_away_from_home(folder: str) -> str | None:
    """Let the first import write its configuration file and log folder to `folder`, unless the user has a configuration."""
    given = os.environ.get("AIRFLOW_HOME")
    os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = os.path.join(folder, "logs")
    os.environ["AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY"] = os.path.join(folder, "logs")
    has_configuration = given is not None and os.path.isfile(os.path.join(given, "airflow.cfg"))
    if not has_configuration and "AIRFLOW_CONFIG" not in os.environ:
        os.environ["AIRFLOW_HOME"] = folder
    return given


def _import_airflow() -> None:
    # What one run of everything imports, so that no worker has to: found by listing sys.modules before and after.
    import airflow
    import airflow.providers_manager
    import airflow.sdk.execution_time.supervisor
    import airflow.sdk.execution_time.task_runner

    _refuse_what_cannot_be_followed()
    airflow.settings.initialize()
    _import_routes()

    from . import (  # noqa: F401
        answers,
        attempts,
        inputs,
        loading,
        metadata,
        rerunning,
        scheduling,
        sensors,
        triggers,
        warm_up_dag,
    )

    attempts.leave_out_what_only_people_read()
    attempts.defer_what_waits_for_a_run()


def _refuse_what_cannot_be_followed() -> None:
    from airflow.configuration import conf

    backend = conf.get("core", "xcom_backend")
    if backend.rpartition(".")[2] == "XComObjectStorageBackend":
        raise Unsupported(
            "XComs in object storage cannot be followed: unset AIRFLOW__CORE__XCOM_BACKEND for the checks "
            f"(it is {backend!r}); what XComs hold is checked the same with Airflow's own backend."
        )


def _import_routes() -> None:
    """Import the Execution API's routes without putting them together to a server, which takes longer than they do."""
    routes = "airflow.api_fastapi.execution_api.routes"
    postpone("cadwyn", VersionedAPIRouter="route_generation")
    postpone(routes)
    for module in pkgutil.iter_modules(sys.modules[routes].__path__):
        importlib.import_module(f"{routes}.{module.name}")


def _forget(folder: str, given: str | None) -> None:
    from airflow.configuration import conf

    for section, key in (("core", "dags_folder"), ("core", "plugins_folder")):
        if conf.get(section, key, fallback="").startswith(folder):
            os.environ[f"AIRFLOW__{section.upper()}__{key.upper()}"] = f"{HOME}/{key.split('_')[0]}"
    os.environ["AIRFLOW_HOME"] = given or HOME
    os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = f"{os.environ['AIRFLOW_HOME']}/logs"
    os.environ.pop("AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY", None)
