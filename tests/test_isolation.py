"""While DAGs run, nothing on the real disk changes: a real pytest run on DAGs that write wherever they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NOWHERE = "/rerunsafe-test-isolation"
"""A folder that no machine has."""

WRITER = f'''
import os, shutil, sqlite3, tempfile
from pathlib import Path

import helper
from airflow.sdk import DAG, task

HERE = Path(__file__).parent
PLACES = [HERE, HERE.parent, Path("OUTSIDE"), Path.home(), Path("{NOWHERE}"), Path(tempfile.gettempdir()),
          Path(os.environ["AIRFLOW_HOME"]), Path.cwd()]

with DAG("writer"):
    @task
    def write():
        for place in PLACES:
            place.mkdir(parents=True, exist_ok=True)
            (place / "out.txt").write_text(helper.TEXT)
            with open(place / "log.txt", "a") as file:
                file.write(helper.TEXT)
            with sqlite3.connect(place / "data.db") as database:
                database.execute("CREATE TABLE IF NOT EXISTS t (a)")
                database.execute("ATTACH ? AS more", (str(place / "more.db"),))
                database.execute("CREATE TABLE IF NOT EXISTS more.t (a)")
            os.replace(place / "out.txt", place / "moved.txt")
        tempfile.mkdtemp()
        tempfile.NamedTemporaryFile(delete=False).close()

    @task
    def destroy():
        Path("OUTSIDE/kept.txt").unlink(missing_ok=True)
        (HERE / "kept.txt").unlink()
        (HERE.parent / "kept.txt").write_text("changed")
        os.utime(HERE / "helper.py", (0, 0))
        os.chmod(HERE / "helper.py", 0o600)
        shutil.rmtree(HERE.parent / "kept")

    write() >> destroy()

(HERE / "at_import.txt").write_text("")
'''

REACHING = {
    "connects": ("import socket; socket.create_connection(('127.0.0.1', 9))", "connecting to 127.0.0.1:9"),
    "runs": ("import subprocess; subprocess.run(['touch', 'OUTSIDE/run.txt'])", "starting the process"),
    "shells": ("import os; os.system('touch OUTSIDE/shell.txt')", "starting the process"),
    "forks": ("import os; os.fork()", "forking a process"),
    "stores": ("import _sqlite3; _sqlite3.connect('OUTSIDE/data.db')", "opening the SQLite file"),
    "calls": ("import ctypes; ctypes.CDLL(None).creat(b'OUTSIDE/c.txt', 0o600)", "the C function `creat`"),
}


def reaching(name: str, deed: str) -> str:
    return f"""
from airflow.sdk import DAG, task

with DAG("{name}"):
    @task
    def act():
        {deed}
    act()
"""


class Place:
    """A project in a folder that also holds all else that a run may think of as its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("project/dags", "project/kept", "outside", "home", "tmp"):
            (root / folder).mkdir(parents=True)
        for file in (
            "project/kept.txt",
            "project/kept/kept.txt",
            "project/dags/kept.txt",
            "outside/kept.txt",
        ):
            (root / file).write_text("kept")
        self.write("helper", "TEXT = 'text'\n")
        self.write("writer", WRITER)
        for name, (deed, _) in REACHING.items():
            self.write(name, reaching(name, deed))

    def write(self, name: str, source: str) -> None:
        file = self.root / "project" / "dags" / f"{name}.py"
        file.write_text(source.replace("OUTSIDE", str(self.root / "outside")))

    def run(self, *chosen: str, **environment: str) -> dict[str, Any]:
        """The report's entry for each DAG of a pytest run."""
        report = self.root / "report.json"
        own = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"), **environment}
        unset = ("AIRFLOW_HOME", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        options = ["--rerun-safety", f"--rerun-safety-report=json:{report}", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *chosen],
            cwd=self.root / "project",
            env={**kept, **own},
            capture_output=True,
            text=True,
        )
        assert report.exists(), done.stdout + done.stderr
        found = json.loads(report.read_text())
        report.unlink()
        return {dag["dag_id"]: dag for dag in found["dags"]}

    def seen(self) -> dict[str, tuple[int, ...]]:
        """All that is below the root, with what tells of a change."""
        return {str(path): _signs(path) for path in sorted(self.root.rglob("*"))}


def _signs(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    # A temporary folder may come and go: it then leaves its mark on the folder it was in.
    time = 0 if path.name == "tmp" else status.st_mtime_ns
    return status.st_mode, status.st_size if path.is_file() else 0, time


def test_nothing_on_the_real_disk_changes(tmp_path: Path) -> None:
    place = Place(tmp_path.resolve())
    before = place.seen()
    writer = (f"dags/writer.py::writer::{check}" for check in ("clean", "rerun", "crash.destroy"))
    reaching = (f"dags/{name}.py::{name}::clean" for name in REACHING)
    dags = place.run(*writer, *reaching, AIRFLOW_HOME=str(place.root / "home" / "airflow"))
    assert place.seen() == before
    assert not os.path.lexists(NOWHERE)
    verdicts = {check["check"]: check["verdict"] for check in dags["writer"]["checks"]}
    # It did write, for its effects were seen: at import, and the second time what it destroys is not there.
    assert verdicts["clean"] == verdicts["rerun"] == "unsafe", dags["writer"]
    assert {"parse-side-effect", "rerun-fails"} <= {finding["rule"] for finding in dags["writer"]["findings"]}
    for name, (_, told) in REACHING.items():
        clean = dags[name]["checks"][0]
        assert clean["verdict"] == "unverifiable"
        assert told in clean["reason"], "what"
        assert f" at dags/{name}.py:7. " in clean["reason"], "where"
        assert "`skip` the DAG with a reason" in clean["reason"], "what to do"


def test_nothing_changes_where_airflow_has_no_home(tmp_path: Path) -> None:
    """Left to itself, Airflow makes one below the user's home, with configuration, logs and a database."""
    place = Place(tmp_path.resolve())
    before = place.seen()
    dags = place.run("dags/writer.py::writer::clean")
    assert place.seen() == before
    assert dags["writer"]["verdict"] == "unsafe"
