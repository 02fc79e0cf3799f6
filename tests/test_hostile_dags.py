"""DAGs that do to their process what no DAG should: each gets a verdict with a reason, and no other DAG notices."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dag_projects import Project, Verdicts, project

from pytest_rerunsafe.explore import pool, zygote
from pytest_rerunsafe.explore.channel import Channel, Closed
from pytest_rerunsafe.model import Verdict

INNOCENT = """
    from airflow.sdk import DAG, task

    with DAG("innocent"):
        @task
        def append():
            with open("log.csv", "a") as file:
                file.write("1")
        append()
"""


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Lower bounds, for all that is forked inside."""
    make_ready = zygote._make_ready

    def make_ready_and_hurry(*arguments: Any) -> Any:
        engine = make_ready(*arguments)
        from pytest_rerunsafe.explore import sandbox as module  # there only: it imports Airflow

        module.ATTEMPT_CPU_S = 1.0
        module.THREADS_S = 0.1
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zygote, "_make_ready", make_ready_and_hurry)
        yield


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("project").resolve()
    (root / "dags").mkdir()
    yield from project(root)


@pytest.fixture(scope="module", autouse=True)
def innocent(dags: Project) -> Iterator[None]:
    """When all deeds are done, the innocent DAG's results must be as if they had not been."""
    before = essence(dags.check("innocent", INNOCENT))
    yield
    assert essence(dags.check("innocent_still", INNOCENT)) == before


def essence(verdicts: Verdicts) -> dict[str, Any]:
    """All of the results but for what differs by intention: file name and durations."""
    return {
        check: (result.verdict, result.reason, result.coverage, [finding.rule for finding in result.findings])
        for check, result in verdicts.results.items()
    }


def in_a_task(deed: str) -> str:
    body = textwrap.indent(textwrap.dedent(deed).strip(), " " * 8)
    return f'from airflow.sdk import DAG, task\n\nwith DAG("hostile"):\n    @task\n    def act():\n{body}\n    act()\n'


def at_import(deed: str) -> str:
    body = textwrap.indent(textwrap.dedent(deed).strip(), " " * 4)
    return f"def act():\n{body}\n\nact()\n\n{in_a_task('pass')}"


# --- deeds ------------------------------------------------------------------------------------

ENDLESS = {
    "loop": "while True: pass",
    "loop that catches everything": """
        while True:
            try:
                while True: pass
            except BaseException:
                pass
    """,
}
WAITING = {
    "event": "import threading; threading.Event().wait()",
    "signal": "import signal; signal.sigwait([signal.SIGUSR1])",
}
BLOCKED = {
    "fork": ("import os; os.fork()", "forking a process"),
    "fork of multiprocessing": (
        "import multiprocessing; multiprocessing.Process(target=print).start()",
        "forking a process",
    ),
    "pool of processes": (
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(1).submit(print).result()",
        "making a lock for several processes",
    ),
    "subprocess": ("import subprocess; subprocess.run(['true'])", "starting the process `true`"),
    "system": ("import os; os.system('true')", "starting the process `true`"),
    "spawn": ("import os; os.posix_spawn('/bin/true', ['true'], {})", "starting the process"),
    "exec": ("import os; os.execv('/bin/true', ['true'])", "becoming the process"),
    "signal to the parent": ("import os; os.kill(os.getppid(), 9)", "sending signal 9 to process"),
    "connection": (
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "connecting to 127.0.0.1:9",
    ),
    "socket": (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "opening a network socket",
    ),
    "urllib": (
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')",
        "connecting to 127.0.0.1:9",
    ),
    "caught": (
        "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass",
        "connecting to 127.0.0.1:9",
    ),
    "ctypes": ("import ctypes; ctypes.CDLL(None).system(b'true')", "calling the C function `system`"),
    "sqlite": ("import _sqlite3; _sqlite3.connect('data.db')", "opening the SQLite file data.db"),
    "limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
        "changing the limits of the process",
    ),
    "mmap": (
        "import mmap\nopen('m', 'wb').write(b'x')\nwith open('m', 'r+b') as file: mmap.mmap(file.fileno(), 0)",
        "mmap cannot be followed",
    ),
}
FAILING = {
    "os._exit(0)": ("import os; os._exit(0)", "exit code 0"),
    "os._exit(3)": ("import os; os._exit(3)", "exit code 3"),
    "sys.exit": ("import sys; sys.exit(2)", "SystemExit: 2"),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    "abort": ("import os; os.abort()", "exit code -6"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "BaseException": ("class Gone(BaseException): pass\nraise Gone('for good')", "for good"),
    "recursion": ("def again(): again()\nagain()", "RecursionError"),
    "memory": ("kept = []\nwhile True: kept.append(bytes(10**8))", "MemoryError"),
    "input": ("input()", "EOFError"),
}
DEADLY = {
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "connection closed": (
        """
        import gc
        for found in gc.get_objects():
            if type(found).__name__ == "Channel": found.close()
        """,
        "took its worker process down",
    ),
    # Until CPython 3.10 the C stack ends first, later the bound of processor time is reached.
    "recursion without limit": (
        """
        import sys
        sys.setrecursionlimit(10**9)
        def again(): again()
        again()
    """,
        "",
    ),
    "builtins gone": (
        "import builtins\nfor name in ('len', 'isinstance', 'print', 'dict', 'tuple'): delattr(builtins, name)",
        "",
    ),
    "modules gone": ("import sys; sys.modules.clear()", ""),
}
HARMLESS = {
    "threads that are joined": """
        import threading
        thread = threading.Thread(target=print, args=("hello",))
        thread.start()
        thread.join()
    """,
    "100 MB of print": "for _ in range(1000): print('x' * 100_000)",
    "100 MB to descriptor 1": "import os\nfor _ in range(100): os.write(1, b'x' * 1_000_000)",
    "builtins.open": "import builtins; builtins.open = None",
    "pickle": "import pickle; pickle.dumps = pickle.loads = None",
    "sockets": "import socket; socket.socket.sendall = None; socket.socket = None",
    "time": "import time; time.time = lambda: 0.0; time.sleep = None",
    "directory and environment": """
        import os
        os.makedirs("folder", exist_ok=True)
        os.chdir("folder")
        os.environ["HOME"] = "/nowhere"
        os.environ.pop("PATH", None)
        os.umask(0o777)
    """,
    "closing a range": "import os; os.closerange(3, 100)",
    "closing everything": "import os; os.closerange(0, 1 << 20)",
    "closing each descriptor": """
        import os
        for fd in range(1024):
            try: os.close(fd)
            except OSError: pass
    """,
    "writing to each descriptor": """
        import os
        for fd in range(3, 1024):
            try: os.write(fd, b"nothing that anybody waits for")
            except OSError: pass
    """,
    "signal handlers": """
        import signal
        for number in (signal.SIGTERM, signal.SIGPROF, signal.SIGALRM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(1000)
    """,
    "tracing": "import sys; sys.settrace(lambda *_: None); sys.setprofile(lambda *_: None)",
    "modules": "import sys\nfor name in ('json', 'os', 'airflow.sdk'): sys.modules.pop(name)",
    "exit handlers": "import atexit; atexit.register(lambda: 1 / 0)",
    "standard output": "import sys; sys.stdout.close()",
    "imports of what stands in": "import os.path, requests",
    "a large XCom": "return 'x' * 20_000_000",
    "a long sleep": "import time; time.sleep(1e6)",
}
EVIL_XCOM = """
    class Evil:
        def __reduce__(self):
            import os
            return os._exit, (7,)
    return Evil()
"""


# --- in tasks ---------------------------------------------------------------------------------


@pytest.fixture
def judge(dags: Project) -> Any:
    """Checks a deed."""
    name = len(os.listdir(dags.root / "dags"))  # the results of a file are kept: each needs a new one
    return lambda source: dags.check(f"hostile_{name}", source)


def cases(table: dict[str, Any]) -> pytest.MarkDecorator:
    values = [value if isinstance(value, tuple) else (value, "") for value in table.values()]
    return pytest.mark.parametrize(("deed", "told"), values, ids=list(table))


@cases(ENDLESS)
def test_what_never_ends_is_bounded(judge: Any, deed: str, told: str) -> None:
    clean = judge(in_a_task(deed))["clean"]
    assert clean.verdict is Verdict.UNVERIFIABLE
    assert "act did not end within 1 s of processor time at dags/hostile_" in clean.reason


@cases(WAITING)
def test_what_waits_for_ever_is_bounded(
    judge: Any, deed: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "SILENCE_S", 3.0)
    clean = judge(in_a_task(deed))["clean"]
    monkeypatch.undo()
    assert clean.verdict is Verdict.UNVERIFIABLE
    assert "waits for something that does not come" in clean.reason


@cases(BLOCKED)
def test_what_leaves_the_process_is_refused_and_told(judge: Any, deed: str, told: str) -> None:
    clean = judge(in_a_task(deed))["clean"]
    assert clean.verdict is Verdict.UNVERIFIABLE
    assert told in clean.reason, "what"
    assert " at dags/hostile_" in clean.reason, "where"
    assert "`skip` the DAG with a reason" in clean.reason, "what to do"


@cases(FAILING)
def test_what_fails_the_task_is_an_error_with_the_reason(judge: Any, deed: str, told: str) -> None:
    clean = judge(in_a_task(deed))["clean"]
    assert clean.verdict is Verdict.ERROR
    assert "task act fails in the clean run" in clean.reason
    assert told in clean.reason


@cases(DEADLY)
def test_what_takes_the_worker_down_is_told(judge: Any, deed: str, told: str) -> None:
    clean = judge(in_a_task(deed))["clean"]
    assert clean.verdict in (Verdict.UNVERIFIABLE, Verdict.ERROR)
    assert clean.reason
    assert told in clean.reason


@cases(HARMLESS)
def test_what_ends_with_the_process_is_no_matter(judge: Any, deed: str, told: str) -> None:
    verdicts = judge(in_a_task(deed))
    assert {check: result.verdict for check, result in verdicts.results.items()} == {
        "clean": Verdict.SAFE,
        "rerun": Verdict.SAFE,
        "crash.act": Verdict.SAFE,
    }


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_outlives_its_task_is_told_by_every_check(judge: Any, daemon: bool) -> None:
    deed = f"import threading; threading.Thread(target=threading.Event().wait, daemon={daemon}).start()"
    verdicts = judge(in_a_task(deed))
    assert {result.verdict for result in verdicts.results.values()} == {Verdict.UNVERIFIABLE}
    assert all("outlives its task" in result.reason for result in verdicts.results.values())


def test_changes_by_a_thread_are_told(judge: Any) -> None:
    deed = """
        import threading
        thread = threading.Thread(target=lambda: open("x", "w").close())
        thread.start()
        thread.join()
    """
    clean = judge(in_a_task(deed))["clean"]
    assert clean.verdict is Verdict.UNVERIFIABLE
    assert "a thread made changes" in clean.reason


def test_an_xcom_that_would_run_code_is_refused_by_airflow(judge: Any) -> None:
    clean = judge(in_a_task(EVIL_XCOM))["clean"]
    assert clean.verdict is Verdict.ERROR
    assert "annot serialize object" in clean.reason


def test_what_only_a_recovery_does_is_judged_too(judge: Any) -> None:
    """A task that hangs once it finds its own leavings: the clean run shows nothing of it."""
    deed = """
        import os
        if os.path.exists("done"):
            while True: pass
        open("done", "w").close()
    """
    verdicts = judge(in_a_task(deed))
    assert verdicts["clean"].verdict is Verdict.SAFE
    assert verdicts["crash.act"].verdict is Verdict.UNVERIFIABLE
    assert "act did not end within 1 s" in verdicts["crash.act"].reason


def test_bytes_from_anybody_else_close_a_connection() -> None:
    """They are neither waited for to the end nor unpickled."""
    ours, theirs = Channel.pair()
    os.write(theirs.fileno(), b"nothing that anybody waits for")
    with pytest.raises(Closed):
        ours.receive()
    ours.close()
    theirs.close()


# --- at import --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        *((deed, "loading the DAG file did not end within 1 s") for deed in ENDLESS.values()),
        *FAILING.values(),
        DEADLY["segmentation fault"],
    ],
)
def test_a_file_that_does_not_load_says_why(dags: Project, deed: str, told: str) -> None:
    loaded = dags.load("hostile_import", at_import(deed))
    assert not loaded.dags
    assert told in loaded.error


def test_a_file_that_waits_for_ever_is_bounded(dags: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENCE_S", 3.0)
    loaded = dags.load("hostile_import", at_import(WAITING["event"]))
    assert "waits for something that does not come" in loaded.error


@cases(BLOCKED)
def test_a_file_that_reaches_out_says_for_what(dags: Project, deed: str, told: str) -> None:
    loaded = dags.load("hostile_import", at_import(deed))
    assert [told in obstacle.what for obstacle in loaded.obstacles] == [True]
    assert loaded.obstacles[0].where is not None
    assert loaded.obstacles[0].where.file == "dags/hostile_import.py"


@pytest.mark.parametrize(
    "name",
    [
        "builtins.open",
        "pickle",
        "sockets",
        "time",
        "closing everything",
        "modules",
        "imports of what stands in",
    ],
)
def test_what_a_file_does_to_its_process_is_no_matter(judge: Any, name: str) -> None:
    assert judge(at_import(HARMLESS[name])).worst is Verdict.SAFE


# --- afterwards -------------------------------------------------------------------------------


def descendants() -> set[int]:
    """The processes below this one."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
def test_closing_leaves_no_process_behind(tmp_path: Path, quick: None) -> None:
    before = descendants()
    made = project(tmp_path.resolve())
    dags = next(made)
    dags.check("innocent", INNOCENT)
    dags.check(
        "hostile", in_a_task("import threading; threading.Thread(target=threading.Event().wait).start()")
    )
    dags.check("deaf", in_a_task("import signal\nfor n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)"))
    started = descendants() - before
    assert started
    dags.checker.close()
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert next(made, None) is None, "closing twice does no harm"
