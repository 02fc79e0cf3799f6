"""The hooks that a project's conftest.py may implement; nothing of ours is called or imported here."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.hookspec
def pytest_rerun_safety_prepare(dag: Any, world: Any) -> None:
    """Put a DAG's inputs in place. Called before every clean run.

    Only the conftest.py files at or above the DAG file are asked, the nearest first. The call comes in a
    process of its own: what it changes in memory is gone afterwards, what it writes to files stays in the
    DAG's world and never reaches the real disk. A suite that also runs without this plugin marks its
    implementation `@pytest.hookimpl(optionalhook=True)`.

    :param dag: The Airflow DAG; `dag.dag_id` tells which one. None for a file that does not load without inputs.
    :param world: Where the inputs go: `world.write(path, content)`, `world.mkdir(path)`,
        `world.set_variable(key, value)`, `world.set_connection(conn_id, uri)`.
    """
