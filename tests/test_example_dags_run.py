"""The example DAGs are what they claim: killed at each file operation, only the fixed ones end clean."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samples import of_all

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "example_dags"

CHUNKS = [f"write_chunk_{number}" for number in range(1, 6)]
PIPELINE = ["extract", "transform", "load", "publish"]
TASKS = {
    "chunks_unsafe": CHUNKS,
    "chunks_fixed": CHUNKS,
    "checkpoint_unsafe": ["process"],
    "checkpoint_fixed": ["write_input", "process"],
    "items_unsafe": ["write_items"],
    "items_fixed": ["write_input", "write_items"],
    "orders_unsafe": PIPELINE,
    "orders_fixed": PIPELINE,
    "stock_unsafe": ["extract", "add_up"],
    "stock_fixed": ["extract", "add_up"],
}
FIXED = [name for name in TASKS if name.endswith("_fixed")]

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")

pytestmark = of_all  # it takes a minute

Report = dict[str, Any]
"""A `real_kills.DagReport` as JSON."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """What `real_kills` saw of each example, by the name of its file."""
    folder = tmp_path_factory.mktemp("examples")
    program = [sys.executable, str(TESTS / "real_kills.py"), str(folder)]
    files = [str(EXAMPLES / f"{name}.py") for name in TASKS]
    settings = {"AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [*program, *files], env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Report] = json.loads((folder / "report.json").read_text())
    return found


def masked(files: dict[str, str | None]) -> dict[str, str | None]:
    """The files without the ids and times that may differ."""
    return {
        name: None if content is None else STAMP.sub("<time>", UUID.sub("<id>", content))
        for name, content in files.items()
    }


def is_clean(outcome: dict[str, Any], report: Report) -> bool:
    return not outcome["error"] and masked(outcome["files"]) == masked(report["clean"])


def unclean(report: Report) -> list[dict[str, Any]]:
    return [outcome for outcome in report["outcomes"] if not is_clean(outcome, report)]


def stories(report: Report) -> set[tuple[str, str | None, str]]:
    """Task, last operation and rerun of what does not end clean."""
    return {(outcome["task_id"], outcome["killed_after"], outcome["rerun"]) for outcome in unclean(report)}


@pytest.mark.parametrize("name", TASKS)
def test_loads_with_its_tasks(reports: dict[str, Report], name: str) -> None:
    assert reports[name]["import_errors"] == []
    assert {dag_id: sorted(tasks) for dag_id, tasks in reports[name]["dags"].items()} == {
        name: sorted(TASKS[name])
    }


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *((name, []) for name in FIXED),
        ("chunks_unsafe", []),
        ("checkpoint_unsafe", ["checkpoint", "checkpoint/input.txt"]),
        ("items_unsafe", ["items", "items/input.json"]),
        ("orders_unsafe", []),
        ("stock_unsafe", []),
    ],
)
def test_loading_writes_only_where_that_is_the_bug(
    reports: dict[str, Report], name: str, written: list[str]
) -> None:
    assert sorted(reports[name]["parsed"]) == written


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_one_ends_clean_after_every_kill_and_every_clear(
    reports: dict[str, Report], name: str
) -> None:
    assert unclean(reports[name]) == []


def test_stock_ends_clean_too_as_long_as_one_day_alone_is_run(reports: dict[str, Report]) -> None:
    assert unclean(reports["stock_unsafe"]) == []


@pytest.mark.parametrize("name", FIXED)
def test_kills_come_before_every_operation_and_after_the_last(reports: dict[str, Report], name: str) -> None:
    for task_id in TASKS[name]:
        points = [
            outcome["killed_after"]
            for outcome in reports[name]["outcomes"]
            if outcome["task_id"] == task_id and outcome["killed_after"] and outcome["rerun"] == "task"
        ]
        assert points[0] == "nothing"
        assert points[-1].split()[0] in ("replace", "open")
        assert len(points) >= 4


def test_chunks_keep_the_empty_file_that_a_crash_left(reports: dict[str, Report]) -> None:
    report = reports["chunks_unsafe"]
    assert stories(report) == {
        (task_id, f"open chunks/{task_id.removeprefix('write_')}.json", rerun)
        for task_id in CHUNKS
        for rerun in ("task", "run")
    }
    for outcome in unclean(report):
        assert outcome["files"][f"chunks/{outcome['task_id'].removeprefix('write_')}.json"] == ""


def test_checkpoint_loses_every_line_that_was_announced_but_not_written(reports: dict[str, Report]) -> None:
    report = reports["checkpoint_unsafe"]
    clean = report["clean"]["checkpoint/output.txt"]
    assert clean == "".join(f"LINE {number}\n" for number in range(1, 9))
    results = [outcome["files"]["checkpoint/output.txt"] for outcome in unclean(report)]
    assert set(results) == {clean[len("LINE 1\n") * lines :] for lines in range(1, 9)}


def test_items_keep_the_empty_file_that_a_crash_left(reports: dict[str, Report]) -> None:
    report = reports["items_unsafe"]
    assert stories(report) == {
        ("write_items", f"open items/output/item_{number}.json", rerun)
        for number in range(1, 6)
        for rerun in ("task", "run")
    }
    assert all("" in outcome["files"].values() for outcome in unclean(report))


def ids_agree(files: dict[str, str]) -> bool:
    """Whether the ids in the items' files are those of the list."""
    listed = {item["name"]: item["id"] for item in json.loads(files["items/input.json"])}
    stems = {name: f"items/output/{name}.json" for name in listed}
    return all(json.loads(files[path])["id"] == listed[name] for name, path in stems.items())


def test_items_have_the_ids_of_the_list_only_if_a_task_made_it(reports: dict[str, Report]) -> None:
    assert all(ids_agree(outcome["files"]) for outcome in reports["items_fixed"]["outcomes"])
    assert not ids_agree(reports["items_unsafe"]["outcomes"][-1]["files"])


def _is_loaded_twice(outcome: dict[str, Any]) -> bool:
    rows = outcome["files"]["orders/warehouse/2024-01-01.csv"].splitlines()
    return len(rows) == 2 * len(set(rows))


def _is_announced_without_report(outcome: dict[str, Any]) -> bool:
    done, report = (f"orders/reports/2024-01-01.{suffix}" for suffix in ("done", "json"))
    return done in outcome["files"] and report not in outcome["files"]


@pytest.mark.parametrize(
    ("task_id", "killed_after", "rerun", "is_seen"),
    [
        ("load", "write orders/warehouse/2024-01-01.csv", "task", _is_loaded_twice),
        ("load", None, "alone", _is_loaded_twice),
        ("extract", None, "run", _is_loaded_twice),
        ("publish", "open orders/reports/2024-01-01.done", "task", _is_announced_without_report),
    ],
)
def test_orders_are_loaded_twice_and_announced_without_a_report(
    reports: dict[str, Report],
    task_id: str,
    killed_after: str | None,
    rerun: str,
    is_seen: Callable[[dict[str, Any]], bool],
) -> None:
    (outcome,) = [
        outcome
        for outcome in unclean(reports["orders_unsafe"])
        if (outcome["task_id"], outcome["killed_after"], outcome["rerun"]) == (task_id, killed_after, rerun)
    ]
    assert is_seen(outcome)
