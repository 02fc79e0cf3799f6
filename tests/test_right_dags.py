"""DAGs that look wrong and are right: each does what its like gets wrong, and none may be found fault with."""

from __future__ import annotations

import textwrap

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

HEAD = """\
import csv, hashlib, json, os, shutil, sqlite3, uuid
from datetime import datetime, timezone
from glob import glob
from pathlib import Path
from airflow.sdk import DAG, Variable, dag, task

def replace(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(f"{path}.tmp").write_text(json.dumps(content))
    os.replace(f"{path}.tmp", path)
"""

RIGHT = {
    "appends_only_what_is_not_there_yet": """
        @task
        def load():
            path = Path("/data/rows.csv")
            known = set(path.read_text().splitlines()) if path.exists() else set()
            with path.open("a") as out:
                for number in range(4):
                    if (row := f"{number},row") not in known:
                        out.write(f"{row}\\n")
                        out.flush()
        load()
        """,
    "truncates_then_appends": """
        @task
        def load():
            open("/data/rows.csv", "w").close()
            for number in range(3):
                with open("/data/rows.csv", "a") as out:
                    out.write(f"{number}\\n")
        load()
        """,
    "temporary_file_of_the_same_name": """
        @task
        def load():
            if os.path.exists("/data/rows.csv"):
                return
            with open("/data/rows.part", "w") as part:
                for number in range(3):
                    part.write(f"{number}\\n")
                    part.flush()
            os.rename("/data/rows.part", "/data/rows.csv")
        load()
        """,
    "unfinished_files_removed_at_the_start": """
        @task
        def load():
            for left in glob("/data/*.part"):
                os.remove(left)
            part = f"/data/{uuid.uuid4()}.part"
            Path(part).write_text("1\\n2\\n")
            os.replace(part, "/data/rows.csv")
        load()
        """,
    "folder_rebuilt_from_scratch": """
        @task
        def build():
            shutil.rmtree("/data/site", ignore_errors=True)
            os.makedirs("/data/site/pages")
            for page in ("a", "b"):
                Path(f"/data/site/pages/{page}").write_text(page)
            Path("/data/site/index").write_text(" ".join(sorted(os.listdir("/data/site/pages"))))
        build()
        """,
    "marker_first_but_verified": """
        def digest(path):
            return hashlib.sha256(Path(path).read_bytes()).hexdigest() if os.path.exists(path) else "none"

        @task
        def publish():
            content = "".join(f"{number}\\n" for number in range(50))
            wanted = hashlib.sha256(content.encode()).hexdigest()
            mark = Path("/data/report.sha256")
            if mark.exists() and mark.read_text() == digest("/data/report.csv"):
                return
            mark.write_text(wanted)
            Path("/data/report.csv").write_text(content)
        publish()
        """,
    "files_named_by_their_content": """
        @task
        def store():
            for text in ("one", "two", "two"):
                path = f"/data/objects/{hashlib.sha256(text.encode()).hexdigest()}"
                if not os.path.exists(path):
                    replace(path, text)
            replace("/data/index", sorted(set(os.listdir("/data/objects"))))
        store()
        """,
    "record_replaced_by_its_key": """
        @task
        def book(day):
            path = "/data/ledger.json"
            ledger = json.loads(Path(path).read_text()) if os.path.exists(path) else {}
            ledger[day] = {"orders": 3}
            ledger["total"] = sum(entry["orders"] for key, entry in ledger.items() if key != "total")
            replace(path, ledger)
        book("{{ ds }}")
        """,
    "variable_that_follows_the_date": """
        @task
        def note(day):
            replace(f"/data/{day}.json", [1, 2])
            if Variable.get("last_day", default="") < day:
                Variable.set("last_day", day)
        note("{{ ds }}")
        """,
    "lock_that_its_own_run_takes_over": """
        @task
        def rebuild(run):
            lock = "/data/index.lock"
            Path(f"{lock}.{run}").write_text(run)
            try:
                os.link(f"{lock}.{run}", lock)
            except FileExistsError:
                if Path(lock).read_text() != run:
                    raise
            replace("/data/index.json", {"built": True})
            os.remove(lock)
            os.remove(f"{lock}.{run}")
        rebuild("{{ run_id }}")
        """,
    "position_read_off_the_output": """
        @task
        def copy():
            path = Path("/data/copied.txt")
            done = len(path.read_text().splitlines()) if path.exists() else 0
            with path.open("a") as out:
                for number in range(done, 5):
                    out.write(f"line {number}\\n")
                    out.flush()
        copy()
        """,
    "set_written_in_order": """
        @task
        def names():
            replace("/data/names.json", sorted({"ada", "grace", "mary", "joan", "radia"}))
        names()
        """,
    "claimed_input_found_again": """
        @task
        def take():
            if not os.path.exists("/data/claimed.csv"):
                os.rename("/data/in.csv", "/data/claimed.csv")
            replace("/data/out.json", Path("/data/claimed.csv").read_text().split())
        take()
        """,
    "retries_into_folders_that_are_there": """
        @task(retries=2)
        def load(ti=None):
            os.makedirs("/data/a/b", exist_ok=True)
            Path("/data/a/b/rows").write_text("1\\n")
            print(ti.try_number)
        load()
        """,
    "partition_per_mapped_task": """
        @task
        def load(region):
            shutil.rmtree(f"/data/region={region}", ignore_errors=True)
            os.makedirs(f"/data/region={region}")
            Path(f"/data/region={region}/rows.csv").write_text(f"{region}\\n")
        load.expand(region=["north", "south"])
        """,
    "times_of_each_run_in_its_audit_file": """
        @task
        def load(run):
            began = datetime.now(timezone.utc).isoformat()
            replace("/data/rows.json", [1, 2, 3])
            ended = datetime.now(timezone.utc).isoformat()
            replace(f"/data/audit/{run}.json", {"began": began, "ended": ended, "rows": 3})
        load("{{ ds }}")
        """,
    "source_deleted_when_its_result_is_there": """
        @task
        def take():
            if os.path.exists("/data/in.csv"):
                replace("/data/out.json", Path("/data/in.csv").read_text().split())
                os.remove("/data/in.csv")
        take()
        """,
    "rows_replaced_in_one_transaction": """
        @task
        def load(day):
            connection = sqlite3.connect("/data/shop.db")
            connection.execute("CREATE TABLE IF NOT EXISTS orders (day TEXT, cents INTEGER)")
            with connection:
                connection.execute("DELETE FROM orders WHERE day = ?", [day])
                connection.executemany("INSERT INTO orders VALUES (?, ?)", [(day, cents) for cents in (5, 7, 9)])
            connection.close()
        load("{{ ds }}")
        """,
    "marker_that_says_what_is_being_done": """
        @task
        def load():
            mark = Path("/data/loading")
            mark.touch()
            Path("/data/rows.csv").write_text("1\\n2\\n")
            mark.unlink()
        load()
        """,
}


def right_dag(name: str) -> str:
    body = textwrap.indent(textwrap.dedent(RIGHT[name]), "    ")
    return f"{HEAD}\n@dag(start_date=datetime(2024, 1, 1))\ndef {name}():\n{body}\n{name}()\n"


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_is_found(dags: Project, name: str) -> None:
    verdicts = dags.check(name, right_dag(name), "world.write('/data/in.csv', 'one two\\n')")
    assert [(str(finding.rule), finding.summary) for finding in verdicts.findings] == []
    assert verdicts.worst is Verdict.SAFE


def test_there_are_enough_of_them() -> None:
    assert len(RIGHT) >= 12
