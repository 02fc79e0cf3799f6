"""What is run once only because it would come out the same does come out the same when it is run each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from samples import sample

EXAMPLES = Path(__file__).parents[1] / "example_dags"
BESIDE = "beside.py"
"""One task sees what the death of another has left, and goes on without it."""
FILES = (*sample(("exchange_unsafe.py", "checkpoint_fixed.py"), 2), BESIDE)

BESIDE_SOURCE = """
import os
from airflow.sdk import dag, task

@dag(schedule=None)
def beside():
    @task
    def part():
        with open("/part", "w") as file:
            for number in range(2):
                file.write(f"{number}\\n")
                file.flush()

    @task
    def size():
        size = os.path.getsize("/part") if os.path.exists("/part") else -1
        with open("/size", "w") as file:
            file.write(str(size))

    @task
    def other():
        with open("/other", "w") as file:
            file.write("other")

    part(), size(), other()

beside()
"""

SCRIPT = """
import json, os, sys, traceback
from dataclasses import replace
from pathlib import Path

from pytest_rerunsafe.airflow.boot import boot
boot()  # before the checker forks: what is patched here is patched there
from pytest_rerunsafe.airflow.metadata import MetadataStore
from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.explore import deaths
from pytest_rerunsafe.explore.dag_processor import DagProcessor
from pytest_rerunsafe.explore.engine import Engine
from pytest_rerunsafe.explore.memo import Memo
from pytest_rerunsafe.report.json import to_transport
from pytest_rerunsafe.settings import Settings

def ask_each_time(store, question, function):
    with store.aside():
        return function()

MODES = {
    "usual": lambda: None,
    "asks": lambda: setattr(MetadataStore, "ask", ask_each_time),
    "jumps": lambda: setattr(Engine, "_arrive", lambda engine, dag_id, kind: False),
    "repeats": lambda: setattr(Memo, "repeat", lambda memo, key, answers: None),
    "parses": lambda: setattr(DagProcessor, "parsed", lambda *_: None),
    "settles": lambda: setattr(deaths, "_KNOWN_RESTS", 0),
}

def results(file):
    checker = Checker(settings=Settings(), rootdir=Path(file).parent, prepare=lambda file, dag, world: None)
    (dag,) = checker.load(file).dags
    found = [checker.run(dag, check) for check in checker.checks_of(dag)]
    checker.close()
    return [to_transport(replace(result, duration_s=0.0)) for result in found]

for file in sys.argv[1:]:
    for mode, patch in MODES.items():
        pid = os.fork()
        if pid == 0:
            try:
                patch()
                print("RESULT", json.dumps([Path(file).name, mode, results(file)]), flush=True)
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(pid, 0)
"""

Results = dict[tuple[str, str], list[str]]
"""Of all checks as text, by DAG file and what is not spared."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Airflow is imported once for all of them."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / BESIDE).write_text(BESIDE_SOURCE)
    files = [str((folder if file == BESIDE else EXAMPLES) / file) for file in FILES]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, *files],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("shortcuts"),
        env={"HOME": str(tmp_path_factory.mktemp("home")), "PATH": "/usr/bin:/bin"},
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT")]
    assert len(lines) == 6 * len(FILES), ran.stderr
    told = [json.loads(line.removeprefix("RESULT")) for line in lines]
    return {(file, mode): found for file, mode, found in told}


@pytest.mark.parametrize("shortcut", ["asks", "jumps", "repeats", "parses", "settles"])
@pytest.mark.parametrize("file", FILES)
def test_shortcuts_change_no_result(results: Results, file: str, shortcut: str) -> None:
    usual = results[file, "usual"]
    assert len(usual) >= 4
    assert results[file, shortcut] == usual
