"""What is run once only because it would come out the same does come out the same when it is run each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "example_dags"

SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path

from pytest_rerunsafe.airflow.boot import boot
boot()  # before the checker forks: what is patched here is patched there
from pytest_rerunsafe.airflow.metadata import MetadataStore
from pytest_rerunsafe.explore.engine import Engine
from pytest_rerunsafe.explore.memo import Memo

def ask_each_time(store, question, function):
    with store.aside():
        return function()

MODES = {
    "asks": lambda: setattr(MetadataStore, "ask", ask_each_time),
    "jumps": lambda: setattr(Engine, "_arrive", lambda engine, dag_id, kind: False),
    "repeats": lambda: setattr(Memo, "repeat", lambda memo, key, answers: None),
}
for mode in sys.argv[2:]:
    MODES[mode]()

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.report.json import to_transport
from pytest_rerunsafe.settings import Settings

file = sys.argv[1]
checker = Checker(settings=Settings(), rootdir=Path(file).parent, prepare=lambda file, dag, world: None)
(dag,) = checker.load(file).dags
for check in checker.checks_of(dag):
    print("RESULT", to_transport(replace(checker.run(dag, check), duration_s=0.0)))
checker.close()
"""


def results(tmp_path: Path, file: str, *without: str) -> list[str]:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(EXAMPLES / file), *without],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    return [line for line in ran.stdout.splitlines() if line.startswith("RESULT")]


@pytest.mark.parametrize("file", ["orders_unsafe.py", "checkpoint_fixed.py"])
def test_shortcuts_change_no_result(tmp_path: Path, file: str) -> None:
    usual = results(tmp_path, file)
    assert len(usual) >= 4
    assert results(tmp_path, file, "asks") == usual
    assert results(tmp_path, file, "jumps") == usual
    assert results(tmp_path, file, "repeats") == usual
