"""How fast the checks are, measured in one run beside what a user would do today and beside the least possible.

    python benchmarks/speed.py --json speed.json            the three figures per scenario
    python benchmarks/speed.py --json speed.json --table    and where our time goes
    python benchmarks/speed.py --json speed.json --whole    and whole runs of pytest
    python benchmarks/speed.py --json speed.json --readme   all of it, and README's table is rewritten

(a) naive: for each scenario `dag.test()` with an injected failure, and `dag.test()` again.
(b) ours: all checks of the DAG, its clean runs included.
(c) floor: fork and wait of the process that our workers are forked from.

The three take turns. Nobody's imports and start count, all are warmed up once, and the median turn is told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.settings import Settings

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EXAMPLES = ROOT / "example_dags"
FIVE_TASKS = EXAMPLES / "chunks_fixed.py"
ALL_KINDS = HERE / "kinds_dag.py"
README = ROOT / "README.md"

TURNS = 3
NAIVE_PER_TURN = 7
FORKS_PER_TURN = 150
BEST_OF = 3
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"

Figures = dict[str, float]


# --- the three sides --------------------------------------------------------------------------


class Child:
    """A process that does as many as it is told of what it can do."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env=_without_airflow_settings(),
        )
        self._hear("ready")

    def seconds_for(self, count: int) -> float:
        """The wall-clock time of that many."""
        assert self._process.stdin is not None
        began = time.perf_counter()
        print(count, file=self._process.stdin, flush=True)
        self._hear("done")
        return time.perf_counter() - began

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        heard = self._process.stdout.readline().strip()
        if heard != word:
            raise SystemExit(f"{self._command} said {heard!r}, not {word!r}: run it by hand to see why")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _without_airflow_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}


@dataclass(frozen=True, slots=True, kw_only=True)
class OurTurn:
    """All checks of a DAG, once."""

    scenarios: int
    seconds: Mapping[str, float]
    """Of the check `clean`, and of all `trials` of the others, which pytest-rerunsafe tries together."""

    @property
    def ms(self) -> float:
        """Per scenario."""
        return 1000 * sum(self.seconds.values()) / self.scenarios


def our_turn(file: Path) -> OurTurn:
    """Check a DAG from the start, with processes of its own."""
    checker = Checker(settings=Settings(), rootdir=ROOT, prepare=lambda file, dag, world: None)
    try:
        (dag,) = checker.load(str(file)).dags
        seconds = {"clean": 0.0, "trials": 0.0}
        scenarios = 0
        checks = checker.checks_of(dag)
        for check in checks:
            result = checker.run(dag, check, checks)
            if result.verdict != "safe":
                raise SystemExit(f"{file.name}: {check} is {result.verdict}: {result.reason}")
            seconds["clean" if check == "clean" else "trials"] += result.duration_s
            scenarios += result.coverage.recoveries
    finally:
        checker.close()
    return OurTurn(scenarios=scenarios, seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of each side, in milliseconds per scenario or fork."""

    naive_ms: float
    floor_ms: float
    ours: OurTurn


def turns(count: int) -> Iterator[Turn]:
    """Turns after a warm-up."""
    with ExitStack() as stack:
        naive, floor = Child(str(HERE / "naive.py"), str(FIVE_TASKS)), Child(str(HERE / "floor.py"))
        stack.callback(naive.close)
        stack.callback(floor.close)
        naive.seconds_for(2)
        floor.seconds_for(FORKS_PER_TURN)
        our_turn(FIVE_TASKS)
        for _ in range(count):
            yield Turn(
                naive_ms=1000 * naive.seconds_for(NAIVE_PER_TURN) / NAIVE_PER_TURN,
                floor_ms=1000 * floor.seconds_for(FORKS_PER_TURN) / FORKS_PER_TURN,
                ours=our_turn(FIVE_TASKS),
            )


def figures_of(measured: Sequence[Turn]) -> Figures:
    """The medians and what follows from them."""
    naive = median(turn.naive_ms for turn in measured)
    floor = median(turn.floor_ms for turn in measured)
    ours = median(turn.ours.ms for turn in measured)
    return {
        "naive_ms_per_scenario": naive,
        "ours_ms_per_scenario": ours,
        "floor_ms": floor,
        "ratio": naive / ours,
        "over_floor": ours / floor,
        "scenarios": measured[0].ours.scenarios,
        "naive_scenarios": NAIVE_PER_TURN * len(measured),
        "turns": len(measured),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "clean_ms_per_scenario": median(_part(turn, "clean") for turn in measured),
        "trials_ms_per_scenario": median(_part(turn, "trials") for turn in measured),
    }


def _part(turn: Turn, part: str) -> float:
    return 1000 * turn.ours.seconds[part] / turn.ours.scenarios


def where_it_goes() -> dict[str, float]:
    """Our functions with their shares of the time of (b), run in one process."""
    done = _run([str(HERE / "where.py"), str(FIVE_TASKS)], cwd=ROOT)
    shares: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return shares


def by_kind() -> Figures:
    """Milliseconds of processor time per scenario, by kind of crash; a DAG that each kind can befall, in one process."""
    done = _run([str(HERE / "kinds.py"), str(ALL_KINDS)], cwd=ROOT)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return {f"kind_{kind}_ms": ms for kind, ms in found.items()}


# --- whole runs -------------------------------------------------------------------------------

LOAD = """
import sys
import airflow
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert len(bag.dags) == int(sys.argv[2]) and not bag.import_errors, (bag.dags, bag.import_errors)
"""


def whole_runs() -> Figures:
    """`pytest --rerun-safety example_dags/` beside importing Airflow and loading the same DagBag, and the long loop."""
    with tempfile.TemporaryDirectory(prefix="rerunsafe-speed-") as name:
        folder = Path(name)
        load_s = _best(_loading(folder))
        pytest_s = _seconds(_checking(folder))  # it takes minutes: once is enough
        return {
            "load_s": load_s,
            "pytest_s": pytest_s,
            "pytest_over_load": pytest_s / load_s,
            **_long_loop(folder),
        }


def _best(action: Callable[[], object]) -> float:
    return min(_seconds(action) for _ in range(BEST_OF))


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _loading(folder: Path) -> Callable[[], object]:
    """Some of the examples write files when they are loaded: a copy of them writes elsewhere."""
    copies = folder / "dags"
    shutil.copytree(EXAMPLES, copies, ignore=shutil.ignore_patterns("__pycache__"))
    files = sorted(copies.glob("*.py"))
    for file in files:
        file.write_text(file.read_text().replace('"/data/', f'"{folder}/data/'))
    settings = {"AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    return lambda: _run(["-c", LOAD, str(copies), str(len(files))], cwd=folder, environment=settings)


def _checking(folder: Path) -> Callable[[], object]:
    report = folder / "whole.json"
    command = ["-m", "pytest", "-q", "--rerun-safety", f"--rerun-safety-report=json:{report}", "example_dags"]
    return lambda: _run([*command, "-p", "no:cacheprovider"], cwd=ROOT, expected=(1,))


def _long_loop(folder: Path) -> Figures:
    project = folder / "loop"
    project.mkdir()
    shutil.copy(HERE / "loop_dag.py", project)
    command = ["-m", "pytest", "-q", "--rerun-safety", "--rerun-safety-report=json:loop.json", "loop_dag.py"]
    seconds = _seconds(lambda: _run(command, cwd=project, expected=(0, 1)))
    (dag,) = json.loads((project / "loop.json").read_text())["dags"]
    if dag["verdict"] not in ("safe", "unsafe"):
        raise SystemExit(f"The long loop is {dag['verdict']}: {dag['reason']}")
    coverage = dag["coverage"]
    return {
        "loop_s": seconds,
        "loop_crash_points": coverage["crash_points"],
        "loop_states": coverage["distinct_states"],
        "loop_scenarios": coverage["recoveries"],
    }


def _run(
    command: Sequence[str],
    *,
    cwd: Path,
    expected: Sequence[int] = (0,),
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**_without_airflow_settings(), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in expected:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


# --- telling ----------------------------------------------------------------------------------


def rows_of(figures: Figures) -> list[tuple[str, str]]:
    """What the table says, in the order in which it is read."""
    rows = [
        ("`dag.test()` with a failure, and again", f"{figures['naive_ms_per_scenario']:.0f} ms per scenario"),
        (
            f"pytest-rerunsafe, {figures['scenarios']:.0f} scenarios on {figures['cores']:.0f} cores",
            f"{figures['ours_ms_per_scenario']:.1f} ms per scenario",
        ),
        ("fork and wait of the same process", f"{figures['floor_ms']:.1f} ms"),
        ("so it is faster by a factor of", f"{figures['ratio']:.0f}"),
        ("and above the fork by a factor of", f"{figures['over_floor']:.1f}"),
    ]
    return [*rows, *_kind_rows(figures), *(_whole_rows(figures) if "pytest_s" in figures else ())]


def _kind_rows(figures: Figures) -> list[tuple[str, str]]:
    """The kinds of crash, the cheapest first; none if they were not measured."""
    kinds = {name[5:-3]: ms for name, ms in figures.items() if name.startswith("kind_")}
    words = ", ".join(f"{kind} {kinds[kind]:.0f}" for kind in sorted(kinds, key=lambda kind: kinds[kind]))
    return [("one scenario of each kind of crash, processor time", f"{words} ms")] if kinds else []


def _whole_rows(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("importing Airflow and loading `example_dags/`", f"{figures['load_s']:.1f} s"),
        (
            "`pytest --rerun-safety example_dags/` as a whole",
            f"{figures['pytest_s']:.1f} s ({figures['pytest_over_load']:.1f} times as long)",
        ),
        (
            f"a loop with {figures['loop_crash_points']:,.0f} crash points, {figures['loop_states']:,.0f} states",
            f"{figures['loop_scenarios']:.0f} scenarios, {figures['loop_s']:.0f} s",
        ),
    ]


def _show(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(title) for title, _ in rows)
    for title, value in rows:
        print(f"{title:{width}}  {value}")


def _show_where(figures: Figures, shares: Mapping[str, float]) -> None:
    ours = figures["ours_ms_per_scenario"]
    parts = [
        (title, f"{figures[f'{name}_ms_per_scenario']:6.1f} ms per scenario")
        for name, title in (("clean", "clean runs"), ("trials", "recoveries"))
    ]
    print("\nWhere our time goes:")
    _show(parts)
    print("\nBy what is done, profiled in one process:")
    _show([(name, f"{share:6.1%} {share * ours:6.1f} ms") for name, share in shares.items()])


def rewrite_readme(rows: Sequence[tuple[str, str]]) -> None:
    """Put the rows in the place of those that stand in README."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    table = "\n".join(["| | |", "|---|---|", *(f"| {title} | {value} |" for title, value in rows)])
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="Write the figures there")
    parser.add_argument("--turns", type=int, default=TURNS, help="How often each side is measured")
    parser.add_argument("--table", action="store_true", help="Show where our time goes")
    parser.add_argument("--whole", action="store_true", help="Measure whole runs of pytest too")
    parser.add_argument("--readme", action="store_true", help="Do all of it and rewrite README's table")
    chosen = parser.parse_args(arguments)
    measured = tuple(turns(chosen.turns))
    figures = figures_of(measured)
    if chosen.table or chosen.readme:
        figures |= by_kind()
    if chosen.whole or chosen.readme:
        figures |= whole_runs()
    _show(rows_of(figures))
    if chosen.table or chosen.readme:
        _show_where(figures, where_it_goes())
    if chosen.json:
        chosen.json.write_text(
            json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2) + "\n"
        )
    if chosen.readme:
        rewrite_readme(rows_of(figures))


if __name__ == "__main__":
    main()
