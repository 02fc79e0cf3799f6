"""Each rule on a DAG that breaks it and a twin that differs only in the fix; and what no rule may object to."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import pytest
from dag_projects import Project

from pytest_rerunsafe.model import Verdict

HEAD = """\
import json, os, random, shutil, tempfile, uuid
from datetime import date, datetime, timedelta
from pathlib import Path
from airflow.sdk import DAG, Variable, dag, get_current_context, task
"""


DAG_LINE = 7


def in_dag(body: str) -> str:
    """A DAG file whose only DAG, `d`, has this body; `HERE` marks the line of a finding."""
    options = 'schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False'
    return f"{HEAD}\n@dag({options})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A DAG that breaks a rule, and how to mend it."""

    rule: str
    check: str
    """Where the rule is found."""
    task_id: str
    source: str
    fix: tuple[tuple[str, str], ...]
    """What to replace by what."""
    prepare: str = "world.mkdir('/data')"
    name: str = ""

    @property
    def line(self) -> int:
        """The line marked `HERE`; where no line of a task is to blame, the DAG's."""
        if "HERE" not in self.source:
            return DAG_LINE
        return next(number for number, text in enumerate(self.source.splitlines(), 1) if "HERE" in text)

    @property
    def fixed(self) -> str:
        """The safe twin."""
        source = self.source
        for old, new in self.fix:
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        return source

    @property
    def module(self) -> str:
        """A module name of its own: what is known of a DAG file is known for good."""
        return str(self).replace("-", "_").replace(" ", "_")

    def __str__(self) -> str:
        return self.name or self.rule


PAIRS = (
    Pair(
        rule="duplicate-output",
        check="crash.load",
        task_id="load",
        source=in_dag(
            """
            @task
            def load():
                with open("/data/out.csv", "a") as out:  # HERE
                    out.writelines(f"{n},row\\n" for n in range(20))
            load()
            """
        ),
        fix=(('"a"', '"w"'),),
    ),
    Pair(
        name="duplicate-output without a crash",
        rule="duplicate-output",
        check="rerun",
        task_id="load",
        source=in_dag(
            """
            @task
            def load(rows):
                with open("/data/out.csv", "a") as out:  # HERE
                    for row in rows:
                        out.write(f"{row}\\n")
            @task
            def extract():
                return [1, 2, 3]
            load(extract())
            """
        ),
        fix=(('"a"', '"w"'),),
    ),
    Pair(
        rule="partial-output-accepted",
        check="crash.write",
        task_id="write",
        source=in_dag(
            """
            @task
            def write():
                path = "/data/out.json"
                if not os.path.exists(path):
                    with open(path, "w") as out:  # HERE
                        json.dump({"rows": [1, 2, 3]}, out)
            write()
            """
        ),
        fix=(
            ("with open(path, ", "with open(path + '.tmp', "),
            ("[1, 2, 3]}, out)", "[1, 2, 3]}, out)\n            os.replace(path + '.tmp', path)"),
        ),
    ),
    Pair(
        name="partial-output-accepted behind a check of the size",
        rule="partial-output-accepted",
        check="crash.write",
        task_id="write",
        source=in_dag(
            """
            @task
            def write():
                path = Path("/data/out.csv")
                if not path.exists() or path.stat().st_size == 0:
                    path.write_text("".join(f"{n},some more text\\n" for n in range(2000)))  # HERE
            write()
            """
        ),
        fix=(
            ("path.write_text", "path.with_suffix('.tmp').write_text"),
            ("# HERE", "\n            path.with_suffix('.tmp').replace(path)"),
        ),
    ),
    Pair(
        name="partial-output-accepted behind a check of each line",
        rule="partial-output-accepted",
        check="crash.write",
        task_id="write",
        source=in_dag(
            """
            def is_whole(path):
                try:
                    return len([json.loads(line) for line in path.read_text().splitlines()]) > 0
                except (OSError, ValueError):
                    return False

            @task
            def write():
                path = Path("/data/out.jsonl")
                if not is_whole(path):
                    with path.open("w") as out:
                        for n in range(128):
                            out.write(json.dumps({"n": n + 1000, "text": "x" * 104}) + "\\n")  # HERE
            write()
            """
        ),
        fix=(
            ('with path.open("w")', 'with Path("/data/out.tmp").open("w")'),
            ("# HERE", "\n                os.replace('/data/out.tmp', path)"),
        ),
    ),
    Pair(
        rule="lost-output",
        check="crash.publish",
        task_id="publish",
        source=in_dag(
            """
            @task
            def publish():
                if os.path.exists("/data/done"):
                    return
                Path("/data/done").touch()  # HERE
                Path("/data/out.csv").write_text("a,b\\n1,2\\n")
            publish()
            """
        ),
        fix=(
            ('Path("/data/done").touch()', "pass"),
            ('2\\n")', '2\\n")\n        Path("/data/done").touch()'),
        ),
    ),
    Pair(
        name="lost-output by a checkpoint",
        rule="lost-output",
        check="crash.process",
        task_id="process",
        source=in_dag(
            """
            @task
            def process():
                lines = Path("/data/in.txt").read_text().splitlines()
                mark = Path("/data/checkpoint.json")
                done = json.loads(mark.read_text())["done"] if mark.exists() else 0
                kept = sum(len(line) + 1 for line in lines[:done])
                with open("/data/out.txt", "a") as out:
                    out.truncate(min(kept, out.tell()))
                    for number, line in enumerate(lines[done:], done + 1):
                        out.write(line.upper() + "\\n")
                        Path("/data/checkpoint.tmp").write_text(json.dumps({"done": number}))
                        os.replace("/data/checkpoint.tmp", mark)  # HERE
            process()
            """
        ),
        fix=(('.upper() + "\\n")', '.upper() + "\\n")\n                out.flush()'),),
        prepare="world.write('/data/in.txt', 'one\\ntwo\\nthree\\n')",
    ),
    Pair(
        rule="stale-output",
        check="crash.write",
        task_id="write",
        source=in_dag(
            """
            @task
            def write(ti=None):
                part = f"/data/out.{ti.try_number}.part"
                with open(part, "w") as out:  # HERE
                    out.write("1\\n2\\n")
                os.replace(part, "/data/out.csv")
            write()
            """
        ),
        fix=(("out.{ti.try_number}.part", "out.part"),),
    ),
    Pair(
        rule="rerun-fails",
        check="rerun",
        task_id="prepare",
        source=in_dag(
            """
            @task
            def prepare():
                os.mkdir("/data/run")  # HERE
                Path("/data/run/ready.txt").write_text("yes")
            prepare()
            """
        ),
        fix=(("os.mkdir(", "os.makedirs(exist_ok=True, name="),),
        prepare="world.mkdir('/data')",
    ),
    Pair(
        name="rerun-fails for the source is gone",
        rule="rerun-fails",
        check="rerun",
        task_id="archive",
        source=in_dag(
            """
            @task
            def archive():
                shutil.move("/data/in.csv", "/data/archive.csv")  # HERE
            archive()
            """
        ),
        fix=(("shutil.move(", "shutil.copyfile("),),
        prepare="world.write('/data/in.csv', '1\\n')",
    ),
    Pair(
        rule="clock-dependent",
        check="clean",
        task_id="export",
        source=in_dag(
            """
            @task
            def export(ds=None):
                day = date.today().isoformat()
                with open(f"/data/{day}.csv", "w") as out:  # HERE
                    out.write("1\\n")
            export()
            """
        ),
        fix=(("date.today().isoformat()", "ds"),),
    ),
    Pair(
        rule="nondeterministic-output",
        check="clean",
        task_id="sample",
        source=in_dag(
            """
            @task
            def sample():
                picked = random.sample(range(1000), 10)
                Path("/data/out.json").write_text(json.dumps(picked))  # HERE
            sample()
            """
        ),
        fix=(("random.sample", "random.Random(7).sample"),),
    ),
    Pair(
        name="nondeterministic-output by an id in a name",
        rule="nondeterministic-output",
        check="clean",
        task_id="export",
        source=in_dag(
            """
            @task
            def export(run_id=None):
                name = uuid.uuid4().hex
                Path(f"/data/{name}.csv").write_text("1\\n")  # HERE
            export()
            """
        ),
        fix=(("uuid.uuid4()", "uuid.uuid5(uuid.NAMESPACE_URL, run_id)"),),
    ),
    Pair(
        name="nondeterministic-output by the order of a set",
        rule="nondeterministic-output",
        check="clean",
        task_id="export",
        source=in_dag(
            """
            @task
            def export():
                names = {"ann", "bob", "cy", "dee", "eve"}
                Path("/data/names").write_text(",".join(names))  # HERE
            export()
            """
        ),
        fix=(("join(names)", "join(sorted(names))"),),
    ),
    Pair(
        name="nondeterministic-output by hash",
        rule="nondeterministic-output",
        check="clean",
        task_id="export",
        source=in_dag(
            """
            @task
            def export():
                for name in ("ann", "bob", "cy", "dee", "eve"):
                    with open(f"/data/bucket_{hash(name) % 16}", "w") as out:  # HERE
                        out.write(name)
            export()
            """
        ),
        fix=(("hash(name)", "sum(map(ord, name))"),),
    ),
    Pair(
        rule="parse-side-effect",
        check="clean",
        task_id="",
        source=in_dag(
            """
            os.makedirs("/data", exist_ok=True)
            Path("/data/in.json").write_text("[1, 2]")  # HERE
            @task
            def read():
                rows = json.loads(Path("/data/in.json").read_text())
                Path("/data/out.json").write_text(json.dumps(rows))
            read()
            """
        ),
        fix=(
            ('Path("/data/in.json").write_text("[1, 2]")', "pass"),
            ("def read():", 'def read():\n        Path("/data/in.json").write_text("[1, 2]")'),
        ),
    ),
    Pair(
        rule="worker-local-state",
        check="clean",
        task_id="load",
        source=in_dag(
            """
            rows = []
            @task
            def extract():
                rows.extend([1, 2, 3])
                return [1, 2, 3]
            @task
            def load(extracted):
                Path("/data/out.json").write_text(json.dumps(rows))  # HERE
            load(extract())
            """
        ),
        fix=(("json.dumps(rows)", "json.dumps(extracted)"),),
    ),
    Pair(
        rule="masked-failure",
        check="crash.convert",
        task_id="convert",
        source=in_dag(
            """
            @task
            def convert():
                try:
                    os.rename("/data/in.csv", "/data/work.csv")  # HERE
                    text = Path("/data/work.csv").read_text()
                except FileNotFoundError:
                    return
                Path("/data/out.csv").write_text(text.upper())
            convert()
            """
        ),
        fix=(("os.rename(", "shutil.copyfile("),),
        prepare="world.write('/data/in.csv', 'a,b\\n')",
    ),
    Pair(
        rule="stale-xcom",
        check="crash.a_make",
        task_id="a_make",
        source=in_dag(
            """
            @task(retries=1)
            def a_make():
                return [1, 2, 3]
            @task
            def use(ti=None):
                rows = ti.xcom_pull(task_ids="a_make")
                Path("/data/out.json").write_text(json.dumps(rows))
            a_make(), use()
            """
        ),
        fix=(("a_make(), use()", "a_make() >> use()"),),
    ),
    Pair(
        name="damaged-checkpoint that breaks the task",
        rule="damaged-checkpoint",
        check="crash.load",
        task_id="load",
        source=in_dag(
            """
            @task
            def load():
                path = Path("/data/state.json")
                done = json.loads(path.read_text())["done"] if path.exists() else 0
                for n in range(done, 5):
                    Path(f"/data/part_{n}").write_text(f"part {n}\\n")
                    with open(path, "w") as out:  # HERE
                        json.dump({"done": n + 1}, out)
            load()
            """
        ),
        fix=(
            ("open(path,", 'open("/data/state.tmp",'),
            ("n + 1}, out)", 'n + 1}, out)\n            os.replace("/data/state.tmp", path)'),
        ),
    ),
    Pair(
        name="damaged-checkpoint that breaks the result",
        rule="damaged-checkpoint",
        check="crash.add_up",
        task_id="add_up",
        source=in_dag(
            """
            @task
            def add_up():
                path = Path("/data/state.json")
                text = path.read_text() if path.exists() else ""
                seen = json.loads(text) if text else {}
                for name in sorted(os.listdir("/data/in")):
                    seen[name] = int(Path("/data/in", name).read_text())
                    with open(path, "w") as out:  # HERE
                        json.dump(seen, out)
                    os.remove(f"/data/in/{name}")
                Path("/data/total").write_text(str(sum(seen.values())))
            add_up()
            """
        ),
        fix=(
            ("open(path,", 'open("/data/state.tmp",'),
            ("json.dump(seen, out)", 'json.dump(seen, out)\n            os.replace("/data/state.tmp", path)'),
        ),
        prepare="[world.write(f'/data/in/{n}', str(n)) for n in range(3, 6)]",
    ),
    Pair(
        name="lost-output after the success was recorded",
        rule="lost-output",
        check="crash.load",
        task_id="load",
        source=in_dag(
            """
            def publish(context):
                Path("/data/done").write_text("done")  # HERE
            @task(on_success_callback=publish)
            def load():
                Path("/data/out").write_text("1")
            load()
            """
        ),
        fix=(
            ("(on_success_callback=publish)", ""),
            ('write_text("1")', 'write_text("1")\n        publish({})'),
        ),
    ),
    Pair(
        name="lost-output of another task",
        rule="lost-output",
        check="rerun",
        task_id="a",
        source=in_dag(
            """
            @task
            def a():
                shutil.rmtree("/data/out", ignore_errors=True)
                os.makedirs("/data/out")  # HERE
                Path("/data/out/a").write_text("a")
            @task
            def b():
                Path("/data/out/b").write_text("b")
            a() >> b()
            """
        ),
        fix=(
            ('shutil.rmtree("/data/out", ignore_errors=True)', "pass"),
            ('makedirs("/data/out")', 'makedirs("/data/out", exist_ok=True)'),
        ),
    ),
    Pair(
        rule="wrong-output",
        check="rerun",
        task_id="count",
        source=in_dag(
            """
            @task
            def count():
                path = Path("/data/state.json")
                state = json.loads(path.read_text())
                state["total"] += 10
                Path("/data/state.tmp").write_text(json.dumps(state))
                os.replace("/data/state.tmp", path)  # HERE
            count()
            """
        ),
        fix=(('"total"] += 10', '"total"] = 17'),),
        prepare="world.write('/data/state.json', '{\"total\": 7}')",
    ),
)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_unsafe_one_is_found(dags: Project, pair: Pair) -> None:
    (dag,) = dags.checker.load(dags.write(pair.module, pair.source, pair.prepare)).dags
    result = dags.checker.run(dag, pair.check)
    assert result.verdict is Verdict.UNSAFE
    found = {(str(f.rule), f.task_id, f.file, f.line) for f in result.findings}
    assert (pair.rule, pair.task_id, f"dags/{pair.module}.py", pair.line) in found


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_the_twin_is_safe(dags: Project, pair: Pair) -> None:
    verdicts = dags.check(f"{pair.module}_fixed", pair.fixed, pair.prepare).sampled
    assert [(f.rule, f.summary) for f in verdicts.findings] == []
    assert {check: str(result.verdict) for check, result in verdicts.results.items()} == dict.fromkeys(
        verdicts.results, "safe"
    )


HARMLESS = {
    "times_and_ids_in_outputs": """
        @task
        def write():
            with open("/data/out.json", "w") as out:
                json.dump({"id": str(uuid.uuid4()), "at": datetime.now().isoformat(), "rows": 3}, out)
            with open("/data/out.csv", "w") as out:
                out.writelines(f"{n},{datetime.now()},{uuid.uuid4()}\\n" for n in range(5))
        write()
        """,
    "named_temporary_file": """
        @task
        def write():
            with tempfile.NamedTemporaryFile(
                "w", dir="/data", prefix="orders_", suffix=".csv", delete=False
            ) as out:
                out.write("1\\n2\\n")
            os.replace(out.name, "/data/out.csv")
        write()
        """,
    "temporary_folder": """
        @task
        def write():
            with tempfile.TemporaryDirectory() as folder:
                part = Path(folder, "part")
                part.write_text("1\\n")
                shutil.move(part, "/data/out.csv")
        write()
        """,
    "folders_at_parse": """
        os.makedirs("/data/out", exist_ok=True)
        Path("/data/logs").mkdir(parents=True, exist_ok=True)
        @task
        def write():
            Path("/data/out/rows").write_text("1\\n")
        write()
        """,
    "archives_and_settings_of_their_making": """
        @task
        def write():
            import gzip, io, tarfile, zipfile
            rows = "1,a\\n2,b\\n"
            with gzip.open("/data/out.csv.gz", "wt") as out:
                out.write(rows)
            with zipfile.ZipFile("/data/out.zip", "w") as archive:
                archive.writestr("rows.csv", rows)
                archive.writestr("about.json", json.dumps({"at": datetime.now().isoformat()}))
            with tarfile.open("/data/out.tar.gz", "w:gz") as archive:
                archive.add("/data/out.zip")
            names = list({"a": 1, "b": 2} if get_current_context()["ti"].try_number == 1 else {"b": 2, "a": 1})
            Path("/data/out.json").write_text(json.dumps({name: 1 for name in names}))
        write()
        """,
    "long_file_moved_into_place": """
        @task
        def write():
            if not os.path.exists("/data/out"):
                Path("/data/out.tmp").write_text("some text\\n" * 5000)
                os.replace("/data/out.tmp", "/data/out")
        write()
        """,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_finding(dags: Project, name: str) -> None:
    verdicts = dags.check(name, in_dag(HARMLESS[name]), "world.mkdir('/data')").sampled
    assert [(str(f.rule), f.summary) for f in verdicts.findings] == []
    assert verdicts.worst is Verdict.SAFE


@pytest.mark.parametrize(("dag_id", "rules"), [("in_order", {"wrong-output"}), ("in_any_order", set())])
def test_the_order_of_records_counts_unless_it_is_said_not_to(
    dags: Project, dag_id: str, rules: set[str]
) -> None:
    source = in_dag(
        """
        @task
        def write():
            again = get_current_context()["ti"].try_number > 1
            Path("/data/out.csv").write_text("2\\n1\\n" if again else "1\\n2\\n")
        write()
        """
    )
    source = source.replace("def d():", f"def {dag_id}():").replace("\nd()\n", f"\n{dag_id}()\n")
    assert dags.check(dag_id, source, "world.mkdir('/data')").rules == rules


def test_a_folder_whose_name_is_like_a_temporary_one_counts(dags: Project) -> None:
    source = in_dag(
        """
        @task
        def write():
            with open("/tmp/tmpreports/out.csv", "a") as out:
                out.write("1\\n")
        write()
        """
    )
    verdicts = dags.check("tmpreports", source, "world.mkdir('/tmp/tmpreports')")
    assert verdicts.rules == {"duplicate-output"}
