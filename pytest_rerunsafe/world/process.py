"""What the end of a process would forget, put back between attempts that share one. No stores in here."""

from __future__ import annotations

import decimal
import gc
import io
import itertools
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, TypeAlias

_signal: Any = sys.modules["_signal"]
"""The functions of `signal` in C: those in Python make enums, at the price of all the rest of `restore`."""

Restore: TypeAlias = Callable[[], None]
"""Puts back what it has taken note of."""

_NAMESPACES = (
    "builtins sys os posixpath io pathlib shutil tempfile time datetime random uuid secrets json "
    "json.encoder json.decoder csv sqlite3 socket subprocess threading logging warnings signal locale "
    "decimal pickle urllib.request asyncio.events pendulum requests requests.api"
)
"""Modules that task code changes in place: `json.dumps = ...`, `builtins.open = ...`."""
_CLASSES = (
    "json.encoder.JSONEncoder",
    "json.decoder.JSONDecoder",
    "threading.Thread",
    "pathlib.Path",
    "socket.socket",
)
_PARSED_PREFIX = "unusual_prefix_"
"""How Airflow's names for loaded DAG files begin."""
_OWN_PACKAGE = "pytest_rerunsafe"
_LIBRARY_FOLDERS = ("/site-packages/", "/dist-packages/")


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Inside, `owner.name` is `value`."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


# --- the state of the process -----------------------------------------------------------------


class ProcessState:
    """What a process knows besides its worlds: captured once all patches are on, restored before attempts."""

    def __init__(
        self, roots: tuple[str, ...], modules: dict[str, Any], chdir: Callable[[str], None], directory: str
    ) -> None:
        self._roots = roots
        self._modules = modules
        self._chdir = chdir
        # Modules' contents first: what follows uses them, and someone may have replaced `len`.
        namespaces = [vars(sys.modules[name]) for name in _NAMESPACES.split() if name in sys.modules]
        classes = [found for found in map(_find_class, _CLASSES) if found is not None]
        self._functions = [
            (space, name, value)
            for space in (*namespaces, *map(vars, classes))
            for name, value in space.items()
            if callable(value) and (name.startswith("__") or not name.startswith("_"))
        ]
        lists: tuple[list[Any], ...] = (sys.path, sys.argv, sys.meta_path, sys.path_hooks, gc.callbacks)
        self._parts: tuple[Restore, ...] = (
            *map(_keep_namespace, namespaces),
            *map(_keep_class, classes),
            *(_keep_list(items) for items in lists),
            _keep_environment(),
            lambda: chdir(directory),
            _keep_signals(),
            _keep_settings(),
            _keep_warnings(),
            _keep_logging(),
            lambda: _keep_to(modules, roots),
            _restart_counters,
        )

    @classmethod
    def capture(
        cls,
        *,
        roots: Iterable[str] = (),
        chdir: Callable[[str], None] = os.chdir,
        getcwd: Callable[[], str] = os.getcwd,
    ) -> ProcessState:
        """The present state, without the project's modules, those below `roots`: `restore` forgets them."""
        folders = tuple(root.rstrip("/") + "/" for root in roots)
        # What stands in for a module is kept, for no DAG has run yet: so does a fake file system's `os.path`.
        modules = {
            name: module
            for name, module in sys.modules.items()
            if _stands_in(module) or not _is_attempts_own(name, module, folders)
        }
        return cls(folders, modules, chdir, getcwd())

    def with_project(self, directory: str) -> tuple[ProcessState, dict[str, Any]]:
        """The present state in a working directory, with what has been loaded of the project and what stands in for modules,
        by name: its `restore` keeps them.
        """
        own: dict[str, Any] = {
            name: module
            for name, module in dict(sys.modules).items()
            if name not in self._modules and _is_attempts_own(name, module, self._roots)
        }
        return ProcessState(self._roots, {**self._modules, **own}, self._chdir, directory), own

    @property
    def has_other_functions(self) -> bool:
        """Whether somebody has replaced anything of the modules that task code changes in place."""
        return any(space.get(name) is not value for space, name, value in self._functions)

    def restore(self) -> None:
        """The captured state again, as a new process would find it."""
        for put_back in self._parts:
            put_back()


def _keep_namespace(namespace: dict[str, Any]) -> Restore:
    saved = dict(namespace)

    def restore() -> None:
        # Not compared first: writing is faster, and needs no built-in function that may have been replaced.
        namespace.update(saved)
        if namespace.__len__() != saved.__len__():
            _drop_new_names(namespace, saved)

    return restore


def _drop_new_names(namespace: dict[str, Any], saved: dict[str, Any]) -> None:
    for name in namespace.keys() - saved.keys():
        # A submodule is imported once: its parent must keep it.
        if not isinstance(namespace[name], ModuleType):
            del namespace[name]


def _find_class(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def _keep_class(owner: type) -> Restore:
    saved = dict(vars(owner))

    def restore() -> None:
        if dict(vars(owner)) != saved:
            for name in vars(owner).keys() - saved.keys():
                delattr(owner, name)
            for name, value in saved.items():
                if vars(owner).get(name) is not value:
                    setattr(owner, name, value)

    return restore


def _keep_list(items: list[Any]) -> Restore:
    saved = list(items)

    def restore() -> None:
        items[:] = saved

    return restore


def _keep_environment() -> Restore:
    environment = os.environb
    saved = dict(environment)

    def restore() -> None:
        if dict(environment) != saved:
            for name in environment.keys() - saved.keys():
                del environment[name]
            environment.update(saved)
        time.tzset()  # what C knows of TZ shows nowhere

    return restore


def _keep_signals() -> Restore:
    handlers = {number: _signal.getsignal(number) for number in sorted(signal.valid_signals())}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def restore() -> None:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.setitimer(_signal.ITIMER_VIRTUAL, 0)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            if handler is not None and _signal.getsignal(number) is not handler:
                _signal.signal(number, handler)

    return restore


def _keep_settings() -> Restore:
    """Settings that have a function to read and one to write."""
    pairs: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (sys.gettrace, sys.settrace),
        (sys.getprofile, sys.setprofile),
        (sys.getrecursionlimit, sys.setrecursionlimit),
        (sys.getswitchinterval, sys.setswitchinterval),
        (socket.getdefaulttimeout, socket.setdefaulttimeout),
        (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        (gc.get_threshold, lambda threshold: gc.set_threshold(*threshold)),
        (gc.get_debug, gc.set_debug),
        (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    ]
    saved = [(get, put, get()) for get, put in pairs]
    context = decimal.getcontext().copy()

    def restore() -> None:
        for get, put, value in saved:
            if get() != value:
                put(value)
        decimal.setcontext(context.copy())

    return restore


def _keep_warnings() -> Restore:
    saved = list(warnings.filters)

    def restore() -> None:
        if warnings.filters != saved:
            warnings.resetwarnings()  # also makes the interpreter drop what it remembers of the old filters
            list.extend(warnings.filters, saved)  # type: ignore[arg-type]

    return restore


def _keep_logging() -> Restore:
    manager, disabled = logging.root.manager, logging.root.manager.disable
    known = {name: _copied(_logger_state(logger)) for name, logger in _loggers()}

    def restore() -> None:
        manager.disable = disabled
        for name, logger in _loggers():
            saved = known.get(name, _NEW_LOGGER)
            if _logger_state(logger) != saved:
                _set_logger(logger, saved)

    return restore


_LoggerState: TypeAlias = tuple[int, bool, bool, list[Any], list[Any]]
_NEW_LOGGER: _LoggerState = (logging.NOTSET, True, False, [], [])


def _loggers() -> list[tuple[str, logging.Logger]]:
    named = logging.root.manager.loggerDict.items()
    return [
        ("root", logging.root),
        *((name, each) for name, each in named if isinstance(each, logging.Logger)),
    ]


def _logger_state(logger: logging.Logger) -> _LoggerState:
    return (logger.level, logger.propagate, logger.disabled, logger.handlers, logger.filters)


def _copied(state: _LoggerState) -> _LoggerState:
    return (*state[:3], state[3][:], state[4][:])


def _set_logger(logger: logging.Logger, state: _LoggerState) -> None:
    level, logger.propagate, logger.disabled, handlers, filters = state
    logger.setLevel(level)
    logger.handlers[:] = handlers
    logger.filters[:] = filters


def _restart_counters() -> None:
    """A new process calls its first thread Thread-1."""
    threading._counter = itertools.count(1).__next__  # type: ignore[attr-defined]


# --- modules ----------------------------------------------------------------------------------


def _keep_to(known: dict[str, Any], roots: tuple[str, ...]) -> None:
    """Forget the project's modules, but for those that are known."""
    modules = sys.modules
    modules.update(known)
    if len(modules) == len(known):
        return
    for name in modules.keys() - known.keys():
        if _is_attempts_own(name, modules[name], roots):
            del modules[name]
        else:
            known[name] = modules[name]  # a library: loading it again would only cost time


def _stands_in(module: object) -> bool:
    return not isinstance(module, ModuleType)


def _is_attempts_own(name: str, module: object, roots: tuple[str, ...]) -> bool:
    """Whether a new process would not have it, or would have to run the project's code for it."""
    if name == "__main__" or name.partition(".")[0] == _OWN_PACKAGE:
        return False
    if name.startswith(_PARSED_PREFIX) or not isinstance(module, ModuleType):
        return True
    file = _file_of(module)
    return file.startswith(roots) and not any(folder in file for folder in _LIBRARY_FOLDERS)


def _file_of(module: ModuleType) -> str:
    """Its file; of a namespace package, something in its first folder."""
    names = vars(module)
    if isinstance(names.get("__file__"), str):
        return str(names["__file__"])
    return next((f"{folder}/" for folder in names.get("__path__") or ()), "")


# --- threads ----------------------------------------------------------------------------------


def leftover_threads(
    before: Collection[threading.Thread], *, patience_s: float
) -> tuple[threading.Thread, ...]:
    """Threads that were not there `before` and still live, by name.

    The end of a real process waits for those that are no daemons: so do we, for `patience_s` in all.
    """
    left = [thread for thread in threading.enumerate() if thread not in before]
    left = [thread for thread in left if thread is not threading.current_thread()]
    end = _real_now() + patience_s
    for thread in left:
        if not thread.daemon:
            thread.join(max(0.0, end - _real_now()))
    return tuple(sorted((thread for thread in left if thread.is_alive()), key=lambda thread: thread.name))


_real_now = time.monotonic


# --- output -----------------------------------------------------------------------------------


class CapturedOutput:
    """The end of what was printed."""

    def __init__(self, limit_bytes: int) -> None:
        self._tail = _Tail(limit_bytes)
        self.streams = tuple(_text_over(self._tail) for _ in range(2))

    def getvalue(self) -> str:
        """The last bytes printed to both streams, as text."""
        for stream in self.streams:
            with suppress(ValueError):  # the task has closed it
                stream.flush()
        return self._tail.kept().decode(errors="replace")


@contextmanager
def capture_output(limit_bytes: int) -> Iterator[CapturedOutput]:
    """Inside, sys.stdout and sys.stderr keep the last `limit_bytes` of what both get, however much."""
    captured = CapturedOutput(limit_bytes)
    with replaced(sys, "stdout", captured.streams[0]), replaced(sys, "stderr", captured.streams[1]):
        yield captured


def _text_over(tail: _Tail) -> io.TextIOWrapper:
    buffer: Any = tail
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


class _Tail(io.BufferedIOBase):
    """A binary stream that forgets all but its end."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._bytes += data
        if len(self._bytes) > 2 * self._limit:  # cut seldom, not at each write
            self._bytes = bytearray(self.kept())
        return len(data)

    def close(self) -> None:
        """Stays open: both streams write to it, and one of them may be closed."""

    def kept(self) -> bytes:
        return bytes(self._bytes[max(0, len(self._bytes) - self._limit) :])
