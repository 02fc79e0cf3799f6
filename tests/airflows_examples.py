"""The example DAGs that ship inside Airflow and its standard provider."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

FOLDERS = ("example_dags", "providers/standard/example_dags")
CANNOT_BE_SEEN: dict[str, tuple[str, ...]] = {
    # No task may start a process.
    "starting the process": (
        "asset_consumes_1",
        "asset_consumes_1_and_2",
        "asset_consumes_1_never_scheduled",
        "asset_consumes_unknown_never_scheduled",
        "asset_produces_1",
        "asset_produces_2",
        "asset_with_extra_from_classic_operator",
        "child_dag",
        "conditional_asset_and_time_based_timetable",
        "consume_1_and_2_with_asset_expressions",
        "consume_1_or_2_with_asset_expressions",
        "consume_1_or_both_2_and_3_with_asset_expressions",
        "example_bash_decorator",
        "example_bash_operator",
        "example_complex",
        "example_custom_weight",
        "example_python_decorator",
        "example_python_operator",
        "example_sensors",
        "example_setup_teardown",
        "example_task_group",
        "example_trigger_target_dag",
        "example_xcom",
        "example_xcom_args_with_operators",
        "team_analytics_producer",
        "team_ml_consumer",
        "tutorial",
        "tutorial_taskflow_api_virtualenv",
    ),
    # No task may open a connection.
    "connecting to": ("example_dag_decorator", "example_retry_policy"),
    # A person must answer.
    "a person is asked": ("example_hitl_operator",),
}
"""DAGs that do in each run what cannot be seen in one process, by what the reason for that says."""
_PLUGINS = """
from airflow.example_dags.plugins.decreasing_priority_weight_strategy import *
from airflow.example_dags.plugins.workday import *
"""
"""What they need in the folder of plugins."""


def example_folders() -> list[Path]:
    """The folders that they are installed in."""
    spec = find_spec("airflow")
    assert spec is not None
    places = [Path(place) / folder for place in spec.submodule_search_locations or () for folder in FOLDERS]
    return [place for place in places if place.is_dir()]


def write_plugins(root: Path) -> Path:
    """The folder of plugins, made there."""
    folder = root / "plugins"
    folder.mkdir()
    (folder / "examples.py").write_text(_PLUGINS)
    return folder


def copy_examples(dags: Path) -> None:
    """Put them into a DAGs folder: what lies among installed packages is nobody's project."""
    for number, folder in enumerate(example_folders()):
        others = shutil.ignore_patterns("plugins", "__pycache__")
        shutil.copytree(folder, dags / str(number), ignore=others)
