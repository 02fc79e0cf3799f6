"""One task writes 10,000 lines and after each a checkpoint: many crash points, few kinds of them."""

from __future__ import annotations

import json
import os

from airflow.sdk import dag, task

LINES = 10_000


@dag(schedule=None)
def loop() -> None:
    @task
    def lines() -> None:
        os.makedirs("/data", exist_ok=True)
        start = 0
        if os.path.exists("/data/checkpoint.json"):
            with open("/data/checkpoint.json") as file:
                start = json.load(file)["done"]
        with open("/data/output.txt", "a") as output:
            for number in range(start, LINES):
                output.write(f"line {number}\n")
                output.flush()
                with open("/data/checkpoint.json", "w") as file:
                    json.dump({"done": number + 1}, file)

    lines()


loop()
