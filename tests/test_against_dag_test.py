"""The example DAGs that Airflow ships run here as with `dag.test()`: states, tries and XComs are the same, or it says why not.

Both start at the same time of the same logical date. Left out of the comparison are the run's id, which each names its own
way, times of day in XComs, which depend on how long tasks took, and the order of a set.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflows_examples import CANNOT_BE_SEEN, example_folders, write_plugins
from dag_test_runs import Ended, Report, Wanted
from pinned import is_pinned
from samples import IS_WHOLE, of_all, sample

from pytest_rerunsafe.explore.jobs import FindJob, LoadJob, RecordJob
from pytest_rerunsafe.explore.messages import Done, Failed, Lost
from pytest_rerunsafe.explore.pool import Pool
from pytest_rerunsafe.explore.zygote import Zygote
from pytest_rerunsafe.model import DagInfo, LoadedFile, Recording
from pytest_rerunsafe.study import START_S

TESTS = Path(__file__).parent
README = TESTS.parent / "README.md"

LEFT_OUT: dict[str, tuple[str, ...]] = {
    **CANNOT_BE_SEEN,
    # Which branch they take is drawn, and some start a process.
    "starting the process": (
        *CANNOT_BE_SEEN["starting the process"],
        "example_branch_operator",
        "example_branch_python_operator_decorator",
    ),
    # A person must fill in the parameters of the run.
    "No value passed": ("example_params_ui_tutorial",),
    # Here each file is run for itself.
    "which no file of the DAGs folder gives": (
        "example_external_task",
        "example_trigger_controller_dag",
    ),
}
"""DAGs that are not compared, by what our reason for that says."""

CHANCE = "The task draws a random number."
OTHER_NAME = (
    "Another example gives the asset's URI to an asset of another name. Airflow keeps one of the two inactive and fails "
    "tasks with the other; here each file is run for itself."
)
DIFFERENT: dict[str, tuple[str, str]] = {
    "example_external_task_marker_parent": (
        "xcom parent_task/_link_ExternalDagLink: None here",
        "An ExternalTaskMarker is an EmptyOperator: the scheduler marks it as a success and gives it to no worker "
        "(`DagRun.schedule_tis`). `dag.test()` runs it, and that pushes the operator's links.",
    ),
    "asset_with_extra_by_context": ("run state: success here, failed there", OTHER_NAME),
    "asset_with_extra_by_yield": ("run state: success here, failed there", OTHER_NAME),
    "example_external_task_marker_child": (
        "state child_task1: success here, failed there",
        "Its sensor waits for a run of the parent, which a deployment has by then, and which is made here.",
    ),
    "example_asset_state_store_producer": ("xcom load/return_value", CHANCE),
    "example_task_state_store": ("xcom run_job/return_value", CHANCE),
    "example_task_state_store_mapped": ("xcom process_table[0]/return_value", CHANCE),
}
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
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Example DAGs, run by both sides."""
    root = tmp_path_factory.mktemp("examples").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__PLUGINS_FOLDER", str(write_plugins(root)))
        broken, ours = run_ours(root)
        compared = [mine for mine in ours if not mine.why_not]
        report = run_theirs(root, [mine.wanted() for mine in compared])
    return Comparison(
        left_out=broken | {mine.dag.dag_id: mine.why_not for mine in ours if mine.why_not},
        differences={
            mine.dag.dag_id: differing(mine.ended(report["columns"]), report["ended"][mine.dag.dag_id])
            for mine in compared
        },
    )


def run_ours(root: Path) -> tuple[dict[str, str], list[Ours]]:
    """Files that do not load, with the reason, and what we make of each DAG."""
    zygote = Zygote.start(root, lambda file, dag, world: None)
    try:
        (found,) = _ask(zygote, FindJob(paths=tuple(map(str, example_folders()))))
        broken: dict[str, str] = {}
        ours: list[Ours] = []
        for file in sample(found.result, 8):
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
        return pool.run("", jobs)
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
    return loaded, [_ours(dag, answer) for dag, answer in zip(loaded.dags, _ask(zygote, *jobs), strict=True)]


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
    pairs: dict[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
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
        name: _in_order(name, TIME.sub("<time>", value.replace(ended["run_id"], "<run>")))
        for name, value in ended["xcoms"].items()
    }


def _in_order(name: str, value: str) -> str:
    """A branch notes the tasks that it chose in the order of a set."""
    if not name.endswith("/skipmixin_key"):
        return value
    return json.dumps({decision: sorted(tasks) for decision, tasks in json.loads(value).items()})


# --- tests ----------------------------------------------------------------------------------------


def test_what_is_left_out_is_listed_with_its_reason(comparison: Comparison) -> None:
    reasons = {
        name: reason
        for reason, names in LEFT_OUT.items()
        for name in names
        if IS_WHOLE or name in {*comparison.left_out, *comparison.differences}
    }
    found = {name: reason_of(why) for name, why in comparison.left_out.items()}
    assert [comparison.left_out[name] for name in found if not found[name]] == [], (
        "reasons that are not listed"
    )
    if is_pinned():  # other versions ship other examples
        assert found == reasons, "listed and run, or the other way round"


def reason_of(why: str) -> str:
    """The listed reason that it is; empty if it is none of them."""
    return next((reason for reason in LEFT_OUT if reason in why), "")


def test_all_others_end_as_with_dag_test(comparison: Comparison) -> None:
    assert {n: found for n, found in comparison.differences.items() if found and n not in DIFFERENT} == {}


def test_what_differs_is_what_is_listed(comparison: Comparison) -> None:
    listed = {name: comparison.differences.get(name) for name in DIFFERENT if name in comparison.differences}
    assert [name for name, found in listed.items() if not found] == [], "listed as different but equal"
    assert {n: found for n, found in listed.items() if DIFFERENT[n][0] not in "\n".join(found or [])} == {}


def test_nothing_that_differs_goes_unseen() -> None:
    ours = Ended(
        run_state="success",
        run_id="this",
        states={"a": "success"},
        tries={"a": 1},
        xcoms={"a/time": '"this 2024-01-01T00:00:00.5+00:00"', "a/skipmixin_key": '{"skipped": ["c", "b"]}'},
    )
    xcoms = {"a/time": '"that 2024-01-01T09:09:09.1+00:00"', "a/skipmixin_key": '{"skipped": ["b", "c"]}'}
    same = Ended(run_state="success", run_id="that", states={"a": "success"}, tries={"a": 1}, xcoms=xcoms)
    assert differing(ours, same) == []
    assert differing(ours, {**same, "run_state": "failed"}) == ["run state: success here, failed there"]
    assert differing(ours, {**same, "states": {}}) == ["state a: success here, None there"]
    assert differing(ours, {**same, "tries": {"a": 2}}) == ["try a: 1 here, 2 there"]
    for key, changed in {"a/time": '"another"', "a/skipmixin_key": '{"skipped": ["b"]}'}.items():
        assert len(differing(ours, {**same, "xcoms": {**xcoms, key: changed}})) == 1


def counts(comparison: Comparison) -> str:
    """README's sentence."""
    different = sum(1 for found in comparison.differences.values() if found)
    equal = len(comparison.differences) - different
    left_out = len(comparison.left_out)
    return (
        f"Of the {equal + different + left_out} example DAGs that Airflow and its standard provider ship, "
        f"{equal} end as with `dag.test()` (task states, tries, XComs), {different} end otherwise for a reason "
        f"that is listed, and {left_out} cannot run here, each with its reason."
    )


@of_all
def test_readme_has_the_count(comparison: Comparison) -> None:
    if not is_pinned():
        pytest.skip("README counts the examples of other versions")
    assert counts(comparison) in " ".join(README.read_text().split())
