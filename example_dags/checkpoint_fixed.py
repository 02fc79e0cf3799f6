"""A task that resumes at its checkpoint, which follows the lines and says where the last one ends.

It bears any death, and yet not a worker that was only taken for dead and goes on beside the next one: whoever resumes adds to
what is there, and nothing fences the older one off.
"""

from __future__ import annotations

import json
import os

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/checkpoint"
INPUT = f"{DATA_DIR}/input.txt"
OUTPUT = f"{DATA_DIR}/output.txt"
CHECKPOINT = f"{DATA_DIR}/checkpoint.json"


def read_checkpoint() -> dict[str, int]:
    if not os.path.exists(CHECKPOINT):
        return {"lines": 0, "bytes": 0}
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
    dag_id="checkpoint_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def checkpoint() -> None:
    @task
    def write_input() -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        with open(f"{INPUT}.tmp", "w") as file:
            file.writelines(f"line {number}\n" for number in range(1, 9))
            file.flush()
            os.fsync(file.fileno())
        os.replace(f"{INPUT}.tmp", INPUT)

    @task
    def process() -> None:
        done = read_checkpoint()
        with open(INPUT, "rb") as file:
            pending = file.readlines()[done["lines"] :]
        with open(OUTPUT, "ab") as output:
            output.truncate(done["bytes"])
            for line in pending:
                record = line.upper()
                output.write(record)
                output.flush()
                os.fsync(output.fileno())
                done["lines"] += 1
                done["bytes"] += len(record)
                write_checkpoint(done)

    write_input() >> process()


checkpoint()
