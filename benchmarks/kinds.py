"""What one scenario of each kind of crash costs, without the clean runs: all done in one process, each kind twice.

Run by `speed.py`, in a process of its own. What the first time finds out about the run's rest serves the second, as in a check.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from floor import ready_engine

from pytest_rerunsafe.explore.jobs import REFERENCE, LoadJob, RecordJob
from pytest_rerunsafe.explore.scenarios import crash_trials, jobs_of
from pytest_rerunsafe.model import Profile

_write = os.write
"""The real one: the engine puts another in its place."""


def _cpu_s() -> float:
    """Of this process; the clock that shows it is real, and others do not slow it."""
    return time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID)


def main(file: str) -> None:
    """Measure, tell."""
    folder = str(Path(file).parent)
    engine: Any = ready_engine(Path(folder))
    (dag,) = engine.load(LoadJob(file=file, folder=folder)).dags
    recording = engine.record(
        RecordJob(dag=dag, folder=folder, logical_date=dag.logical_date, delay_s=0, seed=REFERENCE)
    )
    clean = {situation: (0, done) for situation, done in recording.situations.items()}
    (task,) = dag.tasks
    trials = sorted(
        crash_trials(dag, recording, task.task_id, Profile.THOROUGH).trials,
        key=lambda trial: str(trial.scenario.crash_kind),
    )
    found: dict[str, float] = {}
    for kind, group in groupby(trials, key=lambda trial: str(trial.scenario.crash_kind)):
        (job,) = jobs_of(tuple(group), len(trials), dag, recording, folder, clean)
        engine.recover(job)
        began = _cpu_s()
        outcomes = engine.recover(job)
        count = sum(outcome.run_state != "missed" for outcome in outcomes)
        found[kind] = 1000 * (_cpu_s() - began) / count
    _write(1, json.dumps(found).encode())


if __name__ == "__main__":
    main(sys.argv[1])
