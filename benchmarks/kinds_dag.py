"""A task that every kind of crash can befall: it has retries, a time-out and an `on_kill`."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.sdk import DAG, BaseOperator


class Load(BaseOperator):
    """Writes some files, each whole or not at all."""

    def execute(self, context: Any) -> None:
        """Write them."""
        os.makedirs("/data", exist_ok=True)
        for number in range(5):
            with open("/data/part", "w") as part:
                part.writelines(f"{number},{row}\n" for row in range(50))
            os.replace("/data/part", f"/data/{number}")

    def on_kill(self) -> None:
        """Clean up."""
        if os.path.exists("/data/part"):
            os.unlink("/data/part")


with DAG("kinds", start_date=datetime(2024, 1, 1, tzinfo=timezone.utc), schedule=None):
    Load(task_id="load", retries=1, execution_timeout=timedelta(minutes=5))
