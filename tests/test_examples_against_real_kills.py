"""The states that a crash of the example DAGs is said to leave, against those that real kills leave on a real disk."""

from __future__ import annotations

import os
import pickle
import re
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from example_kills import Attempt, Play, Process, Trees
from pinned import is_pinned
from real_kills import redirect
from samples import of_all, sample
from test_example_pairs import reconstruct_one_effect_late
from watched_disk import Snapshot, put_on_disk

from pytest_rerunsafe.explore.jobs import REFERENCE, LoadJob, RecordJob
from pytest_rerunsafe.explore.messages import Answer, Done
from pytest_rerunsafe.explore.points import crash_points, explore, state_at
from pytest_rerunsafe.explore.pool import Pool
from pytest_rerunsafe.explore.zygote import Zygote
from pytest_rerunsafe.model import Files, LoadedFile, Profile, Recording
from pytest_rerunsafe.study import START_S
from pytest_rerunsafe.world import buffers

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not is_pinned(),
    reason="needs fork; what a kill leaves on a disk is no matter of Airflow's version, and README's count is about one",
)

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "example_dags"
CONFTEST = EXAMPLES / "conftest.py"
README = TESTS.parent / "README.md"
OF_MANY_KINDS = ("archive_fixed", "checkpoint_unsafe", "inbox_unsafe", "warehouse_fixed", "workspace_fixed")
"""They write packed and plain files, rename, commit, and make folders."""
NAMES = sorted(
    {*sample(sorted(path.stem for path in EXAMPLES.glob("*.py") if path != CONFTEST), 3), *OF_MANY_KINDS}
)

WRITE_NOTHING = {
    ("batch", "begin"): "it changes its process alone",
    ("drop", "wait_for_file"): "a sensor, which looks whether a file is there",
    ("exchange", "fetch_rate"): "it returns a number",
    ("first_load", "decide"): "it chooses a branch",
    ("newsletter", "deliver"): "it prints",
    (
        "newsletter",
        "send",
    ): "an operator of Airflow's own, which asks for a run; there is no function to call",
    ("quota", "take_off"): "it sets an Airflow Variable",
    ("rates", "fetch"): "it returns a dictionary",
}
"""Tasks of both of a pair that are not killed, for there is no file operation to be killed at."""
NOT_KILLED = {
    **{
        (f"{pair}_{kind}", t): why for (pair, t), why in WRITE_NOTHING.items() for kind in ("fixed", "unsafe")
    },
    ("batch_unsafe", "write"): "it fails before it writes: what the other task left is not in its process",
}
LISTED = [place for place in NOT_KILLED if place[0] in NAMES]

DRAWN = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}|\bc\d{3}\b|[a-z0-9]{5}_zq"
)
"""What the examples draw: a `uuid4`, a customer of `sample_unsafe`, or the name of a temporary folder."""


# --- as the plugin has it -----------------------------------------------------------------------


class Inputs:
    """The world of `pytest_rerun_safety_prepare`, with another folder for `/data`."""

    def __init__(self, world: Any, root: Path) -> None:
        self._world = world
        self._root = root
        world.mkdir(root)  # as on the real disk

    def write(self, path: str, content: str) -> None:
        self._world.write(path.replace("/data/", f"{self._root}/"), content)


def recordings(project: Path, root: Path) -> Iterator[Recording]:
    """The clean run of each example, with `root` for `/data`."""
    prepare = runpy.run_path(str(CONFTEST))["pytest_rerun_safety_prepare"]
    # A checker would start interpreters for other orders of sets too.
    zygote = Zygote.start(project, lambda file, dag, world: prepare(dag, Inputs(world, root)))
    pool = Pool(zygote, 1)
    try:
        for name in NAMES:
            yield recorded(pool, redirect(EXAMPLES / f"{name}.py", project, root))
    finally:
        pool.close()
        zygote.close()


def recorded(pool: Pool, dag_file: Path) -> Recording:
    """The clean run of the DAG that bears its file's name; others of the file run along."""
    file, folder = str(dag_file), str(dag_file.parent)
    loaded: LoadedFile = result(pool.run(file, [LoadJob(file=file, folder=folder)]))
    dags = {dag.dag_id: dag for dag in loaded.dags}
    dag = dags.pop(dag_file.stem)
    job = RecordJob(
        dag=dag,
        folder=folder,
        logical_date=dag.logical_date,
        delay_s=START_S,
        seed=REFERENCE,
        related=dict.fromkeys(dags, file),
    )
    recording: Recording = result(pool.run(file, [job]))
    return recording


def result(answers: list[Answer]) -> Any:
    (answer,) = answers
    assert isinstance(answer, Done), answer
    return answer.result


def reconstructed(recording: Recording, attempt: int) -> list[Files]:
    """The files of each crash point of an attempt, in order; a real write is not killed in its middle."""
    points = [point for point in crash_points(recording, attempt) if not point.is_torn]
    return [state_at(recording, point).world.files for point in points]


def tree_of(files: Files, root: Path) -> Snapshot:
    """What stands below a folder."""
    return {
        os.path.relpath(path, root): (node.kind.value, node.content, node.mode)
        for path, node in files.items()
        if path.startswith(f"{root}/")
    }


# --- on a real disk -----------------------------------------------------------------------------


def play_of(recording: Recording, name: str, project: Path, root: Path) -> Play:
    """What is to run for real: the attempts of a recording, by their clocks, with what they drew."""
    attempts = recording.outcome.attempts
    return Play(
        dag_file=project / f"{name}.py",
        dag_id=name,
        root=root,
        conftest=CONFTEST,
        dag_processor=Process(now=attempts[0].started, drawn=drawn(recording, None)),
        attempts=tuple(
            Attempt(
                dag_id=attempt.run[0],
                task_id=attempt.task_id,
                map_index=attempt.map_index,
                now=attempt.started,
                drawn=drawn(recording, number),
            )
            for number, attempt in enumerate(attempts)
        ),
    )


def drawn(recording: Recording, attempt: int | None) -> tuple[str, ...]:
    """What was drawn, as it shows in the files, in order."""
    effects = [effect for effect in recording.effects if effect.attempt == attempt]
    return tuple(dict.fromkeys(DRAWN.findall(repr([(effect.target, effect.files) for effect in effects]))))


def played_through(plays: list[Play], folder: Path) -> list[list[Trees | None]]:
    """What each attempt of each play left."""
    (folder / "plays").write_bytes(pickle.dumps(plays))
    settings = {"AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", "import example_kills; example_kills.main()", str(folder)],
        cwd=TESTS,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    trees: list[list[Trees | None]] = pickle.loads((folder / "trees").read_bytes())
    return trees


# --- both ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example DAG's run, recorded and played for real."""

    recording: Recording
    trees: list[Trees | None]
    root: Path
    scratch: Path

    def real(self, attempt: int) -> list[Snapshot]:
        """The distinct trees that a real attempt left, in order."""
        trees = self.trees[attempt]
        return [] if trees is None else self._distinct([*trees.killed, trees.ended])

    def ours(self, attempt: int) -> list[Snapshot]:
        """The distinct trees of its crash points, in order."""
        return self._distinct([tree_of(files, self.root) for files in reconstructed(self.recording, attempt)])

    def explored(self, attempt: int) -> list[Snapshot]:
        """The trees of the states that recoveries start from."""
        states = explore(self.recording, attempt, Profile.THOROUGH).states
        whole = [state.world.files for state in states if not state.point.is_torn]
        return [self._readable(tree_of(files, self.root)) for files in whole]

    def _distinct(self, trees: list[Snapshot]) -> list[Snapshot]:
        """Without those that equal the one before."""
        known = [self._readable(tree) for tree in trees]
        return [tree for before, tree in zip([None, *known], known, strict=False) if tree != before]

    def _readable(self, tree: Snapshot) -> Snapshot:
        """With what databases hold for who opens them next, in place of their bytes and journals."""
        databases = [name for name in tree if name.endswith(".db")]
        if not databases:
            return tree
        put_on_disk(self.scratch, tree)
        found = {name: entry for name, entry in tree.items() if not name.endswith(".db-journal")}
        for name in databases:
            with closing(sqlite3.connect(self.scratch / name)) as database:
                found[name] = ("database", "\n".join(database.iterdump()).encode(), tree[name][2])
        return found


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Example]:
    """All of them, by name."""
    folder = tmp_path_factory.mktemp("examples").resolve()
    project, root = folder / "project", folder / "disk" / "data"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffers, "BLOCK_SIZE", os.stat(folder).st_blksize)
        runs = list(recordings(project, root))
    plays = [play_of(recording, name, project, root) for name, recording in zip(NAMES, runs, strict=True)]
    played = played_through(plays, folder)
    return {
        name: Example(recording=recording, trees=trees, root=root, scratch=folder / "scratch")
        for name, recording, trees in zip(NAMES, runs, played, strict=True)
    }


def attempts_of(example: Example) -> list[int]:
    """Those that ran for real."""
    return [number for number, trees in enumerate(example.trees) if trees is not None]


def names(trees: list[Snapshot]) -> list[list[str]]:
    return [sorted(tree) for tree in trees]


@pytest.mark.parametrize("name", NAMES)
def test_each_kill_leaves_the_state_that_is_reconstructed(examples: dict[str, Example], name: str) -> None:
    example = examples[name]
    for attempt in attempts_of(example):
        assert names(example.ours(attempt)) == names(example.real(attempt))
        assert example.ours(attempt) == example.real(attempt)


@pytest.mark.parametrize("name", NAMES)
def test_recoveries_start_from_what_kills_leave_and_from_nothing_else(
    examples: dict[str, Example], name: str
) -> None:
    example = examples[name]
    for attempt in attempts_of(example):
        real, explored = example.real(attempt), example.explored(attempt)
        assert [tree for tree in real if tree not in explored] == []
        assert [tree for tree in explored if tree not in real] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_real_attempt_fails_where_the_recorded_one_does(examples: dict[str, Example], name: str) -> None:
    example = examples[name]
    states = [example.recording.outcome.attempts[number].state for number in attempts_of(example)]
    errors = [trees.error for trees in example.trees if trees is not None]
    assert [state != "success" for state in states] == [error != "" for error in errors], errors


def test_all_tasks_are_killed_but_those_listed(examples: dict[str, Example]) -> None:
    not_killed = {
        (name, attempt.task_id)
        for name, example in examples.items()
        for attempt, trees in zip(example.recording.outcome.attempts, example.trees, strict=True)
        if trees is None or not trees.killed
    }
    assert not_killed == set(LISTED)


@pytest.mark.parametrize(("name", "task_id"), LISTED)
def test_those_listed_have_no_states_but_one(examples: dict[str, Example], name: str, task_id: str) -> None:
    attempts = examples[name].recording.outcome.attempts
    (number,) = (number for number, attempt in enumerate(attempts) if attempt.task_id == task_id)
    assert len(examples[name].ours(number)) == 1


def test_a_reconstruction_that_is_one_effect_late_is_seen(
    examples: dict[str, Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    reconstruct_one_effect_late(monkeypatch)
    for name in OF_MANY_KINDS:
        assert examples[name].ours(0) != examples[name].real(0)


def counts(examples: dict[str, Example]) -> str:
    """README's sentence."""
    trees = [each for example in examples.values() for each in example.trees if each is not None]
    kills = sum(len(each.killed) for each in trees)
    return (
        f"All tasks of the {len(examples)} example DAGs that write files were killed on a real disk, "
        f"by {kills} SIGKILLs: each left the files that the checks start from."
    )


@of_all
def test_readme_has_the_count(examples: dict[str, Example]) -> None:
    assert counts(examples) in " ".join(README.read_text(encoding="utf-8").split())
