"""The example DAGs that Airflow ships run here as with `dag.test()`: states, tries and XComs are the same, or it says why not.

Both start at the same time of the same logical date. Left out of the comparison are the run's id, which each names its own
way, and times of day in XComs, which depend on how long tasks took.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from dag_test_runs import Ended, Report, Wanted

from pytest_rerunsafe.explore.jobs import FindJob, LoadJob, RecordJob
from pytest_rerunsafe.explore.messages import Done, Failed, Lost
from pytest_rerunsafe.explore.pool import Pool
from pytest_rerunsafe.explore.zygote import Zygote
from pytest_rerunsafe.model import DagInfo, LoadedFile, Recording
from pytest_rerunsafe.study import START_S

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"
FOLDERS = ("example_dags", "providers/standard/example_dags")
PLUGINS = """
from airflow.example_dags.plugins.decreasing_priority_weight_strategy import *
from airflow.example_dags.plugins.workday import *
"""

LEFT_OUT: dict[str, set[str]] = {}
"""DAGs that are not compared, by what our reason for that says."""

DIFFERENT: dict[str, tuple[str, str]] = {}
"""DAGs that end in another way, with what differs, and why ours is right."""


@dataclass(frozen=True, kw_only=True)
class Ours:
    """What we make of a DAG."""

    dag: DagInfo
    recording: Recording | None = None
    why_not: str = ""
    """Why there is nothing to compare; empty if there is."""

    def wanted(self) -> Wanted:
        """The same for `dag.test()`."""
        assert self.recording is not None
        attempts = self.recording.outcome.attempts
        return Wanted(
            file=self.dag.file,
            dag_id=self.dag.dag_id,
            logical_date=self.dag.logical_date.isoformat(),
            now=(attempts[0].started if attempts else self.dag.logical_date).isoformat(),
        )

    def ended(self, columns: list[str]) -> Ended:
        """How it ended, in the words of the other side."""
        assert self.recording is not None
        outcome = self.recording.outcome
        rows = [row for (table, _), row in self.recording.final.rows.items() if table == "task_instance"]
        tasks = [dict(zip(columns, row, strict=True)) for row in rows]
        mine = [task for task in tasks if task["dag_id"] == self.dag.dag_id]
        return Ended(
            run_state=outcome.run_state,
            run_id=str(mine[0]["run_id"]),
            states=dict(outcome.task_states),
            tries={_name(task): task["try_number"] for task in mine},  # type: ignore[misc]
            xcoms={
                name.removeprefix("xcom:"): output.content.decode()
                for name, output in outcome.outputs.items()
                if name.startswith("xcom:")
            },
        )


def _name(task: dict[str, Any]) -> str:
    return str(task["task_id"]) + ("" if task["map_index"] < 0 else f"[{task['map_index']}]")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All example DAGs."""

    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by DAG id, or by file if that does not load."""
    differences: dict[str, list[str]] = field(default_factory=dict)
    """By DAG id; empty for those that are equal."""


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comparison]:
    """All example DAGs, run by both sides."""
    root = tmp_path_factory.mktemp("examples").resolve()
    (root / "plugins").mkdir()
    (root / "plugins" / "examples.py").write_text(PLUGINS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__PLUGINS_FOLDER", str(root / "plugins"))
        broken, ours = run_ours(root)
        compared = [mine for mine in ours if not mine.why_not]
        report = run_theirs(root, [mine.wanted() for mine in compared])
    yield Comparison(
        left_out=broken | {mine.dag.dag_id: mine.why_not for mine in ours if mine.why_not},
        differences={
            mine.dag.dag_id: differing(mine.ended(report["columns"]), report["ended"][mine.dag.dag_id])
            for mine in compared
        },
    )


def run_ours(root: Path) -> tuple[dict[str, str], list[Ours]]:
    """Files that do not load, with the reason, and what we make of each DAG."""
    spec = find_spec("airflow")
    assert spec is not None
    assert spec.submodule_search_locations
    places = [Path(place) for place in spec.submodule_search_locations]
    folders = tuple(str(place / folder) for place in places for folder in FOLDERS)
    zygote = Zygote.start(root, lambda file, dag, world: None)
    try:
        (found,) = _ask(zygote, FindJob(paths=folders))
        broken: dict[str, str] = {}
        ours: list[Ours] = []
        for file in found.result:
            loaded, recorded = _run_file(zygote, file)
            if loaded.error:
                broken[Path(file).name] = loaded.error
            ours += recorded
        return broken, ours
    finally:
        zygote.close()


def _ask(zygote: Zygote, *jobs: Any) -> list[Any]:
    pool = Pool(zygote, 2)
    try:
        return pool.run(jobs)
    finally:
        pool.close()


def _run_file(zygote: Zygote, file: str) -> tuple[LoadedFile, list[Ours]]:
    folder = os.path.dirname(file)
    (answer,) = _ask(zygote, LoadJob(file=file, folder=folder))
    assert isinstance(answer, Done), answer
    loaded: LoadedFile = answer.result
    jobs = [
        RecordJob(
            dag=dag, folder=folder, logical_date=dag.logical_date, delay_s=START_S, seed="", prepares=False
        )
        for dag in loaded.dags
    ]
    return loaded, [
        _ours(dag, answer) for dag, answer in zip(loaded.dags, _ask(zygote, *jobs), strict=True)
    ]


def _ours(dag: DagInfo, answer: Done | Failed | Lost) -> Ours:
    match answer:
        case Done(Recording() as recording):
            obstacles = recording.outcome.obstacles
            return Ours(dag=dag, recording=recording, why_not=obstacles[0].what if obstacles else "")
        case Failed(reason):
            return Ours(dag=dag, why_not=reason)
        case Lost(obstacle):
            return Ours(dag=dag, why_not=obstacle.what)
        case _:
            raise AssertionError(answer)


def run_theirs(root: Path, wanted: list[Wanted]) -> Report:
    """The same DAGs by `dag.test()`, in a process and with a metadata database of its own."""
    home = root / "home"
    home.mkdir()
    (home / "wanted.json").write_text(json.dumps(wanted))
    program = [sys.executable, str(TESTS / "dag_test_runs.py"), "wanted.json", "ended.json"]
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    with (home / "log").open("w") as log:
        done = subprocess.run(
            program, env={**os.environ, **settings}, cwd=home, stdout=log, stderr=log, check=False
        )
    assert done.returncode == 0, (home / "log").read_text()[-5000:]
    report: Report = json.loads((home / "ended.json").read_text())
    return report


# --- the comparison -------------------------------------------------------------------------------

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d+(?:\+00:00|Z)?")
"""With a fraction of a second: a logical date has none."""


def differing(ours: Ended, theirs: Ended) -> list[str]:
    """What is not the same, a line each, sorted."""
    pairs = {
        "run": ({"state": ours["run_state"]}, {"state": theirs["run_state"]}),
        "state": (ours["states"], theirs["states"]),
        "try": (ours["tries"], theirs["tries"]),
        "xcom": (_comparable(ours), _comparable(theirs)),
    }
    return [
        f"{kind} {name}: {mine.get(name)} here, {other.get(name)} there"
        for kind, (mine, other) in pairs.items()
        for name in sorted({*mine, *other})
        if mine.get(name) != other.get(name)
    ]


def _comparable(ended: Ended) -> dict[str, str]:
    return {
        name: TIME.sub("<time>", value.replace(ended["run_id"], "<run>"))
        for name, value in ended["xcoms"].items()
    }


# --- tests ----------------------------------------------------------------------------------------


def test_what_is_left_out_is_listed_with_its_reason(comparison: Comparison) -> None:
    reasons = {name: reason for reason, names in LEFT_OUT.items() for name in names}
    unlisted = {n: why for n, why in comparison.left_out.items() if reasons.get(n, "not listed") not in why}
    assert unlisted == {}
    assert [name for name in comparison.differences if name in reasons] == [], "listed, but they run"


def test_all_others_end_as_with_dag_test(comparison: Comparison) -> None:
    assert {n: found for n, found in comparison.differences.items() if found and n not in DIFFERENT} == {}


def test_what_differs_is_what_is_listed(comparison: Comparison) -> None:
    listed = {name: comparison.differences.get(name) for name in DIFFERENT if name in comparison.differences}
    assert [name for name, found in listed.items() if not found] == [], "listed as different but equal"
    assert {n: found for n, found in listed.items() if DIFFERENT[n][0] not in "\n".join(found or [])} == {}


def counts(comparison: Comparison) -> str:
    """README's sentence."""
    different = sum(1 for found in comparison.differences.values() if found)
    equal = len(comparison.differences) - different
    total = len(comparison.differences) + len(comparison.left_out)
    return f"Of the {total} example DAGs {equal} end as with `dag.test()`, {different} differ, {len(comparison.left_out)} are left out"


def test_readme_has_the_count(comparison: Comparison) -> None:
    pins = (TESTS.parent / "constraints.txt").read_text()
    for package in ("apache-airflow-core", "apache-airflow-providers-standard"):
        if f"\n{package}=={version(package)}" not in pins:
            pytest.skip(f"README counts the DAGs of another {package}")
    assert counts(comparison) in " ".join(README.read_text().split())
