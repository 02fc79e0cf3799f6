"""Random small programs, judged by a model that fits on a page and by us: both must say the same.

`python tests/test_against_model.py COUNT SEED` tries many more than the tests do.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from dag_projects import Project
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_rerunsafe.compare.differences import diff_outputs
from pytest_rerunsafe.compare.volatile import Volatility
from pytest_rerunsafe.explore.outputs import file_outputs
from pytest_rerunsafe.explore.points import explore
from pytest_rerunsafe.model import (
    Attempt,
    Effect,
    Files,
    Node,
    NodeKind,
    Outcome,
    Profile,
    Recording,
    Verdict,
    WorldState,
)
from pytest_rerunsafe.world.files import FileStore

Step = tuple[str, str, str]
"""What to do, to which file, and with what: a text, another file, a number of steps."""
Program = tuple[Step, ...]

NAMES = ("a", "b", "done")

RUN = """
def run(program, folder):
    skip = 0
    for what, name, other in program:
        path = f"{folder}/{name}"
        if skip:
            skip -= 1
        elif what == "write":
            with open(path, "w") as file:
                file.write(other)
        elif what == "append":
            with open(path, "a") as file:
                file.write(other)
        elif what == "rename" and os.path.exists(path):
            os.replace(path, f"{folder}/{other}")
        elif what == "remove" and os.path.exists(path):
            os.remove(path)
        elif what == "move":  # as `rename`, but fails if there is nothing
            os.rename(path, f"{folder}/{other}")
        elif what == "unless":
            skip = int(other) if os.path.exists(path) else 0
"""
"""The program as a task runs it."""
exec(RUN, globals())


# --- the model --------------------------------------------------------------------------------

State = dict[str, str]


def states(program: Program, files: State) -> Iterator[State]:
    """The files after each durable change, from the first on. Raises `FileNotFoundError` as the task would."""
    files = dict(files)
    yield dict(files)
    skip = 0
    for what, name, other in program:
        if skip:
            skip -= 1
            continue
        match what:
            case "write":
                files[name] = ""
                yield dict(files)
                files[name] = other
            case "append":
                files.setdefault(name, "")
                yield dict(files)
                files[name] += other
            case "rename" | "move":
                if name in files:
                    files[other] = files.pop(name)
                elif what == "move":
                    raise FileNotFoundError(name)
            case "remove":
                files.pop(name, None)
            case "unless":
                skip = int(other) if name in files else 0
        yield dict(files)


def is_safe(program: Program) -> bool | None:
    """Whether a rerun from every state ends as the clean run; None if that one fails."""
    try:
        seen = list(states(program, {}))
        return all(list(states(program, state))[-1] == seen[-1] for state in seen)
    except FileNotFoundError:
        try:
            list(states(program, {}))
        except FileNotFoundError:
            return None
        return False


# --- we, without Airflow ------------------------------------------------------------------------

NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)
FOLDER = "/data"
BEFORE: Files = {FOLDER: Node(kind=NodeKind.DIRECTORY, mode=0o755)}
STARTED = Effect(kind="state", target="running", rows=((("task_instance", 1), ("t", "running")),), attempt=0)
ENDED = replace(STARTED, target="success", rows=((("task_instance", 1), ("t", "success")),))
ATTEMPT = Attempt(
    run=("d", "r"), task_id="t", map_index=-1, try_number=1, started=NOW, state="success", may_retry=False
)


class Store:
    """The file store of a worker, and what the engine makes of what it records."""

    def __init__(self, project: Path) -> None:
        self._store = FileStore()
        self._store.start()
        self._store.mount(project, [])

    def rerun(self, program: Program, files: Files) -> tuple[Files, list[Effect]]:
        """What a program makes of some files, effect by effect."""
        effects: list[Effect] = []
        self._store.restore(files)
        self._store.begin(
            lambda kind, target, changes: effects.append(
                Effect(kind=kind, target=target, files=changes, attempt=0)
            ),
            lambda kind, path: None,
        )
        try:
            globals()["run"](program, FOLDER)
        finally:
            self._store.drop_open_files()
            self._store.end()
        return self._store.state, effects

    def is_safe(self, program: Program) -> bool:
        """Our verdict."""
        clean, effects = self.rerun(program, BEFORE)
        initial = WorldState(files=BEFORE, rows={}, clock=NOW)
        recording = Recording(
            initial=initial,
            effects=(STARTED, *effects, ENDED),
            final=replace(initial, files=clean),
            run=("d", "r"),
            outcome=Outcome(
                run_state="success", task_states={"t": "success"}, attempts=(ATTEMPT,), outputs={}
            ),
            situations={},
        )
        crashed = [state.world.files for state in explore(recording, 0, Profile.THOROUGH).states]
        return not any(self._differs(program, clean, files) for files in [*crashed, clean])

    def _differs(self, program: Program, clean: Files, files: Files) -> bool:
        try:
            again, _ = self.rerun(program, files)
        except FileNotFoundError:
            return True
        return bool(diff_outputs(file_outputs(clean), file_outputs(again), Volatility.none()))


def _serve(end: Any, project: Path) -> None:
    store = Store(project)
    while (program := end.recv()) is not None:
        end.send(store.is_safe(program))


class Judge:
    """Our verdicts, from one process that is forked once: nobody takes the patches of a store off again."""

    def __init__(self, project: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._end, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, project), daemon=True)
        self._process.start()

    def is_safe(self, program: Program) -> object:
        self._end.send(program)
        return self._end.recv()

    def close(self) -> None:
        self._end.send(None)
        self._process.join()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    made = Judge(tmp_path_factory.mktemp("project"))
    yield made
    made.close()


# --- programs -----------------------------------------------------------------------------------

names = st.sampled_from(NAMES)
STEPS = st.one_of(
    st.tuples(st.sampled_from(["write", "append"]), names, st.sampled_from(["x", "yy"])),
    st.tuples(st.sampled_from(["rename", "move"]), names, names),
    st.tuples(st.just("remove"), names, st.just("")),
    st.tuples(st.just("unless"), names, st.sampled_from(["1", "2", "9"])),
)


def random_program(chance: random.Random) -> Program:
    def step() -> Step:
        match what := chance.choice(["write", "append", "rename", "move", "remove", "unless", "unless"]):
            case "write" | "append":
                return what, chance.choice(NAMES), chance.choice(["x", "yy"])
            case "rename" | "move":
                return what, chance.choice(NAMES), chance.choice(NAMES)
            case "remove":
                return what, chance.choice(NAMES), ""
            case _:
                return what, chance.choice(NAMES), chance.choice(["1", "2", "9"])

    return tuple(step() for _ in range(chance.randint(1, 7)))


@settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(program=st.lists(STEPS, min_size=1, max_size=7).map(tuple))
def test_our_verdict_is_that_of_the_model(judge: Judge, program: Program) -> None:
    if (expected := is_safe(program)) is not None:
        assert judge.is_safe(program) is expected


@pytest.mark.parametrize("seed", range(6))
def test_so_it_is_of_a_dag(dags: Project, seed: int) -> None:
    wanted = seed % 2 == 0  # as many safe ones as others
    chance = random.Random(seed)
    programs = (random_program(chance) for _ in range(10_000))
    program = next(p for p in programs if len(p) > 3 and is_safe(p) is wanted and list(states(p, {}))[-1])
    source = f"""
import os
from datetime import datetime
from airflow.sdk import dag, task
{RUN}
@dag(start_date=datetime(2024, 1, 1))
def program_{seed}():
    @task
    def t():
        run({program!r}, "{FOLDER}")
    t()
program_{seed}()
"""
    verdicts = dags.check(f"program_{seed}", source, f"world.mkdir('{FOLDER}')")
    assert verdicts.worst is (Verdict.SAFE if wanted else Verdict.UNSAFE), program


def main(count: int, seed: int) -> None:
    chance = random.Random(seed)
    counts = {True: 0, False: 0}
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        while sum(counts.values()) < count:
            program = random_program(chance)
            if (expected := is_safe(program)) is None:
                continue
            counts[expected] += 1
            if (found := judge.is_safe(program)) is not expected:
                sys.stdout.write(f"the model says {expected}, we say {found}: {program}\n")
        judge.close()
    sys.stdout.write(f"{count} programs: {counts[True]} safe, {counts[False]} unsafe\n")


if __name__ == "__main__":
    os.chdir(Path(__file__).parent)
    main(*map(int, sys.argv[1:]))
