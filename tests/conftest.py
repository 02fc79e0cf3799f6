"""What all tests share: pytest's own tool for testing plugins, and one checker for all DAGs under test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from dag_projects import Project, project

from pytest_rerunsafe.settings import DagSettings, Settings

pytest_plugins = ["pytester"]

# A worker of pytest-xdist runs its tests as if it were alone: what they start must not take itself for a part of this run.
for _name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project for DAG files; its checker takes seconds to start and serves all tests of a pytest process."""
    in_any_order = DagSettings(unordered=("/data/*.csv",))
    settings = Settings(dag={"in_any_order": in_any_order})
    yield from project(tmp_path_factory.mktemp("project").resolve(), settings)
