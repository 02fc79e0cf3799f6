"""Crashes that a task's own code can notice: its handlers run, and what they do counts."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import pytest
from dag_projects import Project, Verdicts, project

from pytest_rerunsafe.check import CheckerError
from pytest_rerunsafe.model import CrashKind, Finding, Outcome, Profile, Verdict
from pytest_rerunsafe.settings import Settings

HEAD = """\
import contextlib, json, os, shutil, signal, sqlite3, time
from datetime import datetime, timedelta
from airflow.sdk import BaseOperator, DAG, Variable, dag, task
"""


def in_dag(body: str) -> str:
    """A DAG file whose only DAG, `d`, has this body; `HERE` marks the line of a finding."""
    options = "schedule=None, start_date=datetime(2024, 1, 1)"
    return f"{HEAD}\n@dag({options})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


@pytest.fixture(scope="module")
def thorough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """As `dags`, by the most thorough profile."""
    folder = tmp_path_factory.mktemp("thorough").resolve()
    yield from project(folder, Settings(profile=Profile.THOROUGH))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A DAG that a kind of crash shows to be unsafe, and how to mend it."""

    name: str
    kind: CrashKind
    rule: str
    point: str
    source: str
    fix: tuple[str, str]
    prepare: str = "world.mkdir('/data')"

    @property
    def line(self) -> int:
        """The line marked `HERE`."""
        return next(number for number, text in enumerate(self.source.splitlines(), 1) if "HERE" in text)

    @property
    def fixed(self) -> str:
        """The safe twin."""
        assert self.source.count(self.fix[0]) == 1
        return self.source.replace(*self.fix)

    def __str__(self) -> str:
        return self.name


ERRORS = (
    Pair(
        name="marks_done_in_finally",
        kind=CrashKind.ERROR,
        rule="lost-output",
        point="load@create:/data/out.tmp#1",
        source=in_dag(
            """
            @task(retries=1)
            def load():
                if os.path.exists("/data/done"):
                    return
                try:
                    with open("/data/out.tmp", "w") as out:  # HERE
                        out.write("row\\n" * 10)
                    os.replace("/data/out.tmp", "/data/out")
                finally:
                    os.mkdir("/data/done")
            load()
            """
        ),
        fix=("finally:", "except ZeroDivisionError:\n            raise\n        else:"),
    ),
    Pair(
        name="goes_on_without_its_report",
        kind=CrashKind.ERROR,
        rule="masked-failure",
        point="load@create:/data/report.tmp#1",
        source=in_dag(
            """
            @task
            def load():
                try:
                    with open("/data/report.tmp", "w") as report:  # HERE
                        report.write("10 rows")
                    os.replace("/data/report.tmp", "/data/report")
                except OSError as error:
                    print("no report:", error)
            load()
            """
        ),
        fix=('print("no report:", error)', "raise"),
    ),
    Pair(
        name="goes_on_without_its_xcom",
        kind=CrashKind.ERROR,
        rule="stale-xcom",
        point="extract@xcom:count#1",
        source=in_dag(
            """
            @task
            def extract(ti=None):
                try:
                    ti.xcom_push("count", 3)  # HERE
                except Exception:
                    print("no count")

            @task
            def load(ti=None):
                count = ti.xcom_pull(task_ids="extract", key="count") or 0
                with open("/data/out.tmp", "w") as out:
                    out.write(f"{count} rows")
                os.replace("/data/out.tmp", "/data/out")
            extract() >> load()
            """
        ),
        fix=('print("no count")', "raise"),
    ),
)


def without_power(verdicts: Verdicts) -> tuple[Finding, ...]:
    """The findings but those of a power loss, of which no DAG here takes care."""
    return tuple(finding for finding in verdicts.findings if finding.crash_kind is not CrashKind.POWER)


def check_pair(project: Project, pair: Pair) -> Finding:
    """The one finding of the unsafe DAG; its twin has none."""
    unsafe = project.check(f"{pair.name}_unsafe", pair.source, pair.prepare)
    (finding,) = without_power(unsafe)
    assert (finding.crash_kind, str(finding.rule)) == (pair.kind, pair.rule)
    assert (finding.crash_point, finding.line) == (pair.point, pair.line)
    fixed = project.check(f"{pair.name}_fixed", pair.fixed, pair.prepare)
    assert without_power(fixed) == ()
    assert all(result.verdict in (Verdict.SAFE, Verdict.UNSAFE) for result in fixed.results.values())
    assert "?" not in "".join(result.crash_map for result in fixed.results.values()), (
        "all was tried that can happen"
    )
    return finding


def outcome(project: Project, name: str, scenario: str) -> Outcome:
    """How a scenario ends, of a DAG that has been written."""
    (dag,) = project.checker.load(str(project.root / "dags" / f"{name}.py")).dags
    return project.checker.outcome(dag, f"d:{scenario}")


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ERRORS, ids=str)
def test_an_error_finds_what_no_kill_can_show(dags: Project, pair: Pair) -> None:
    finding = check_pair(dags, pair)
    assert finding.next_effect


APPENDS_AND_CLEANS_UP = in_dag(
    """
    @task(retries=1)
    def load():
        size = os.path.getsize("/data/out")
        try:
            with open("/data/out", "a") as out:
                for number in range(3):
                    out.write(f"{number}\\n")
                    out.flush()
        except Exception:
            os.truncate("/data/out", size)
            raise
    load()
    """
)


def test_a_handler_that_cleans_up_hides_from_errors_what_a_kill_shows(dags: Project) -> None:
    verdicts = dags.check("cleans_up", APPENDS_AND_CLEANS_UP, "world.write('/data/out', 'old\\n')")
    (finding,) = verdicts["crash.load"].findings
    assert finding.crash_kind is CrashKind.KILL
    assert str(finding.rule) == "duplicate-output"
    place = "load@write:/data/out#2"
    clean, error, kill = (
        outcome(dags, "cleans_up", scenario)
        for scenario in (f"{place[:-2]}#3:kill:retry", f"{place}:error:retry", f"{place}:kill:retry")
    )
    assert error.outputs["file:/data/out"].content == b"old\n0\n1\n2\n"
    assert kill.outputs["file:/data/out"].content == b"old\n0\n1\n0\n1\n2\n"
    assert clean.outputs["file:/data/out"].content == b"old\n0\n1\n2\n0\n1\n2\n"


def test_each_operation_fails_as_it_does_in_life(dags: Project) -> None:
    dags.check(
        "errors_of_life",
        in_dag(
            """
            @task
            def load(ti=None):
                seen = []
                def attempt(operation):
                    try:
                        operation()
                    except Exception as error:
                        seen.append(str(error) or repr(error))
                def write():
                    with open("/data/out", "w") as out:
                        out.write("x")
                def commit():
                    database = sqlite3.connect("/data/db")
                    database.execute("CREATE TABLE rows (number)")
                    database.close()
                attempt(commit)
                attempt(lambda: os.mkdir("/data/folder"))
                attempt(write)
                attempt(lambda: os.rename("/data/out", "/data/moved"))
                attempt(lambda: os.truncate("/data/moved", 0))
                attempt(lambda: ti.xcom_push(key="name", value=1))
                attempt(lambda: os.unlink("/data/moved"))
                with open("/data/seen.tmp", "w") as out:
                    out.write("; ".join(seen))
                os.replace("/data/seen.tmp", "/data/seen")
            load()
            """
        ),
        "world.mkdir('/data')",
    )

    def seen(change: str) -> str:
        found = outcome(dags, "errors_of_life", f"load@{change}#1:error:go-on")
        return found.outputs["file:/data/seen"].content.decode()

    assert seen("mkdir:/data/folder") == "[Errno 13] Permission denied: '/data/folder'"
    assert seen("create:/data/out").startswith("[Errno 13] Permission denied: '/data/out'; ")
    assert seen("write:/data/out") == "[Errno 28] No space left on device"
    assert seen("rename:/data/moved").startswith("[Errno 13] Permission denied: '/data/moved'; ")
    assert seen("truncate:/data/moved") == "[Errno 5] Input/output error"
    assert seen("unlink:/data/moved") == "[Errno 13] Permission denied: '/data/moved'"
    assert "API_SERVER_ERROR" in seen("xcom:name")
    assert seen("commit:/data/db") == "database or disk is full"


def test_a_disk_that_is_full_stays_full_while_the_file_is_closed(dags: Project) -> None:
    """CPython flushes once more what could not be written; with a real full disk, such as `/dev/full`, in vain too."""
    source = in_dag(
        """
        @task
        def load():
            with contextlib.suppress(OSError), open("/data/out", "w") as out:
                out.write("x" * 100)
                out.flush()
            with open("/data/seen", "w") as out:
                out.write("whole" if os.path.getsize("/data/out") else "empty")
        load()
        """
    )
    dags.check("full_disk", source, "world.mkdir('/data')")
    left = outcome(dags, "full_disk", "load@write:/data/out#1:error:go-on")
    assert left.outputs["file:/data/seen"].content == b"empty"


def test_what_python_cannot_raise_is_nobodys_fault(dags: Project) -> None:
    """A file that nobody closes is flushed where no code can be told that the disk is full."""
    source = in_dag(
        """
        @task
        def load():
            json.dump({"rows": 1}, open("/data/out.tmp", "w"))
            os.replace("/data/out.tmp", "/data/out")
        load()
        """
    )
    assert dags.check("unclosed", source, "world.mkdir('/data')").worst is Verdict.SAFE


def test_what_could_not_be_removed_and_is_still_there_is_nobodys_fault(dags: Project) -> None:
    source = in_dag(
        """
        @task
        def load():
            with open("/data/part", "w") as out:
                out.write("x")
            shutil.copy("/data/part", "/data/out")
            with contextlib.suppress(OSError):
                os.unlink("/data/part")
        load()
        """
    )
    assert dags.check("keeps_a_part", source, "world.mkdir('/data')").worst is Verdict.SAFE
    left = outcome(dags, "keeps_a_part", "load@unlink:/data/part#1:error:go-on")
    assert set(left.outputs) == {"file:/data/part", "file:/data/out"}


def test_a_change_that_does_not_come_again_cannot_fail(dags: Project) -> None:
    source = in_dag(
        """
        @task
        def load():
            part = f"/data/{id(object()) % 90000 + 10000}_zq"
            with open(part, "w") as out:
                out.write("x")
            os.replace(part, "/data/out")
        load()
        """
    )
    assert dags.check("other_names", source, "world.mkdir('/data')").worst is Verdict.SAFE


def test_an_error_on_every_try_finds_what_the_last_try_does(thorough: Project) -> None:
    pair = Pair(
        name="gives_up",
        kind=CrashKind.ERROR_EACH_TRY,
        rule="lost-output",
        point="load@create:/data/out.tmp#1",
        source=in_dag(
            """
            @task(retries=1)
            def load(ti=None):
                if os.path.exists("/data/done"):
                    return
                try:
                    with open("/data/out.tmp", "w") as out:  # HERE
                        out.write("x")
                    os.replace("/data/out.tmp", "/data/out")
                except OSError:
                    if ti.try_number == 2:
                        os.mkdir("/data/done")
                    raise
            load()
            """
        ),
        fix=("if ti.try_number == 2:", "if False:"),
    )
    check_pair(thorough, pair)


def test_a_library_that_keeps_the_servers_failure_to_itself_is_not_the_dags_fault(dags: Project) -> None:
    source = in_dag(
        """
        class Quiet(BaseOperator):
            def execute(self, context):
                import quiet_library
                quiet_library.push(context["ti"])

        Quiet(task_id="load")
        """
    )
    library = (
        "def push(ti):\n    try:\n        ti.xcom_push('note', 1)\n    except Exception:\n        pass\n"
    )
    folder = dags.root / "site-packages"
    folder.mkdir()
    (folder / "quiet_library.py").write_text(library)
    source = source.replace(
        "import quiet_library", f"import sys; sys.path.insert(0, {str(folder)!r}); import quiet_library"
    )
    reader = "@task\n    def read(ti=None):\n        return ti.xcom_pull(task_ids='load', key='note')\n    read() << "
    verdicts = dags.check("quiet", source.replace("    Quiet(task", f"    {reader}Quiet(task"))
    assert verdicts.worst is Verdict.SAFE


# --- signals ----------------------------------------------------------------------------------

SIGNALS = (
    Pair(
        name="times_out_and_marks_done",
        kind=CrashKind.TIMEOUT,
        rule="lost-output",
        point="load@create:/data/out.tmp#1",
        source=in_dag(
            """
            @task(retries=1, execution_timeout=timedelta(minutes=5))
            def load():
                if os.path.exists("/data/done"):
                    return
                try:
                    with open("/data/out.tmp", "w") as out:  # HERE
                        out.write("row\\n" * 10)
                    os.replace("/data/out.tmp", "/data/out")
                except BaseException as error:
                    if not isinstance(error, OSError):
                        os.mkdir("/data/done")
                    raise
            load()
            """
        ),
        fix=("if not isinstance(error, OSError):", "if isinstance(error, KeyboardInterrupt):"),
    ),
    Pair(
        name="destroys_on_kill",
        kind=CrashKind.SIGTERM,
        rule="lost-output",
        point="load@rename:/data/out#1",
        source=in_dag(
            """
            class Load(BaseOperator):
                def execute(self, context):
                    with open("/data/out.tmp", "w") as out:
                        out.write("row\\n" * 10)
                    os.replace("/data/out.tmp", "/data/out")  # HERE

                def on_kill(self):
                    if os.path.exists("/data/out"):
                        os.unlink("/data/out")
            Load(task_id="load")
            """
        ),
        fix=("on_kill(self):\n", "on_kill(self):\n            raise SystemExit\n"),
    ),
    Pair(
        name="marks_done_on_sigterm",
        kind=CrashKind.SIGTERM,
        rule="lost-output",
        point="load@create:/data/out.tmp#1",
        source=in_dag(
            """
            @task
            def load():
                if os.path.exists("/data/done"):
                    return
                signal.signal(signal.SIGTERM, lambda *_: os.mkdir("/data/done"))
                with open("/data/out.tmp", "w") as out:  # HERE
                    out.write("row\\n" * 10)
                time.sleep(10)
                os.replace("/data/out.tmp", "/data/out")
            load()
            """
        ),
        fix=('lambda *_: os.mkdir("/data/done")', "lambda *_: exit(1)"),
    ),
)


@pytest.mark.parametrize("pair", SIGNALS, ids=str)
def test_a_signal_finds_what_no_kill_can_show(dags: Project, pair: Pair) -> None:
    check_pair(dags, pair)


def test_a_time_out_comes_where_code_of_the_task_goes_on_and_leaves_its_buffers_whole(dags: Project) -> None:
    source = in_dag(
        """
        @task(retries=1, execution_timeout=timedelta(minutes=5))
        def load():
            started = time.time()
            try:
                with open("/data/part", "w") as part:
                    for number in range(4000):
                        part.write(f"{number}\\n")
            except BaseException as error:
                with open("/data/seen", "w") as seen:
                    seen.write(f"{type(error).__name__} after {time.time() - started:.0f} s")
                raise
        load()
        """
    )
    dags.check("buffers", source, "world.mkdir('/data')")
    ended = outcome(dags, "buffers", "load@write:/data/part#1:timeout:retry")
    assert ended.left is not None
    assert ended.left["/data/seen"].content == b"AirflowTaskTimeout after 300 s"
    lines = ended.left["/data/part"].content.decode().splitlines()
    assert 1000 < len(lines) < 4000
    assert lines == [str(number) for number in range(len(lines))]  # flushed to the last line that was written
    assert [attempt.state for attempt in ended.attempts] == ["up_for_retry", "success"]


def test_after_sigterm_the_task_goes_on_until_it_is_killed(dags: Project) -> None:
    source = in_dag(
        """
        class Load(BaseOperator):
            def execute(self, context):
                for number in range(4):
                    os.mkdir(f"/data/{context['ti'].try_number}-{number}")
                    time.sleep(2)

            def on_kill(self):
                os.mkdir("/data/killed")

        Load(task_id="load", retries=1)
        """
    )
    dags.check("goes_on", source, "world.mkdir('/data')")
    early, late = (
        outcome(dags, "goes_on", f"load@mkdir:/data/1-{n}#1:sigterm:{how}")
        for n, how in ((0, "clear-downstream"), (2, "go-on"))
    )
    assert early.left is not None
    assert late.left is not None
    # A SIGKILL follows after five seconds, in which the task sleeps twice and a half.
    assert sorted(path for path in early.left if "-" in path) == ["/data/1-0", "/data/1-1", "/data/1-2"]
    assert sorted(path for path in late.left if "-" in path) == [f"/data/1-{n}" for n in range(4)]
    assert "/data/killed" in early.left
    assert "/data/killed" in late.left
    # Airflow 3.1 does not retry a task whose process was killed, later ones do.
    assert [attempt.state == "success" for attempt in early.attempts] == [False, True]
    assert [attempt.state for attempt in late.attempts] == ["success"]


def test_signals_that_nobody_heeds_are_not_tried(dags: Project) -> None:
    dags.check(
        "heeds_nothing",
        in_dag("@task\ndef load():\n    os.mkdir('/data/out')\nload()"),
        "world.mkdir('/data')",
    )
    for kind in ("timeout", "sigterm"):
        with pytest.raises(CheckerError, match="no scenario"):
            outcome(dags, "heeds_nothing", f"load@mkdir:/data/out#1:{kind}:go-on")


@pytest.mark.skipif(
    version("apache-airflow-core").startswith("3.1."), reason="Airflow 3.1 does not retry such a task"
)
def test_a_task_whose_process_ends_itself_is_retried(dags: Project) -> None:
    source = in_dag(
        """
        @task(retries=1)
        def load(ti=None):
            os.makedirs("/data/out", exist_ok=True)
            if ti.try_number == 1:
                os._exit(1)
            os.makedirs("/data/done", exist_ok=True)
        load()
        """
    )
    assert dags.check("ends_itself", source, "world.mkdir('/data')").worst is Verdict.SAFE


# --- zombies ----------------------------------------------------------------------------------


def test_a_worker_that_was_taken_for_dead_and_lives_on_finds_what_no_kill_can_show(thorough: Project) -> None:
    pair = Pair(
        name="looks_before_it_adds",
        kind=CrashKind.ZOMBIE,
        rule="duplicate-output",
        point="load@mkdir:/data/began#1",
        source=in_dag(
            """
            @task(retries=1)
            def load():
                with open("/data/log") as log:
                    known = log.read()
                os.makedirs("/data/began", exist_ok=True)  # HERE
                if "batch" not in known:
                    with open("/data/log", "a") as log: log.write("batch\\n")
            load()
            """
        ),
        fix=(
            'with open("/data/log", "a") as log: log.write("batch\\n")',
            'with open("/data/log.tmp", "w") as log: log.write(known + "batch\\n")\n'
            '            os.replace("/data/log.tmp", "/data/log")',
        ),
        prepare="world.write('/data/log', 'old\\n')",
    )
    check_pair(thorough, pair)


LIVES_ON = in_dag(
    """
    @task(retries=1)
    def load(ti=None):
        os.chdir("/data")
        import random
        random.seed(ti.try_number)
        with open("rows", "a") as rows:
            rows.write(f"{ti.try_number}\\n")
            rows.flush()
            os.makedirs("began", exist_ok=True)
            rows.write(f"{ti.try_number} {os.getcwd()} {os.environ['AIRFLOW_CTX_TRY_NUMBER']} {random.random():.4f}\\n")
        ti.xcom_push("who", ti.try_number)
        time.sleep(11)
        os.mkdir(f"late-{ti.try_number}")
    load()
    """
)


def test_a_zombie_goes_on_as_it_was_in_a_world_that_is_another(thorough: Project) -> None:
    file = thorough.write("lives_on", LIVES_ON, "world.mkdir('/data')")
    (dag,) = thorough.checker.load(file).dags
    ended = thorough.checker.outcome(dag, "d:load@mkdir:/data/began#1:zombie:retry")
    lines = ended.outputs["file:/data/rows"].content.decode().splitlines()
    # Airflow has run the second try to its end by the time that the first one writes its second line.
    assert lines == ["1", "2", "2 /data 2 0.9560", "1 /data 1 0.1344"]
    assert ended.run_state == "success"
    assert [(attempt.try_number, attempt.state) for attempt in ended.attempts] == [
        (2, "success"),
        (1, "given up"),
    ]
    assert ended.outputs["xcom:load/who"].content == b"1"
    # It is killed some seconds after it has woken up, when a heartbeat is refused.
    assert ended.attempts[-1].exit_code == -9
