"""What a process's end would forget is put back. Each test that does damage does it in a forked child."""

from __future__ import annotations

import asyncio
import builtins
import decimal
import gc
import json
import locale
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.world.process import (
    CapturedOutput,
    ProcessState,
    capture_output,
    leftover_threads,
    replaced,
)


class Damage:
    """One thing that tasks do to their process, and how it shows."""

    def __init__(self, do: Callable[[], Any], see: Callable[[], Any]) -> None:
        self.do = do
        self.see = see


def assign(owner: Any, name: str, value: Any = None) -> Damage:
    return Damage(lambda: setattr(owner, name, value), lambda: getattr(owner, name, "gone"))


def delete(owner: Any, name: str) -> Damage:
    return Damage(lambda: delattr(owner, name), lambda: getattr(owner, name, "gone"))


def new_logger() -> logging.Logger:
    return logging.getLogger("made.by.a.task")


def spoil_new_logger() -> None:
    new_logger().setLevel(logging.DEBUG)
    new_logger().addHandler(logging.NullHandler())
    new_logger().addFilter(lambda record: False)
    new_logger().propagate = False
    new_logger().disabled = True


def see_logger(logger: logging.Logger) -> list[object]:
    return [logger.level, list(logger.handlers), list(logger.filters), logger.propagate, logger.disabled]


def change_root_logger() -> None:
    logging.basicConfig(level=logging.DEBUG, force=True)
    logging.disable(logging.CRITICAL)


def see_root_logger() -> list[object]:
    return [*see_logger(logging.root), logging.root.manager.disable]


def go_to_tokyo() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


DAMAGES: dict[str, Damage] = {
    "builtins.open": assign(builtins, "open"),
    "builtins.len": assign(builtins, "len"),
    "builtins.isinstance": delete(builtins, "isinstance"),
    "a new builtin": assign(builtins, "brand_new", 1),
    "json.dumps": assign(json, "dumps"),
    "json.JSONEncoder.default": assign(json.JSONEncoder, "default"),
    "a new name in a class": assign(json.JSONEncoder, "brand_new"),
    "os.path.exists": assign(os.path, "exists"),
    "os.getcwd": delete(os, "getcwd"),
    "os.environ replaced": assign(os, "environ", {}),
    "time.time": assign(time, "time"),
    "tempfile.tempdir": assign(tempfile, "tempdir", "/elsewhere"),
    "threading.excepthook": assign(threading, "excepthook"),
    "sys.stdout": assign(sys, "stdout"),
    "sys.stderr closed over": assign(sys, "stderr", object()),
    "sys.argv": assign(sys, "argv", ["x"]),
    "sys.argv in place": Damage(lambda: sys.argv.append("x"), lambda: list(sys.argv)),
    "sys.path": assign(sys, "path", []),
    "sys.path in place": Damage(lambda: sys.path.insert(0, "/x"), lambda: list(sys.path)),
    "sys.excepthook": assign(sys, "excepthook"),
    "sys.modules": assign(sys, "modules", {}),
    "sys.dont_write_bytecode": assign(sys, "dont_write_bytecode", "x"),
    "environment changed": Damage(lambda: os.environ.update(HOME="/x", NEW="1"), lambda: dict(os.environ)),
    "environment emptied": Damage(os.environ.clear, lambda: dict(os.environ)),
    "time zone": Damage(go_to_tokyo, lambda: time.localtime(0)[:5]),
    "directory": Damage(lambda: os.chdir("/"), os.getcwd),
    "signal": Damage(
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), lambda: signal.getsignal(signal.SIGTERM)
    ),
    "signal mask": Damage(
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    ),
    "alarm": Damage(lambda: signal.alarm(100), lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0),
    "trace": Damage(lambda: sys.settrace(lambda *_: None), sys.gettrace),
    "profile": Damage(lambda: sys.setprofile(lambda *_: None), sys.getprofile),
    "recursion limit": Damage(lambda: sys.setrecursionlimit(5000), sys.getrecursionlimit),
    "socket timeout": Damage(lambda: socket.setdefaulttimeout(1), socket.getdefaulttimeout),
    "gc": Damage(gc.disable, gc.isenabled),
    "gc threshold": Damage(lambda: gc.set_threshold(1), gc.get_threshold),
    "gc callbacks": Damage(lambda: gc.callbacks.append(lambda *_: None), lambda: len(gc.callbacks)),
    "locale": Damage(lambda: locale.setlocale(locale.LC_ALL, "C"), lambda: locale.setlocale(locale.LC_ALL)),
    "decimal": Damage(lambda: setattr(decimal.getcontext(), "prec", 3), lambda: decimal.getcontext().prec),
    "warnings": Damage(lambda: warnings.simplefilter("ignore"), lambda: list(warnings.filters)),
    "root logger": Damage(change_root_logger, see_root_logger),
    "new logger": Damage(spoil_new_logger, lambda: see_logger(new_logger())),
    "event loop": Damage(
        lambda: setattr(asyncio.events, "_event_loop_policy", object()),
        lambda: asyncio.events._event_loop_policy,  # type: ignore[attr-defined]
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_undone(name: str) -> None:
    damage = DAMAGES[name]
    new_logger()

    def child() -> tuple[bool, bool]:
        locale.setlocale(locale.LC_ALL, "C.UTF-8")
        before = damage.see()
        state = ProcessState.capture()
        damage.do()
        was_changed = bool(damage.see() != before)
        state.restore()
        return was_changed, bool(damage.see() == before)

    assert in_child(child) == (True, True)


def test_all_damage_at_once_is_undone_again_and_again() -> None:
    def child() -> list[str]:
        before = {name: damage.see() for name, damage in DAMAGES.items()}
        state = ProcessState.capture()
        for _ in range(3):
            for name, damage in DAMAGES.items():
                if name.startswith(("environment", "gc", "root", "signal", "locale", "decimal")):
                    damage.do()
            state.restore()
        return [name for name, damage in DAMAGES.items() if damage.see() != before[name]]

    assert in_child(child) == []


def test_a_filter_that_hid_a_warning_hides_it_no_more() -> None:
    def child() -> list[str]:
        state = ProcessState.capture()
        warnings.simplefilter("ignore")
        warnings.warn("hidden", stacklevel=1)
        state.restore()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn("shown", stacklevel=1)
        return [str(each.message) for each in caught]

    assert in_child(child) == ["shown"]


def test_a_warning_shown_once_is_shown_again() -> None:
    def child() -> int:
        shown: list[object] = []
        warnings.showwarning = lambda *parts: shown.append(parts)
        warnings.resetwarnings()
        warnings.simplefilter("default")
        state = ProcessState.capture()

        def warn() -> None:
            warnings.warn("the same", stacklevel=1)

        warnings.simplefilter("error", ImportWarning)
        warn()
        warn()
        state.restore()
        warn()
        return len(shown)

    assert in_child(child) == 2


def test_the_callers_own_directory_functions_are_used() -> None:
    went: list[str] = []
    state = ProcessState.capture(chdir=went.append, getcwd=lambda: "/fake/home")
    state.restore()
    assert went == ["/fake/home"]


def test_a_new_process_calls_its_first_thread_thread_1() -> None:
    def child() -> list[str]:
        state = ProcessState.capture()
        names = []
        for _ in range(2):
            state.restore()
            names.append(threading.Thread().name)
        return names

    assert in_child(child) == ["Thread-1", "Thread-1"]


# --- modules ----------------------------------------------------------------------------------


def make_project(folder: Path) -> Path:
    root = folder / "project"
    for name in ("helper.py", "package/__init__.py", "package/part.py", "spaces/part.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("counter = []\n")
    library = root / ".venv/lib/site-packages/some_library.py"
    library.parent.mkdir(parents=True)
    library.write_text("import json.tool\ncounter = []\n")
    (folder / "project_neighbour.py").write_text("counter = []\n")
    sys.path[:0] = [str(root), str(library.parent), str(folder)]
    return root


PROJECT = ["helper", "package", "package.part", "spaces", "spaces.part"]
LIBRARIES = ["some_library", "project_neighbour"]


def test_the_projects_modules_are_forgotten_and_libraries_kept(tmp_path: Path) -> None:
    def child() -> tuple[list[str], list[str]]:
        root = make_project(tmp_path)
        state = ProcessState.capture(roots=[str(root)])
        for name in (*PROJECT, *LIBRARIES):
            __import__(name)
        sys.modules["unusual_prefix_abc_dag"] = types.ModuleType("unusual_prefix_abc_dag")
        before = set(sys.modules)
        libraries = [sys.modules[name] for name in LIBRARIES]
        state.restore()
        assert [sys.modules[name] for name in LIBRARIES] == libraries
        sys.modules["some_library"] = types.ModuleType("stand_in")
        state.restore()
        assert [sys.modules[name] for name in LIBRARIES] == libraries
        return sorted(before - set(sys.modules)), [name for name in LIBRARIES if name in sys.modules]

    assert in_child(child) == (sorted([*PROJECT, "unusual_prefix_abc_dag"]), LIBRARIES)


def test_modules_of_the_project_that_were_there_before_are_forgotten_too(tmp_path: Path) -> None:
    def child() -> bool:
        root = make_project(tmp_path)
        first = __import__("helper")
        state = ProcessState.capture(roots=[f"{root}/"])
        state.restore()
        second = __import__("helper")
        state.restore()
        return first is not second and "helper" not in sys.modules

    assert in_child(child)


def test_our_own_modules_stay_even_below_a_root() -> None:
    def child() -> bool:
        before = sys.modules["pytest_rerunsafe.world.process"]
        ProcessState.capture(roots=[str(Path(__file__).parent.parent)]).restore()
        return sys.modules.get("pytest_rerunsafe.world.process") is before and "__main__" in sys.modules

    assert in_child(child)


def test_stand_ins_for_modules_go_and_the_replaced_ones_come_back() -> None:
    def child() -> bool:
        state = ProcessState.capture()
        csv, text = sys.modules["json"], sys.modules.get("string")
        sys.modules["json"] = object()  # type: ignore[assignment]
        sys.modules["brand_new"] = object()  # type: ignore[assignment]
        sys.modules["blocked"] = None  # type: ignore[assignment]
        sys.modules.pop("string", None)
        state.restore()
        is_clean = "brand_new" not in sys.modules and "blocked" not in sys.modules
        return is_clean and sys.modules["json"] is csv and sys.modules.get("string") is text

    assert in_child(child)


def test_a_submodule_that_was_imported_meanwhile_stays_usable(tmp_path: Path) -> None:
    def child() -> str:
        state = ProcessState.capture()
        make_project(tmp_path)
        sys.modules.pop("json.tool", None)
        __import__("some_library")
        state.restore()
        __import__("json.tool")
        return str(json.tool.__name__)  # type: ignore[attr-defined]

    assert in_child(child) == "json.tool"


# --- threads ----------------------------------------------------------------------------------


class EndsWhenWaitedFor(threading.Thread):
    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def run(self) -> None:
        self.gate.wait()

    def join(self, timeout: float | None = None) -> None:
        self.gate.set()
        super().join(timeout)


def test_threads_that_stay_are_reported_and_others_waited_for() -> None:
    release, before = threading.Event(), threading.enumerate()
    threads = [
        EndsWhenWaitedFor(),
        threading.Thread(target=release.wait, name="stays", daemon=True),
        threading.Thread(target=release.wait, name="a patient one"),
    ]
    for thread in threads:
        thread.start()
    left = leftover_threads(before, patience_s=0.2)
    release.set()
    assert [thread.name for thread in left] == ["a patient one", "stays"]
    for thread in threads:
        thread.join()
    assert leftover_threads(before, patience_s=0) == ()


def test_threads_of_before_are_nobodys_business() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    assert leftover_threads(threading.enumerate(), patience_s=0) == ()
    release.set()
    thread.join()


# --- output -----------------------------------------------------------------------------------


def test_both_streams_are_kept_in_order() -> None:
    with capture_output(1000) as output:
        print("one")  # noqa: T201
        print("two", file=sys.stderr)  # noqa: T201
        sys.stdout.buffer.write(b"three\n")
        sys.stdout.write("vier \u00fc no newline")
    assert output.getvalue() == "one\ntwo\nthree\nvier \u00fc no newline"


@given(st.lists(st.text(st.characters(codec="ascii")), max_size=30), st.integers(1, 50))
def test_the_end_is_kept(pieces: list[str], limit: int) -> None:
    with capture_output(limit) as output:
        for piece in pieces:
            sys.stdout.write(piece)
    assert output.getvalue() == "".join(pieces)[-limit:]


def test_a_hundred_megabytes_take_no_memory() -> None:
    with capture_output(1 << 16) as output:
        for _ in range(1000):
            sys.stdout.write("x" * 99_999 + "\n")
        assert held_bytes(output) < 1 << 20
    assert len(output.getvalue()) == 1 << 16


def held_bytes(output: CapturedOutput) -> int:
    return sys.getsizeof(output._tail._bytes)


def test_a_character_cut_in_two_is_no_error() -> None:
    with capture_output(3) as output:
        sys.stdout.write("\u00fc\u00fc")
    assert output.getvalue() == "\ufffd\u00fc"


def test_detached_and_replaced_streams_are_no_error() -> None:
    before = sys.stdout
    with capture_output(100) as output:
        print("said")  # noqa: T201
        sys.stdout.detach()  # type: ignore[union-attr]
        sys.stdout = None
        print("more", file=sys.stderr)  # noqa: T201
    assert output.getvalue() == "said\nmore\n"
    assert sys.stdout is before


def test_replaced_puts_back_after_an_error() -> None:
    owner = types.SimpleNamespace(name="before")
    with pytest.raises(KeyError), replaced(owner, "name", "inside"):
        raise KeyError(owner.name)
    assert owner.name == "before"
