"""What the flows of this folder share: files that they append to, and places to die at. No file of flows itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

from airflow.sdk import get_current_context
from airflow.sdk.execution_time import task_runner

OUT = Path(os.environ["REAL_AIRFLOW_OUT"])
DEATHS = OUT / "deaths"
"""There in a real deployment only: elsewhere nobody dies here."""

ONE_DAY = {
    "schedule": "@daily",
    "start_date": datetime(2024, 1, 1, tzinfo=timezone.utc),
    "end_date": datetime(2024, 1, 1, tzinfo=timezone.utc),
    "catchup": True,
}
"""The scheduler makes one run by itself."""
TWO_DAYS = {**ONE_DAY, "end_date": datetime(2024, 1, 2, tzinfo=timezone.utc)}
RETRY = {"retries": 1, "retry_delay": timedelta(seconds=1)}


def note(what: str) -> None:
    """Append a line to the task instance's own file: which try did what."""
    context = get_current_context()
    ti = context["ti"]
    with open(OUT / f"{ti.dag_id}.{context['ds']}.{_name(ti)}", "a") as out:
        out.write(f"{what} by try {ti.try_number}\n")


def killed_here(context: object = None, times: int = 1) -> None:
    """The first to get here kills its process; its supervisor lives on and reports it. Callbacks give their context."""
    if any(_is_first(context, f".{death}" if death else "") for death in range(times)):
        os.kill(os.getpid(), signal.SIGKILL)


def killed_after(message: str) -> None:
    """The first to get here kills its process once the supervisor has answered its next message of that type."""
    if not _is_first():
        return
    comms = type(task_runner.SUPERVISOR_COMMS)
    send = comms.send

    def send_and_die(self: object, msg: object) -> object:
        answer = send(self, msg)
        if type(msg).__name__ == message:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    comms.send = send_and_die


def lost_here() -> None:
    """The first to get here takes its supervisor with it: the scheduler has to find out."""
    if _is_first():
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def hangs_here() -> None:
    """The first to get here stays until it is killed."""
    if _is_first():
        while True:
            time.sleep(1)


def notifier(what: str) -> Callable[[object], None]:
    """A callback that writes down that it was called."""

    def notify(context: object) -> None:
        dag_id = context["ti"].dag_id
        with open(OUT / f"{dag_id}.notified", "a") as out:
            out.write(f"{what}\n")

    return notify


def terminated_here() -> None:
    """The first to get here is asked to end."""
    if _is_first():
        os.kill(os.getpid(), signal.SIGTERM)


def _is_first(context: object = None, suffix: str = "") -> bool:
    ti = (context or get_current_context())["ti"]
    if not DEATHS.is_dir():
        return False
    try:
        (DEATHS / f"{ti.dag_id}.{_name(ti)}{suffix}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _name(ti: object) -> str:
    index = ti.map_index
    return ti.task_id if index is None or index < 0 else f"{ti.task_id}[{index}]"
