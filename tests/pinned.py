"""Which versions README's counts and the lists of Airflow's examples are about."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def is_pinned() -> bool:
    """Whether Airflow is the one that `constraints.txt` names."""
    pins = CONSTRAINTS.read_text(encoding="utf-8")
    packages = ("apache-airflow-core", "apache-airflow-providers-standard")
    return all(f"\n{package}=={version(package)}" in pins for package in packages)
