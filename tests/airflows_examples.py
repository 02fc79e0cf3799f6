"""The example DAGs that ship inside Airflow and its standard provider."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

FOLDERS = ("example_dags", "providers/standard/example_dags")
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
