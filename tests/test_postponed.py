"""A package's own code waits until somebody asks for what it makes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from forked import in_child

from pytest_rerunsafe.airflow.postponed import postpone


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose `__init__` notes that it ran, with a module that makes `answer`."""
    folder = tmp_path / "outer" / "slow"
    folder.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text("")
    (folder / "part.py").write_text("answer = 42\n")
    (folder / "__init__.py").write_text("from .part import answer\nruns = [answer]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("outer", "outer.slow", "outer.slow.part"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "outer.slow"


def test_a_module_comes_without_the_package_around_it(package: str) -> None:
    postpone(package, answer="part")
    part = importlib.import_module(f"{package}.part")
    module = sys.modules[package]
    assert (part.answer, module.answer) == (42, 42)
    assert "runs" not in vars(module)


def test_who_asks_for_more_gets_the_package_as_it_always_is(package: str) -> None:
    postpone(package)
    part = importlib.import_module(f"{package}.part")
    module = importlib.import_module(package)
    assert module.runs == [42]
    assert module.part is part
    assert module is sys.modules[package] is sys.modules["outer"].slow
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


def test_a_package_that_is_loaded_stays_as_it_is(package: str) -> None:
    module = importlib.import_module(package)
    postpone(package)
    assert sys.modules[package] is module


def test_nothing_is_postponed_that_is_not_there() -> None:
    postpone("no_such_package")
    assert "no_such_package" not in sys.modules


def _booted() -> tuple[bool, bool, int]:
    from pytest_rerunsafe.airflow.boot import boot

    boot()
    routes = sys.modules["airflow.api_fastapi.execution_api.routes"]
    waits = "execution_api_router" not in vars(routes)
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    count = len(create_task_execution_api_app().routes)
    return waits, "execution_api_router" in vars(routes), count


def test_airflows_own_server_can_still_be_made() -> None:
    waits, is_run, count = in_child(_booted)
    assert waits
    assert is_run
    assert count > 0
