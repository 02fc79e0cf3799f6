"""The wall: what is refused, told, let pass. Each test runs in a forked child, for hooks stay for good."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from multiprocessing import shared_memory
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from forked import in_child

from pytest_rerunsafe.model import Location, Obstacle
from pytest_rerunsafe.world.guard import (
    PID,
    BlockedError,
    Guard,
    ProcessExited,
    cpu_bound,
    limit_resources,
    real_files_allowed,
)


def locate(frame: FrameType) -> Location | None:
    """The project's code is what `task` functions hold."""
    if frame.f_code.co_name == "task":
        return Location(file="dags/d.py", line=frame.f_lineno - frame.f_code.co_firstlineno, function="task")
    return None


class Wall:
    """A guard in use, with what it told."""

    def __init__(self) -> None:
        self.obstacles: list[Obstacle] = []
        self.exits: list[int] = []
        self.guard = Guard(locate=locate, on_obstacle=self.obstacles.append, on_exit=self.exits.append)
        self.guard.install()

    def run(self, task: Callable[[], Any]) -> str:
        """What the task was refused with."""
        with self.guard.up():
            try:
                task()
            except BlockedError as error:
                return str(error)
        return ""


def attempt(task: Callable[[], Any]) -> tuple[str, list[Obstacle]]:
    """In a child: the refusal and the obstacles of a task."""

    def child() -> tuple[str, list[Obstacle]]:
        wall = Wall()
        return wall.run(task), wall.obstacles

    result: tuple[str, list[Obstacle]] = in_child(child)
    return result


def check(act: Callable[[], Any], what: str) -> None:
    """`act` is refused and told as `what`, with place and remedy."""

    def task() -> None:
        act()

    message, obstacles = attempt(task)
    assert [obstacle.what for obstacle in obstacles] == [what]
    (obstacle,) = obstacles
    assert obstacle.where == Location(file="dags/d.py", line=1, function="task")
    assert obstacle.remedy.endswith("`skip` the DAG with a reason.")
    assert message == f"pytest-rerunsafe: {what} is blocked. {obstacle.remedy}"


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "a", "x", "r+", "wb"])
def test_writing_a_real_file_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "file"
    if mode == "r+":
        path.write_text("before")
    before = path.read_text() if path.exists() else None
    check(lambda: path.open(mode), f"writing the real file {path}")
    assert (path.read_text() if path.exists() else None) == before


PATH_ACTS: dict[str, tuple[Callable[[str], Any], str]] = {
    "os.open": (lambda path: os.open(path, os.O_WRONLY), "writing"),
    "remove": (os.remove, "removing"),
    "rename": (lambda path: os.rename(path, path + "2"), "renaming"),
    "replace": (lambda path: os.replace(path, path + "2"), "renaming"),
    "mkdir": (lambda path: os.mkdir(path), "making"),
    "rmdir": (lambda path: os.rmdir(path), "removing"),
    "link": (lambda path: os.link(path, path + "2"), "linking"),
    "symlink": (lambda path: os.symlink(path, path + "2"), "linking"),
    "truncate": (lambda path: os.truncate(path, 0), "truncating"),
    "chmod": (lambda path: os.chmod(path, 0), "changing the mode of"),
    "chown": (lambda path: os.chown(path, 1, 1), "changing the owner of"),
    "utime": (lambda path: os.utime(path, (1, 1)), "changing the times of"),
}


@pytest.mark.parametrize("name", PATH_ACTS)
def test_changing_the_real_disk_is_refused(tmp_path: Path, name: str) -> None:
    path, (act, verb) = tmp_path / "file", PATH_ACTS[name]
    path.write_text("content")
    before = path.stat()
    check(lambda: act(str(path)), f"{verb} the real file {path}")
    assert path.read_text() == "content"
    after = path.stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_uid) == (
        before.st_mtime_ns,
        before.st_mode,
        before.st_uid,
    )
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["mkfifo", "mknod"])
def test_special_files_are_refused_though_no_event_tells(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "special")
    check(lambda: getattr(os, name)(path), f"making the special file {path}")
    assert os.listdir(tmp_path) == []


def test_reading_imports_and_the_null_device_may_pass(tmp_path: Path) -> None:
    (tmp_path / "fresh_module.py").write_text("value = 1")

    def task() -> None:
        sys.path.insert(0, str(tmp_path))
        assert __import__("fresh_module").value == 1
        (tmp_path / "fresh_module.py").read_text()
        Path(os.devnull).write_text("x")

    assert attempt(task) == ("", [])
    assert os.listdir(tmp_path) == ["fresh_module.py"]


def test_the_fake_file_system_above_passes() -> None:
    from pyfakefs.fake_filesystem_unittest import Patcher

    def child() -> list[Obstacle]:
        wall = Wall()
        with Patcher(), wall.guard.up():
            use_fake_files()
        return wall.obstacles

    assert in_child(child) == []


def use_fake_files() -> None:
    os.makedirs("/data/in")
    Path("/data/in/a").write_text("x")
    with open("/data/in/a", "a") as file:
        file.write("y")
    os.rename("/data/in/a", "/data/b")
    os.chmod("/data/b", 0o600)
    os.utime("/data/b")
    os.symlink("/data/b", "/data/c")
    os.remove("/data/b")
    __import__("shutil").rmtree("/data")


def test_processes_and_exits_are_seen_through_the_fake_file_system() -> None:
    from pyfakefs.fake_filesystem_unittest import Patcher

    def child() -> tuple[str, list[int]]:
        wall = Wall()
        with Patcher():
            message = wall.run(lambda: subprocess.run(["true"], capture_output=True))
            with wall.guard.up(), pytest.raises(ProcessExited):
                os._exit(4)
        return message, wall.exits

    message, exits = in_child(child)
    assert message.startswith("pytest-rerunsafe: starting the process `true` is blocked.")
    assert exits == [4]


# --- network, processes, memory, databases ----------------------------------------------------


def connect_a_local_socket() -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/run/nobody.sock")


def bind_a_local_socket() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("never.sock")


def send_a_local_datagram() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", "/run/nobody.sock")


ACTS: dict[str, tuple[Callable[[], Any], str]] = {
    "create_connection": (
        lambda: socket.create_connection(("db.invalid", 5432)),
        "connecting to db.invalid:5432",
    ),
    "http": (lambda: HTTPConnection("api.invalid").request("GET", "/"), "connecting to api.invalid:80"),
    "socket": (socket.socket, "opening a network socket"),
    "socket6": (lambda: socket.socket(socket.AF_INET6), "opening a network socket"),
    "connect local": (connect_a_local_socket, "connecting to /run/nobody.sock"),
    "bind local": (bind_a_local_socket, "listening on never.sock"),
    "sendto": (send_a_local_datagram, "sending to /run/nobody.sock"),
    "gethostbyname": (lambda: socket.gethostbyname("db.invalid"), "looking up db.invalid"),
    "gethostbyaddr": (lambda: socket.gethostbyaddr("203.0.113.1"), "looking up 203.0.113.1"),
    "Popen": (lambda: subprocess.run(["ls", "-l", "a b"]), "starting the process `ls -l 'a b'`"),
    "shell": (lambda: subprocess.run("ls | wc", shell=True), "starting the process `ls | wc`"),
    "Popen by name": (lambda: subprocess.Popen(args=["ls"]), "starting the process `ls`"),
    "spawn context": (
        lambda: __import__("_posixsubprocess").fork_exec([b"/bin/ls", b"-l"]),
        "starting the process `/bin/ls -l`",
    ),
    "system": (lambda: os.system("ls -l"), "starting the process `ls -l`"),
    "popen": (lambda: os.popen("ls -l"), "starting the process `ls -l`"),
    "posix_spawn": (lambda: os.posix_spawn("/bin/ls", ["ls"], {}), "starting the process `ls`"),
    "execv": (lambda: os.execv("/bin/ls", ["ls", "-a"]), "becoming the process `ls -a`"),
    "fork": (os.fork, "forking a process"),
    "spawnl": (lambda: os.spawnl(os.P_WAIT, "/bin/ls", "ls"), "forking a process"),
    "kill": (lambda: os.kill(os.getppid(), signal.SIGTERM), f"sending signal 15 to process {os.getpid()}"),
    "killpg": (lambda: os.killpg(1, signal.SIGTERM), "sending signal 15 to process group 1"),
    "stop": (lambda: os.kill(0, signal.SIGKILL), "sending signal 9 to process 0"),
    "ctypes": (lambda: ctypes.CDLL(None).unlink, "calling the C function `unlink` through ctypes"),
    "limits": (
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        "changing the limits of the process",
    ),
    "sqlite": (lambda: sqlite3.connect("/data/x.db"), "opening the SQLite file /data/x.db"),
    "shared memory": (
        lambda: shared_memory.SharedMemory("never_made", create=True, size=1),
        "opening the shared memory /never_made",
    ),
}


@pytest.mark.parametrize("name", ACTS)
def test_reaching_for_the_world_is_refused(name: str) -> None:
    act, what = ACTS[name]
    check(act, what)


def test_a_socket_from_before_reaches_nobody() -> None:
    with socket.socket() as client:
        check(lambda: client.connect(("203.0.113.1", 5432)), "connecting to 203.0.113.1:5432")


def test_mapping_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with (tmp_path / "file").open("r+b") as file:
        check(lambda: mmap.mmap(file.fileno(), 0), "mapping a file into memory with mmap")


def test_harmless_acts_pass() -> None:
    def task() -> None:
        for end in socket.socketpair():
            end.close()
        __import__("asyncio").run(__import__("asyncio").sleep(0))
        mmap.mmap(-1, 10).close()
        assert sqlite3.connect(":memory:").execute("select 1").fetchall() == [(1,)]
        sqlite3.connect("file:x?mode=memory", uri=True).close()
        assert ctypes.CDLL(None).getpid() > 0
        os.kill(os.getppid(), 0)
        os.killpg(os.getpgrp(), 0)
        resource.prlimit(0, resource.RLIMIT_NOFILE)
        threading.Thread(target=len, args=("",)).start()

    assert attempt(task) == ("", [])


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "load_extension"), reason="CPython was built without")
def test_extensions_of_sqlite_are_refused() -> None:
    check(lambda: sqlite3.connect(":memory:").enable_load_extension(True), "loading SQLite extensions")


# --- telling ----------------------------------------------------------------------------------


def test_each_place_is_told_once_and_anew_when_the_wall_goes_up_again() -> None:
    def task() -> None:
        for _ in range(3):
            with pytest.raises(BlockedError):
                socket.socket()
        with pytest.raises(BlockedError):
            socket.socket()

    def child() -> list[list[int]]:
        wall, lines = Wall(), []
        for _ in range(2):
            wall.run(task)
            lines.append([obstacle.where.line for obstacle in wall.obstacles if obstacle.where])
            wall.obstacles.clear()
        return lines

    assert in_child(child) == [[3, 5], [3, 5]]


def test_code_without_a_project_frame_is_told_without_a_place() -> None:
    message, obstacles = attempt(lambda: os.system("ls"))
    assert message
    assert [obstacle.where for obstacle in obstacles] == [None]


def test_a_library_that_probes_while_it_is_imported_is_refused_but_not_told(tmp_path: Path) -> None:
    (tmp_path / "probing_library.py").write_text(
        "import socket\ntry:\n    socket.socket()\n    has = True\nexcept OSError:\n    has = False\n"
    )

    def task() -> None:
        sys.path.insert(0, str(tmp_path))
        assert __import__("probing_library").has is False

    assert attempt(task) == ("", [])


def test_a_lowered_wall_and_a_lifted_one_let_pass(tmp_path: Path) -> None:
    def child() -> list[Obstacle]:
        wall = Wall()
        (tmp_path / "before").write_text("x")
        with wall.guard.up():
            with wall.guard.lifted():
                (tmp_path / "lifted").write_text("x")
            with pytest.raises(BlockedError):
                (tmp_path / "refused").write_text("x")
        (tmp_path / "after").write_text("x")
        return wall.obstacles

    assert len(in_child(child)) == 1
    assert sorted(os.listdir(tmp_path)) == ["after", "before", "lifted"]


def test_lifting_is_for_the_own_thread_alone() -> None:
    def child() -> list[str]:
        wall, refusals = Wall(), []

        def other() -> None:
            try:
                socket.socket()
            except BlockedError as error:
                refusals.append(str(error))

        with wall.guard.up(), wall.guard.lifted():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        return refusals

    assert len(in_child(child)) == 1


# --- ends of the process ----------------------------------------------------------------------


ENDS: dict[str, tuple[Callable[[], Any], int]] = {
    "_exit": (lambda: os._exit(3), 3),
    "_exit 256": (lambda: os._exit(256), 0),
    "abort": (lambda: os.abort(), -signal.SIGABRT),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), -9),
    "raise": (lambda: signal.raise_signal(signal.SIGKILL), -9),
    "pthread_kill": (lambda: signal.pthread_kill(threading.get_ident(), signal.SIGKILL), -9),
    "default of SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), -15),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_freezes_the_world_before_any_finally_runs(name: str) -> None:
    act, code = ENDS[name]

    def task(wall: Wall, seen: list[int]) -> None:
        try:
            act()
        except Exception:
            seen.append(1000)
        finally:
            seen.extend(wall.exits)

    def child() -> tuple[list[int], list[int], int]:
        wall, seen = Wall(), list[int]()
        with wall.guard.up(), pytest.raises(ProcessExited) as caught:
            task(wall, seen)
        return wall.exits, seen, caught.value.exit_code

    assert in_child(child) == ([code], [code], code)


def test_a_signal_that_the_task_handles_gets_there() -> None:
    def child() -> tuple[list[int], list[int]]:
        wall, got = Wall(), list[int]()
        signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
        with wall.guard.up():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGCHLD)
        return got, wall.exits

    assert in_child(child) == ([15, 15], [])


def test_a_stop_is_refused_for_nobody_would_wake_us() -> None:
    message, _ = attempt(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    assert message.startswith(f"pytest-rerunsafe: sending signal {int(signal.SIGSTOP)} to process ")


def test_below_the_wall_an_exit_is_real() -> None:
    pid = os.fork()
    if pid == 0:
        Wall()
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_stop_takes_the_patches_off() -> None:
    def child() -> bool:
        sys.dont_write_bytecode = False
        before = (os._exit, os.kill, signal.raise_signal, os.mkfifo)
        wall = Wall()
        assert os._exit is not before[0]
        assert sys.dont_write_bytecode
        wall.guard.stop()
        return (os._exit, os.kill, signal.raise_signal, os.mkfifo) == before

    assert in_child(child)


# --- limits and runaway code ------------------------------------------------------------------


def test_not_a_byte_reaches_a_file_that_python_does_not_see(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def child() -> str:
        limit_resources()
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="File too large") as caught:
            os.write(descriptor, b"x")
        with real_files_allowed():
            os.write(descriptor, b"ours")
        with pytest.raises(OSError, match="File too large"):
            os.write(descriptor, b"x")
        return type(caught.value).__name__

    in_child(child)
    assert path.read_bytes() == b"ours"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS needs Linux")
def test_endless_memory_ends_in_a_memory_error() -> None:
    def child() -> str:
        limit_resources(memory_bytes=64 << 20)
        with pytest.raises(MemoryError):
            bytearray(256 << 20)
        return "lives"

    assert in_child(child) == "lives"


def hostile_loop() -> None:
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


def test_a_loop_for_ever_is_noticed_whatever_it_does_to_signals() -> None:
    class Bound(BaseException):
        pass

    def on_bound(frame: FrameType | None) -> None:
        raise Bound(frame.f_code.co_name if frame else "")

    def child() -> str:
        with pytest.raises(Bound) as caught, cpu_bound(0.05, on_bound):
            hostile_loop()
        return str(caught.value)

    assert in_child(child) == "hostile_loop"


def test_after_the_bound_the_signal_is_as_before() -> None:
    def child() -> bool:
        before = (signal.signal, signal.setitimer, signal.pthread_sigmask, signal.getsignal(signal.SIGPROF))
        with cpu_bound(60, lambda frame: None):
            assert signal.getitimer(signal.ITIMER_PROF)[0] > 0
        assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
        after = (signal.signal, signal.setitimer, signal.pthread_sigmask, signal.getsignal(signal.SIGPROF))
        return after == before

    assert in_child(child)


def test_dag_code_sees_one_process_id_everywhere() -> None:
    def child() -> tuple[int, int]:
        wall = Wall()
        seen: list[int] = []
        wall.run(lambda: seen.append(os.getpid()))
        return seen[0], os.getpid()

    inside, outside = in_child(child)
    assert inside == PID != outside
