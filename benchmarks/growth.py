"""How cost grows: with the iterations of a loop, and with the tasks of a DAG; time and memory of whole runs of pytest.

    python benchmarks/growth.py --json growth.json             all sizes
    python benchmarks/growth.py --json growth.json --readme    and README's table is rewritten
    python benchmarks/growth.py --loops 10 100 --tasks 5       some sizes

A loop appends a line and writes a checkpoint in each iteration; the crash points are the lines that it executes. The tasks of
a DAG stand in five rows side by side, each task after the one before it in its row; each writes a file and moves it into place.
Memory is that of the largest process, as the operating system counts it. 500 tasks take 25 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speed import README

LOOPS = (10, 100, 1_000, 10_000)
TASKS = (5, 50, 500)
BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"

LOOP = """
    import json, os
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def loop():
        @task
        def lines():
            os.makedirs("/data", exist_ok=True)
            start = 0
            if os.path.exists("/data/checkpoint.json"):
                with open("/data/checkpoint.json") as file:
                    start = json.load(file)["done"]
            with open("/data/output.txt", "a") as output:
                for number in range(start, {size}):
                    output.write(f"line {{number}}\\n")
                    output.flush()
                    with open("/data/checkpoint.json", "w") as file:
                        json.dump({{"done": number + 1}}, file)

        lines()

    loop()
"""
ROWS = """
    import os
    from airflow.sdk import chain, dag, task

    @dag(schedule=None)
    def rows():
        @task
        def write(number):
            os.makedirs("/data", exist_ok=True)
            with open(f"/data/{{number}}.tmp", "w") as file:
                file.write(f"chunk {{number}}\\n" * 100)
            os.replace(f"/data/{{number}}.tmp", f"/data/{{number}}.txt")

        tasks = [write.override(task_id=f"write_{{number:03}}")(number) for number in range({size})]
        chain(*(tasks[start : start + 5] for start in range(0, len(tasks), 5)))

    rows()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run of pytest took."""

    what: str
    """`loop` or `rows`."""
    size: int
    profile: str
    crash_points: int
    states: int
    explored: int
    """Those of them that the profile takes."""
    recoveries: int
    seconds: float
    """From start to end, Airflow's import included."""
    cpu_seconds: float
    """Processor time of all processes."""
    megabytes: float
    """Of the largest process."""
    verdict: str


def measured(what: str, size: int, profile: str) -> Figures:
    """A whole run of pytest in a process of its own, whose children the operating system counts apart."""
    with tempfile.TemporaryDirectory(prefix="rerunsafe-growth-") as name:
        source = textwrap.dedent(LOOP if what == "loop" else ROWS).format(size=size)
        Path(name, "a_dag.py").write_text(source)
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, profile],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{what} of {size} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        found = json.loads(done.stdout.splitlines()[-1])
    return Figures(what=what, size=size, profile=profile, **found)


def one(folder: str, profile: str) -> None:
    """Run pytest on a folder with one DAG and print what it took."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rerun-safety", f"--rerun-safety-profile={profile}",
         "--rerun-safety-report=json:report.json", "a_dag.py"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 1):
        raise SystemExit(done.stdout + done.stderr)
    (dag,) = json.loads(Path(folder, "report.json").read_text())["dags"]
    if dag["verdict"] not in ("safe", "unsafe"):
        raise SystemExit(f"{dag['verdict']}: {dag['reason']}")
    coverage = dag["coverage"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 2**10 if sys.platform == "linux" else 2**20
    found = {
        "crash_points": coverage["crash_points"],
        "states": coverage["distinct_states"],
        "explored": coverage["explored"],
        "recoveries": coverage["recoveries"],
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / unit,
        "verdict": dag["verdict"],
    }
    print(json.dumps(found))


# --- telling ----------------------------------------------------------------------------------


def row_of(figures: Figures) -> str:
    """A line of README's table."""
    what = f"a loop of {figures.size:,}" if figures.what == "loop" else f"{figures.size} tasks"
    of = f"{figures.explored:,} of " if figures.explored < figures.states else ""
    cells = (
        f"{what}, `{figures.profile}`",
        f"{figures.crash_points:,}",
        f"{of}{figures.states:,}",
        f"{figures.recoveries:,}",
        f"{figures.seconds:,.0f} s",
        f"{figures.cpu_seconds:,.0f} s",
        f"{figures.megabytes:,.0f} MB",
    )
    return f"| {' | '.join(cells)} |"


HEAD = "| | crash points | states | recoveries | time | of the processors | memory |\n|---|---|---|---|---|---|---|"


def rewrite_readme(found: Sequence[Figures]) -> None:
    """Put the rows in the place of those that stand in README."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, there, after = rest.partition(END)
    if not there:
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    table = "\n".join([HEAD, *map(row_of, found)])
    README.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="Write the figures there")
    parser.add_argument("--loops", type=int, nargs="*", default=LOOPS, help="Iterations of the loops")
    parser.add_argument("--tasks", type=int, nargs="*", default=TASKS, help="Tasks of the DAGs")
    parser.add_argument("--profile", default="default", help="fast, default or thorough")
    parser.add_argument("--readme", action="store_true", help="Rewrite README's table")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "PROFILE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        one(*chosen.one)
        return
    found: list[Figures] = []
    for what, sizes in (("loop", chosen.loops), ("rows", chosen.tasks)):
        for size in sizes:
            found.append(measured(what, size, chosen.profile))
            print(row_of(found[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(figures) for figures in found], indent=2) + "\n")
    if chosen.readme:
        rewrite_readme(found)


if __name__ == "__main__":
    main()
