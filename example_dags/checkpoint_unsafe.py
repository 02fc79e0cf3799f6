"""A task that resumes at its checkpoint, which is on disk while the lines are still in a buffer."""

from __future__ import annotations

import json
import os

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/checkpoint"
INPUT = f"{DATA_DIR}/input.txt"
OUTPUT = f"{DATA_DIR}/output.txt"
CHECKPOINT = f"{DATA_DIR}/checkpoint.json"

os.makedirs(DATA_DIR, exist_ok=True)
with open(INPUT, "w") as file:
    file.writelines(f"line {number}\n" for number in range(1, 9))


def read_checkpoint() -> dict[str, int]:
    if not os.path.exists(CHECKPOINT):
        return {"lines": 0}
    with open(CHECKPOINT) as file:
        checkpoint: dict[str, int] = json.load(file)
    return checkpoint


def write_checkpoint(checkpoint: dict[str, int]) -> None:
    with open(f"{CHECKPOINT}.tmp", "w") as file:
        json.dump(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{CHECKPOINT}.tmp", CHECKPOINT)


@dag(
    dag_id="checkpoint_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def checkpoint() -> None:
    @task
    def process() -> None:
        done = read_checkpoint()
        with open(INPUT, "rb") as file:
            pending = file.readlines()[done["lines"] :]
        with open(OUTPUT, "ab") as output:
            for line in pending:
                record = line.upper()
                output.write(record)
                done["lines"] += 1
                write_checkpoint(done)

    process()


checkpoint()
