"""A real Airflow on this machine: its own processes, a private metadata database, the real command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 600.0
"""How long anything here may take, on a machine with much else to do."""
POLL_S = 0.5
COMMANDS = """
import json, os, sys
from airflow.__main__ import main
from airflow.cli.commands import backfill_command, task_command
from airflow.utils.cli import get_dags
from sqlalchemy import event
from sqlalchemy.engine import Engine

# SQLite refuses to write after a read if another has written in between: take the turn first, as servers' locks would.
event.listen(Engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
event.listen(Engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = ["airflow", *json.loads(line)]
        with open(os.environ["COMMANDS_LOG"], "a") as log:
            print("$", *sys.argv, file=log, flush=True)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        main()
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs `airflow` commands, one per line, each in a process of its own that need not import all of Airflow again."""


@dataclass(frozen=True, kw_only=True)
class DagRun:
    """A DagRun as the metadata database has it; by task id, `task_id[map_index]` for mapped ones."""

    date: str
    state: str
    task_states: Mapping[str, str]
    tries: Mapping[str, int]
    xcoms: Mapping[str, bytes]
    """By `task_id/key`."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will go on by itself."""
        return self.state in ("success", "failed")


class Deployment:
    """The processes of an Airflow; `start` makes one."""

    def __init__(self, home: Path, commands: subprocess.Popen[str]) -> None:
        self.home = home
        self._commands = commands

    def airflow(self, *arguments: str) -> None:
        """Run an `airflow` command."""
        assert self._commands.stdin is not None
        assert self._commands.stdout is not None
        self._commands.stdin.write(json.dumps(arguments) + "\n")
        self._commands.stdin.flush()
        exit_code = self._commands.stdout.readline().strip()
        assert exit_code == "0", f"airflow {' '.join(arguments)}: exit code {exit_code}\n{self.logs()}"

    def runs(self, dag_id: str) -> list[DagRun]:
        """The DagRuns of a DAG, by date."""
        database = f"file:{self.home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(database, uri=True, timeout=30)) as opened:
            runs = opened.execute(
                "SELECT run_id, logical_date, state FROM dag_run WHERE dag_id = ? ORDER BY logical_date",
                (dag_id,),
            ).fetchall()
            return [_run(opened, dag_id, *run) for run in runs]

    def wait(self, done: Callable[[], bool], story: Callable[[], str]) -> None:
        """Return once it is done. Raises TimeoutError with the story and the ends of the logs."""
        until = time.monotonic() + LIMIT_S
        while not done():
            if time.monotonic() > until:
                raise TimeoutError(f"{story()}\n{self.logs()}")
            time.sleep(POLL_S)

    def logs(self) -> str:
        """The last lines that each process wrote."""
        found = sorted(self.home.glob("*.log"))
        return "\n".join(f"== {log.name}\n" + "".join(log.open().readlines()[-40:]) for log in found)


def _run(opened: sqlite3.Connection, dag_id: str, run_id: str, date: str, state: str) -> DagRun:
    tasks = opened.execute(
        "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = ?"
        " ORDER BY task_id, map_index",
        (dag_id, run_id),
    ).fetchall()
    xcoms = opened.execute(
        'SELECT task_id, map_index, "key", value FROM xcom WHERE dag_id = ? AND run_id = ?', (dag_id, run_id)
    ).fetchall()
    return DagRun(
        date=date[:10],
        state=state,
        task_states={_name(task_id, index): state or "none" for task_id, index, state, _ in tasks},
        tries={_name(task_id, index): tries for task_id, index, _, tries in tasks},
        xcoms={f"{_name(task_id, index)}/{key}": _text(value) for task_id, index, key, value in xcoms},
    )


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def _text(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@contextmanager
def start(home: Path, dags: Path, variables: Mapping[str, str]) -> Iterator[Deployment]:
    """An Airflow that runs the DAGs of a folder, with environment variables of theirs; all of it ends with the block."""
    environment = _environment(home, dags, variables)
    with ExitStack() as stack:

        def begin(log: str, *command: str, pipe: int | None = None) -> subprocess.Popen[str]:
            with (home / f"{log}.log").open("a") as output:
                process = subprocess.Popen(
                    [sys.executable, *command],
                    env=environment,
                    stdin=pipe or subprocess.DEVNULL,
                    stdout=pipe or output,
                    stderr=output,
                    text=True,
                    start_new_session=True,
                )
            stack.callback(_end, process)
            return process

        begin("migrate", "-m", "airflow", "db", "migrate").wait(LIMIT_S)
        for component in ("api-server", "scheduler", "triggerer"):
            begin(component, "-m", "airflow", component)
        deployment = Deployment(home, begin("commands", "-c", COMMANDS, pipe=subprocess.PIPE))
        # Without it there are no DAGs: no task starts before there is a server to ask.
        port = int(environment["AIRFLOW__API__PORT"])
        deployment.wait(lambda: _listens(port), lambda: "the api-server does not listen")
        begin("dag-processor", "-m", "airflow", "dag-processor")
        yield deployment


def _environment(home: Path, dags: Path, variables: Mapping[str, str]) -> dict[str, str]:
    port = _free_port()
    settings = {
        "CORE__DAGS_FOLDER": str(dags),
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{port}/execution/",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        # A writer waits its turn, however busy the machine is.
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "API__PORT": str(port),
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": "the secret of a deployment that lives for minutes and that nobody else can reach",
        # Nothing changes: to read the files once is enough.
        "DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        # A worker whose supervisor has died is noticed once its heartbeats stay away.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "3",
        "TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        "LOGGING__LOGGING_LEVEL": "WARNING",
    }
    return {
        **os.environ,
        **variables,
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(home),
        "HOME": str(home),
        "COMMANDS_LOG": str(home / "commands.log"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def _free_port() -> int:
    with closing(socket.socket()) as bound:
        bound.bind(("localhost", 0))
        return int(bound.getsockname()[1])


def _listens(port: int) -> bool:
    with closing(socket.socket()) as tried:
        return tried.connect_ex(("localhost", port)) == 0


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the process with all that descend from it: workers leave its group and outlive it, but stay in its session."""
    while found := [pid for pid in _processes() if _session_of(pid) == process.pid]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.pid in found:
            process.communicate()


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _session_of(pid: int) -> int | None:
    """The session of a process that runs; None of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])
