"""Example DAGs that Airflow ships are rerun-safe by construction: no check of one may find anything.

A sample of those that take seconds. `tests/test_against_dag_test.py` runs all of them, without checks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from dag_projects import Project, project

from pytest_rerunsafe.model import Verdict

FILES = (
    "example_asset_decorator.py",
    "example_branch_labels.py",
    "example_branch_python_dop_operator_3.py",
    "example_display_name.py",
    "example_latest_only_with_trigger.py",
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose DAGs folder holds the sample."""
    root = tmp_path_factory.mktemp("examples").resolve()
    with contextmanager(project)(root) as made:
        for name in FILES:
            made.write(Path(name).stem, "")
            shutil.copy(_examples() / name, root / "dags" / name)
        yield made


def _examples() -> Path:
    spec = find_spec("airflow")
    assert spec is not None
    places = [Path(place) / "example_dags" for place in spec.submodule_search_locations or ()]
    return next(place for place in places if place.is_dir())


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_found(examples: Project, name: str) -> None:
    loaded = examples.checker.load(str(examples.root / "dags" / name))
    assert not loaded.error, loaded.error
    for dag in loaded.dags:
        verdicts = examples.check_dag(dag)
        assert verdicts.findings == ()
        # A task that a branch leaves aside does not run, and so its crashes are skipped.
        assert verdicts.worst in (Verdict.SAFE, Verdict.SKIPPED), verdicts.results
