"""One parse serves several attempts, and none of them can tell: each begins with what a parse of its own would give."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from dag_projects import Project
from forked import in_child

from pytest_rerunsafe.model import Verdict

TWO = """
    import os, random, time
    from datetime import datetime
    from airflow.sdk import Variable, dag, task
    {at_import}

    @dag(schedule=None)
    def {name}():
        @task
        def first():
            {first}

        @task
        def second():
            {second}

        first() >> second()

    {name}()
"""
"""`first` and `second` fail where their parse was not made for them."""

FRESH = {
    "list": ("SEEN = []", "assert not SEEN; SEEN.append(1)"),
    "class": ("class Seen: keys = set()", "assert not Seen.keys; Seen.keys.add(1)"),
    "default": ("def seen(keys={}): return keys", "assert not seen(); seen()[1] = 1"),
    "cache": (
        "from functools import cache; seen = cache(lambda: [])",
        "assert not seen(); seen().append(1)",
    ),
    "counter": ("from itertools import count; NUMBERS = count()", "assert next(NUMBERS) == 0"),
    "random": (
        "RANDOM = random.Random(7)",
        "assert RANDOM.randrange(10**9) == random.Random(7).randrange(10**9)",
    ),
    "environment": ("os.environ['MODE'] = 'x'", "assert os.environ.pop('MODE') == 'x'"),
    "folder": ("os.chdir('/tmp')", "assert os.getcwd() == '/tmp'; os.chdir('/')"),
    "logger": (
        "import logging; logging.getLogger('fresh').setLevel(7)",
        "assert logging.getLogger('fresh').level == 7; logging.getLogger('fresh').setLevel(8)",
    ),
    "operator": (
        "from airflow.sdk import get_current_context",
        "task = get_current_context()['ti'].task; assert not hasattr(task.dag, 'seen'); task.dag.seen = 1",
    ),
    "replaced": ("import fresh_self", "assert not fresh_self.keys; fresh_self.keys.append(1)"),
    "helper": ("import fresh_seen", "assert not fresh_seen.SEEN; fresh_seen.SEEN.append(1)"),
}


@pytest.mark.parametrize("case", FRESH)
def test_no_attempt_finds_in_memory_what_another_has_left(dags: Project, case: str) -> None:
    at_import, use = FRESH[case]
    dags.write("fresh_seen", "SEEN = []")
    dags.write("fresh_self", "import sys\nclass Seen: keys = []\nsys.modules[__name__] = Seen()")
    source = TWO.format(name=f"fresh_{case}", at_import=at_import, first=use, second=use)
    found = dags.check(f"fresh_{case}", source)["clean"]
    assert found.verdict is not Verdict.ERROR, found.reason


ANEW = {
    "clock": ("NOW = datetime.now()", "pass", "assert (datetime.now() - NOW).total_seconds() < 1"),
    "monotonic": ("NOW = time.monotonic()", "pass", "assert time.monotonic() - NOW < 1"),
    "file": (
        "MODE = open('/mode').read() if os.path.exists('/mode') else ''",
        "open('/mode', 'w').write('x')",
        "assert MODE == 'x'",
    ),
    "names": (
        "NAMES = os.listdir('/in') if os.path.isdir('/in') else []",
        "os.makedirs('/in/a')",
        "assert NAMES == ['a']",
    ),
    "variable": ("MODE = Variable.get('mode', '')", "Variable.set('mode', 'x')", "assert MODE == 'x'"),
    "project": (
        "MODE = open(os.path.dirname(__file__) + '/anew_mode.txt').read()",
        "open(os.path.dirname(__file__) + '/anew_mode.txt', 'w').write('x')",
        "assert MODE == 'x'",
    ),
}


@pytest.mark.parametrize("case", ANEW)
def test_a_parse_that_would_come_out_otherwise_is_made_anew(dags: Project, case: str) -> None:
    at_import, first, second = ANEW[case]
    (dags.root / "dags").mkdir(exist_ok=True)
    (dags.root / "dags" / "anew_mode.txt").write_text("")
    source = TWO.format(name=f"anew_{case}", at_import=at_import, first=first, second=second)
    found = dags.check(f"anew_{case}", source)["clean"]
    assert found.verdict is not Verdict.ERROR, found.reason


def test_draws_at_import_are_each_attempts_own(dags: Project) -> None:
    write = "open('/draws', 'a').write(f'{DRAW}\\n')"
    check = f"{write}; assert len(set(open('/draws'))) == 2"
    source = TWO.format(name="own_draws", at_import="DRAW = random.random()", first=write, second=check)
    found = dags.check("own_draws", source)["clean"]
    assert found.verdict is not Verdict.ERROR, found.reason


def test_a_file_that_ends_its_process_once_it_has_run_fails_the_rerun(dags: Project) -> None:
    at_import = "if os.path.exists('/done'): os._exit(3)"
    source = TWO.format(name="exits", at_import=at_import, first="pass", second="open('/done', 'w').close()")
    found = dags.check("exits", source)
    assert found["clean"].verdict is Verdict.SAFE
    assert {str(finding.rule) for finding in found["rerun"].findings} == {"rerun-fails"}


PLAIN = """
    from airflow.sdk import dag, task

    print("parsed")

    @dag(schedule=None)
    def plain():
        @task
        def load():
            print("runs")

        load()

    plain()
"""


def test_a_plain_file_is_parsed_once(dags: Project) -> None:
    file = dags.write("plain", PLAIN)
    assert in_child(lambda: _parses(dags.root, file)) == (True, True)


def _parses(root: Path, file: str) -> tuple[bool, bool]:
    """Whether a parse serves two attempts, and whether it no longer does once other code has run."""
    from pytest_rerunsafe.airflow.boot import boot

    gc.callbacks.clear()  # as in a process that has left pytest
    boot()
    from pytest_rerunsafe.explore.engine import Engine

    engine: Any = Engine(root, lambda file, dag, world: None)
    engine.warm_up()
    processor, sandbox = engine.processes.dag_processor, engine.sandbox
    processor.parse_first(file, os.path.dirname(file), "")  # so that libraries are loaded
    first = processor.parsed(file, os.path.dirname(file), False)
    sandbox.has_run = True
    second = processor.parsed(file, os.path.dirname(file), False)
    sandbox.forget()
    third = processor.parsed(file, os.path.dirname(file), False)
    return first is not None and first is second, third is not first
