"""What all tests share: pytest's own tool for testing plugins, and one checker for all DAGs under test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dag_projects import Project, project

from pytest_rerunsafe.settings import DagSettings, Settings

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project for DAG files; its checker takes seconds to start and serves all tests of a pytest process."""
    in_any_order = DagSettings(unordered=("/data/*.csv",))
    settings = Settings(dag={"in_any_order": in_any_order})
    yield from project(tmp_path_factory.mktemp("project").resolve(), settings)
