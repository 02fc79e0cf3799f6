"""The same DAGs give the same report: again, in other processes, in another order, with other hashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import json, os, random, secrets, tempfile, time, uuid
from datetime import datetime
from pathlib import Path

from airflow.sdk import DAG, task

WORDS = ["north", "east", "south", "west", "up", "down"]
OUT = Path("out")
"""

SOURCES = {
    "safe": """
with DAG("safe"):
    @task
    def write():
        OUT.mkdir(exist_ok=True)
        draft = Path(tempfile.mkstemp(dir=OUT)[1])
        draft.write_text("\\n".join(sorted(set(WORDS))))
        os.replace(draft, OUT / "words.txt")
    write()
""",
    "unsafe": """
with DAG("unsafe"):
    @task
    def append(word):
        OUT.mkdir(exist_ok=True)
        with open(OUT / f"{word}.txt", "a") as file:
            file.write(word)
        return {word: len(word), "all": sorted(set(WORDS))}

    @task
    def gather(words):
        with open(OUT / "all.json", "w") as file:
            json.dump(words, file)

    gather([append.override(task_id=word)(word) for word in WORDS[:2]])
""",
    "volatile": """
with DAG("volatile"):
    @task
    def stamp():
        OUT.mkdir(exist_ok=True)
        record = {"id": str(uuid.uuid4()), "at": datetime.now().isoformat(), "time": time.time()}
        record["token"] = secrets.token_hex(8)
        for index in range(2):
            path = OUT / f"{index}.json"
            if not path.exists():
                with open(path, "w") as file:
                    json.dump({"index": index, **record}, file)
    stamp()
""",
    "random": """
with DAG("random"):
    @task
    def draw():
        OUT.mkdir(exist_ok=True)
        (OUT / f"{random.random()}.txt").write_text(str(random.sample(WORDS, 3)))
    draw()
""",
}
HASHED = """
with DAG("hashed"):
    @task
    def write():
        OUT.mkdir(exist_ok=True)
        for word in set(WORDS):
            with open(OUT / "words.txt", "a") as file:
                file.write(f"{word} {hash(word)}\\n")
    write()
"""


class Runs:
    """A project, and pytest run on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dags").mkdir()
        for name, source in {**SOURCES, "hashed": HASHED}.items():
            (root / "dags" / f"{name}.py").write_text(HEAD + source)

    def pytest(self, *options: str, seed: str) -> str:
        """What it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--rerun-safety", "-p", "no:cacheprovider", *options],
            cwd=self.root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
        )
        assert not done.stderr, done.stderr
        return done.stdout

    def report(self, *options: str, seed: str = "1") -> dict[str, Any]:
        """The JSON report of a run but for durations."""
        file = self.root / "report.json"
        printed = self.pytest(f"--rerun-safety-report=json:{file}", *options, seed=seed)
        assert file.exists(), printed
        found: dict[str, Any] = json.loads(file.read_text(), object_hook=_without_durations)
        file.unlink()
        return found


def _without_durations(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "duration_s"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("project").resolve())


@pytest.fixture(scope="module")
def first(runs: Runs) -> dict[str, Any]:
    return runs.report("dags")


def test_the_report_has_what_may_differ(first: dict[str, Any]) -> None:
    assert {dag["dag_id"]: dag["verdict"] for dag in first["dags"]} == {
        "safe": "safe",
        **dict.fromkeys(("hashed", "random", "unsafe", "volatile"), "unsafe"),
    }
    assert len({finding["rule"] for dag in first["dags"] for finding in dag["findings"]}) >= 3


def test_processes_order_and_hashes_do_not_matter(runs: Runs, first: dict[str, Any]) -> None:
    files = [f"dags/{name}.py" for name in sorted((*SOURCES, "hashed"), reverse=True)]
    assert runs.report(*files, "-n", "2", seed="2") == first


def test_a_single_check_finds_what_it_finds_among_the_others(runs: Runs, first: dict[str, Any]) -> None:
    (alone,) = runs.report("dags/unsafe.py::unsafe::crash.north")["dags"]
    (among,) = (dag for dag in first["dags"] if dag["dag_id"] == "unsafe")
    assert [check for check in among["checks"] if check["check"] == "crash.north"] == alone["checks"]
    assert alone["findings"]
    assert all(finding in among["findings"] for finding in alone["findings"])


def test_collecting_names_the_same_checks(runs: Runs, first: dict[str, Any]) -> None:
    lines = runs.pytest("--collect-only", "-q", "dags", seed="2").splitlines()
    assert sorted(line for line in lines if "::" in line) == sorted(
        f"{dag['file']}::{dag['dag_id']}::{check['check']}"
        for dag in first["dags"]
        for check in dag["checks"]
    )
