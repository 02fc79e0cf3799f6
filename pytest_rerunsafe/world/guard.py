"""The wall around DAG code: what would leave the worker process is refused and told. No stores in here.

Python reports what it is about to do as audit events; files that a fake file system serves make none, so
an event that tells of a change is one of the real world. What C code does by itself makes no events: limits
of the process hold that.
"""

from __future__ import annotations

import functools
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, Final, TypeAlias

from ..model import Location, Obstacle
from .process import replaced

Arguments: TypeAlias = tuple[Any, ...]
Describe: TypeAlias = Callable[[Arguments], "str | None"]
"""What an event's arguments attempt, in words: `connecting to db:5432`; None if it may pass."""

DEFAULT_MEMORY_BYTES: Final = 2 << 30

_REPEAT_S = 1.0
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AF_UNIX, _AF_UNSPECIFIED = 1, (-1, 0)
_ENDS_NOT = (
    "SIGCHLD",
    "SIGURG",
    "SIGWINCH",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGINFO",
)
"""Signals whose default is not the end of the process."""

_NETWORK = "Replace the call by a stand-in in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason."
_PROCESS = "Do this in Python, replace it in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason."
_FILE = "Use `open`, `os`, `pathlib` or `shutil`, which can be followed, or `skip` the DAG with a reason."
_MAPPING = "Read and write the file with `open` instead, or `skip` the DAG with a reason."
_SQLITE = "Use `sqlite3.connect`, which can be followed, or `skip` the DAG with a reason."
_EXTENSION = "Do without SQLite extensions, or `skip` the DAG with a reason."
_LIMITS = "Leave the limits of the process alone, or `skip` the DAG with a reason."

_C_EFFECTS = (
    "open open64 openat openat64 creat fopen fopen64 freopen write pwrite pwrite64 writev unlink "
    "unlinkat remove rename renameat link symlink mkdir mkdirat rmdir truncate ftruncate chmod chown "
    "mknod mkfifo mmap mmap64 syscall socket connect bind sendto system popen fork vfork clone execl "
    "execlp execle execv execve execvp execvpe posix_spawn posix_spawnp kill abort exit _exit _Exit "
    "quick_exit setrlimit prlimit shm_open"
)


class BlockedError(PermissionError):
    """What DAG code gets when it reaches for the real world."""


class ProcessExited(BaseException):
    """What DAG code gets in place of the end of its process; no `Exception`, so few handlers hold it up."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the process ended with exit code {exit_code}")
        self.exit_code = exit_code
        """As `subprocess` gives it: negative for a signal."""


# --- the wall ---------------------------------------------------------------------------------


class Guard:
    """The wall of one process. Make it before a fake file system is put on: it needs the real `os`."""

    def __init__(
        self,
        *,
        locate: Callable[[FrameType], Location | None],
        on_obstacle: Callable[[Obstacle], None],
        on_exit: Callable[[int], None],
        allowed_paths: frozenset[str] = frozenset({os.devnull}),
    ) -> None:
        self._locate = locate
        self._on_obstacle = on_obstacle
        self._on_exit = on_exit
        self._checks = _checks(allowed_paths)
        self._told: set[tuple[str, Location | None]] = set()
        self._is_up = False
        self._lifts = threading.local()
        self._undo = ExitStack()

    def install(self) -> None:
        """Put hook and patches on, once per process; they do nothing until the wall is `up`."""
        sys.dont_write_bytecode = True  # an import would write where nothing may be written
        self._replace_exits()
        self._replace_silent_functions()
        sys.addaudithook(self._hook())

    def stop(self) -> None:
        """Take the patches off. The hook stays for good, without effect."""
        self._is_up = False
        self._undo.close()

    @contextmanager
    def up(self) -> Iterator[None]:
        """Inside, DAG code runs. Obstacles are told anew, each once per place."""
        self._told.clear()
        with self._set(True):
            yield

    @contextmanager
    def down(self) -> Iterator[None]:
        """Inside, no DAG code runs, although some stands still in the middle."""
        with self._set(False):
            yield

    @contextmanager
    def _set(self, is_up: bool) -> Iterator[None]:
        before, self._is_up = self._is_up, is_up
        try:
            yield
        finally:
            self._is_up = before

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Inside, this thread runs code of ours that may touch the real world although the wall is up."""
        before = getattr(self._lifts, "is_on", False)
        self._lifts.is_on = True
        try:
            yield
        finally:
            self._lifts.is_on = before

    def _holds(self) -> bool:
        return self._is_up and not getattr(self._lifts, "is_on", False)

    def _hook(self) -> Callable[[str, Arguments], None]:
        checks, holds = self._checks, self._holds

        def hook(event: str, arguments: Arguments) -> None:
            check = checks.get(event)
            if check is not None and holds():
                what = check[0](arguments)
                if what is not None:
                    self._block(what, check[1])

        return hook

    def _block(self, what: str, remedy: str) -> None:
        with self.lifted():
            is_told, where = self._place(sys._getframe(2))
            if is_told and (what, where) not in self._told:
                self._told.add((what, where))
                self._on_obstacle(Obstacle(what=what, where=where, remedy=remedy))
        raise BlockedError(f"pytest-rerunsafe: {what} is blocked. {remedy}")

    def _place(self, frame: FrameType | None) -> tuple[bool, Location | None]:
        """Whether it is worth telling, and the innermost line of the project's code.

        A library that is being imported only looks around (urllib3 tries whether there is IPv6): what it
        cannot do without fails the import, with our message; what it can do without is no effect of the DAG.
        """
        while frame is not None:
            where = self._locate(frame)
            if where is not None:
                return True, where
            if frame.f_globals.get("__name__") == "importlib._bootstrap":
                return False, None
            frame = frame.f_back
        return True, None

    # --- patches where there are no events ----------------------------------------------------

    def _replace_silent_functions(self) -> None:
        for module_name, name, what, remedy in _SILENT:
            module = sys.modules.get(module_name) or _import_if_there(module_name)
            if hasattr(module, name):
                self._replace((module,), name, self._refusal(getattr(module, name), what, remedy))
        for name in ("mkfifo", "mknod"):
            self._replace(
                _OS, name, self._refusal(getattr(_OS[0], name), "making the special file {}", _FILE)
            )
        # It has an event too, but above a fake file system it fails over its pipes before that.
        start = self._refusal(subprocess.Popen.__init__, "starting the process `{}`", _PROCESS, subject=1)
        self._replace((subprocess.Popen,), "__init__", start)

    def _refusal(
        self, real: Callable[..., Any], what: str, remedy: str, *, subject: int = 0
    ) -> Callable[..., Any]:
        """`real`, refused while the wall holds; `what` names its argument number `subject`."""

        @functools.wraps(real)
        def function(*arguments: Any, **options: Any) -> Any:
            given = (*arguments, *options.values())
            if self._holds() and len(given) > subject:
                self._block(what.format(_text(given[subject])), remedy)
            return real(*arguments, **options)

        return function

    def _replace_exits(self) -> None:
        self._replace(_OS, "getpid", self._pid_function(_OS[0].getpid))
        self._replace(_OS, "_exit", self._exit_function(_OS[0]._exit))
        self._replace(_OS, "abort", self._abort_function(_OS[0].abort))
        kill = self._kill_function(_OS[0].kill)
        self._replace(_OS, "kill", self._signal_function(kill, lambda pid, signum: pid in (PID, _own_pid())))
        self._replace(_SIGNAL, "raise_signal", self._signal_function(signal.raise_signal))
        self._replace(_SIGNAL, "pthread_kill", self._signal_function(signal.pthread_kill))

    def _replace(self, owners: tuple[Any, ...], name: str, value: object) -> None:
        for owner in owners:
            self._undo.enter_context(replaced(owner, name, value))

    def _exit_function(self, real: Callable[[int], Any]) -> Callable[[int], Any]:
        def _exit(status: int) -> Any:
            return self._end(status & 0xFF) if self._holds() else real(status)

        return _exit

    def _abort_function(self, real: Callable[[], Any]) -> Callable[[], Any]:
        def abort() -> Any:
            return self._end(-signal.SIGABRT) if self._holds() else real()

        return abort

    def _pid_function(self, real: Callable[[], int]) -> Callable[[], int]:
        def getpid() -> int:
            return PID if self._holds() else real()

        return getpid

    def _kill_function(self, real: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def kill(pid: int, signum: int, /) -> None:
            real(_own_pid() if pid == PID and self._holds() else pid, signum)

        return kill

    def _signal_function(
        self, real: Callable[..., None], is_to_us: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., None]:
        def function(*arguments: Any) -> None:
            if self._holds() and is_to_us(*arguments) and _is_deadly(arguments[-1]):
                self._end(-arguments[-1])
            real(*arguments)

        return function

    def _end(self, exit_code: int) -> None:
        exit_code = int(exit_code)
        with self.lifted():
            self._on_exit(exit_code)
        raise ProcessExited(exit_code)


PID: Final = 4242
"""The process id that DAG code sees: the same in each process and on each machine."""
_GETPID: Final = (os.getpid,)


def _own_pid() -> int:
    return _GETPID[0]()


_OS: Final[tuple[Any, ...]] = (os, sys.modules[os.name])
"""In a tuple, where a fake file system that swaps modules does not look for them."""
_SIGNAL: Final[tuple[Any, ...]] = (signal, sys.modules["_signal"])

_SILENT = (
    ("_posixsubprocess", "fork_exec", "starting the process `{}`", _PROCESS),
    ("_posixshmem", "shm_open", "opening the shared memory {}", _FILE),
    ("_multiprocessing", "SemLock", "making a lock for several processes", _PROCESS),
)
"""Functions that make no event: module, name, what a call does, remedy."""


def _import_if_there(name: str) -> Any:
    with suppress(ImportError):
        return __import__(name)
    return None


def _is_deadly(signum: int) -> bool:
    """Whether the signal would end this process now."""
    try:
        number = signal.Signals(signum)
    except ValueError:
        return False
    if number is signal.SIGKILL:
        return True
    return number.name not in _ENDS_NOT and signal.getsignal(number) is signal.SIG_DFL


# --- what events mean -------------------------------------------------------------------------


def _checks(allowed_paths: frozenset[str]) -> Mapping[str, tuple[Describe, str]]:
    """By audit event: what it attempts, and the remedy."""
    return {
        "open": (lambda args: _opening(args, allowed_paths), _FILE),
        **{event: (_on_path(verb), _FILE) for event, verb in _PATH_EVENTS.items()},
        **{event: (_on_command(verb), _PROCESS) for event, verb in _COMMAND_EVENTS.items()},
        **{event: (_on_host(verb), _NETWORK) for event, verb in _HOST_EVENTS.items()},
        **{event: (_on_address(verb), _NETWORK) for event, verb in _ADDRESS_EVENTS.items()},
        "socket.__new__": (_opening_socket, _NETWORK),
        "syslog.syslog": (lambda args: "writing to the system log", _NETWORK),
        "os.fork": (lambda args: "forking a process", _PROCESS),
        "os.forkpty": (lambda args: "forking a process", _PROCESS),
        "os.kill": (_signalling, _PROCESS),
        "os.killpg": (_signalling_group, _PROCESS),
        "mmap.__new__": (_mapping, _MAPPING),
        "ctypes.dlsym": (_calling_c, _FILE),
        "ctypes.dlsym/handle": (_calling_c, _FILE),
        "resource.setrlimit": (lambda args: "changing the limits of the process", _LIMITS),
        "resource.prlimit": (lambda args: "changing the limits of the process" if args[2] else None, _LIMITS),
        "sqlite3.connect": (_opening_database, _SQLITE),
        "sqlite3.enable_load_extension": (
            lambda args: "loading SQLite extensions" if args[1] else None,
            _EXTENSION,
        ),
    }


_PATH_EVENTS = {
    "os.remove": "removing",
    "os.rename": "renaming",
    "os.mkdir": "making",
    "os.rmdir": "removing",
    "os.link": "linking",
    "os.symlink": "linking",
    "os.truncate": "truncating",
    "os.chmod": "changing the mode of",
    "os.chflags": "changing the flags of",
    "os.chown": "changing the owner of",
    "os.utime": "changing the times of",
    "os.setxattr": "changing the attributes of",
    "os.removexattr": "changing the attributes of",
}
_COMMAND_EVENTS = {
    "subprocess.Popen": "starting the process",
    "os.system": "starting the process",
    "os.posix_spawn": "starting the process",
    "os.spawn": "starting the process",
    "os.exec": "becoming the process",
    "pty.spawn": "starting the process",
}
_HOST_EVENTS = {
    "socket.getaddrinfo": "connecting to",
    "socket.gethostbyname": "looking up",
    "socket.gethostbyaddr": "looking up",
    "socket.getnameinfo": "looking up",
}
_ADDRESS_EVENTS = {
    "socket.connect": "connecting to",
    "socket.bind": "listening on",
    "socket.sendto": "sending to",
    "socket.sendmsg": "sending to",
}


def _opening(arguments: Arguments, allowed_paths: frozenset[str]) -> str | None:
    path, mode, flags = arguments
    writes = flags & _WRITE_FLAGS if isinstance(flags, int) else set(mode or "r") & set("wax+")
    if not writes or isinstance(path, int) or _text(path) in allowed_paths:
        return None
    return f"writing the real file {_text(path)}"


def _on_path(verb: str) -> Describe:
    return lambda arguments: f"{verb} the real file {_text(arguments[0])}"


def _on_command(verb: str) -> Describe:
    return lambda arguments: f"{verb} `{_command(arguments)}`"


def _command(arguments: Arguments) -> str:
    return _text(arguments[1] if len(arguments) > 1 else arguments[0])


def _on_host(verb: str) -> Describe:
    return lambda arguments: f"{verb} {_address(arguments[:2])}"


def _on_address(verb: str) -> Describe:
    return lambda arguments: None if arguments[1] is None else f"{verb} {_address(arguments[1])}"


def _address(address: object) -> str:
    """`host:port`, or the path of a local socket."""
    if not isinstance(address, tuple):
        return _text(address)
    host, port = _address_part(address[0]), _address_part(address[1] if len(address) > 1 else None)
    return f"{host}:{port}" if port else host


def _address_part(part: object) -> str:
    while isinstance(part, tuple):
        part = part[0]
    return "" if part is None else _text(part)


def _opening_socket(arguments: Arguments) -> str | None:
    family = int(arguments[1])
    return None if family == _AF_UNIX or family in _AF_UNSPECIFIED else "opening a network socket"


def _signalling(arguments: Arguments) -> str | None:
    pid, signum = arguments
    is_harmless = signum == 0 or (pid == _own_pid() and signum != signal.SIGSTOP)
    return None if is_harmless else f"sending signal {int(signum)} to process {pid}"


def _signalling_group(arguments: Arguments) -> str | None:
    group, signum = arguments
    return None if signum == 0 else f"sending signal {int(signum)} to process group {group}"


def _mapping(arguments: Arguments) -> str | None:
    return None if arguments[0] == -1 else "mapping a file into memory with mmap"


def _calling_c(arguments: Arguments) -> str | None:
    name = _text(arguments[1])
    return f"calling the C function `{name}` through ctypes" if name in _C_EFFECTS.split() else None


def _opening_database(arguments: Arguments) -> str | None:
    name = _text(arguments[0])
    return None if _is_in_memory(name) else f"opening the SQLite file {name}"


def _is_in_memory(name: str) -> bool:
    """Whether no file of this name comes to be; a nameless one is gone when it is closed."""
    is_uri = name.startswith("file:")
    return name in ("", ":memory:") or (
        is_uri and ("mode=memory" in name or name.startswith("file::memory:"))
    )


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return shlex.join(_text(word) for word in value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)


# --- limits -----------------------------------------------------------------------------------


def limit_resources(memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
    """Hold what code that Python cannot see does: no byte into a file, no core dump, no endless memory.

    `memory_bytes` come on top of what the process has now. The hard limits stay, so that code of ours can
    write inside `real_files_allowed`.
    """
    # The write fails with EFBIG; the signal would end the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _set_soft_limit(resource.RLIMIT_FSIZE, 0)
    _set_soft_limit(resource.RLIMIT_CORE, 0)
    present = _virtual_bytes()
    if present is not None:
        _set_soft_limit(resource.RLIMIT_AS, present + memory_bytes)


@contextmanager
def real_files_allowed() -> Iterator[None]:
    """Inside, the process may write real files again, as far as `limit_resources` had forbidden it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    _set_soft_limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    try:
        yield
    finally:
        _set_soft_limit(resource.RLIMIT_FSIZE, before)


def _set_soft_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    is_above = hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard)
    resource.setrlimit(kind, (hard if is_above else value, hard))


def _virtual_bytes() -> int | None:
    """The size of this process's address space; None where nobody tells."""
    real_open, real_read, real_close = _REAL_FILE
    with suppress(OSError):
        statm = real_open("/proc/self/statm", os.O_RDONLY)
        try:
            return int(real_read(statm, 100).split()[0]) * resource.getpagesize()
        finally:
            real_close(statm)
    return None


_REAL_FILE: Final = (os.open, os.read, os.close)
"""In a tuple: the limits are set when there is a fake file system already, which has no such file."""


# --- runaway code -----------------------------------------------------------------------------


@contextmanager
def cpu_bound(seconds: float, on_bound: Callable[[FrameType | None], None]) -> Iterator[None]:
    """Inside, the process may compute for `seconds`; then `on_bound` gets the frame of the main thread.

    It is called again each further second, in case that it returns.
    """
    real_signal, real_timer = signal.signal, signal.setitimer
    with _profiling_signal_reserved():
        before = real_signal(signal.SIGPROF, lambda signum, frame: on_bound(frame))
        real_timer(signal.ITIMER_PROF, seconds, _REPEAT_S)
        try:
            yield
        finally:
            real_timer(signal.ITIMER_PROF, 0)
            real_signal(signal.SIGPROF, before)


def bind_cpu_again(seconds: float) -> None:
    """Let a process that has stood still inside `cpu_bound` compute for that long, whoever has used its timer meanwhile."""
    _C_SIGNAL.setitimer(signal.ITIMER_PROF, seconds, _REPEAT_S)


_C_SIGNAL: Any = sys.modules["_signal"]


@contextmanager
def _profiling_signal_reserved() -> Iterator[None]:
    """Inside, whoever sets handler, timer or mask of SIGPROF sets nothing, and is not told.

    Nor gets SIGSEGV a handler, which Airflow gives it: back from that, Python repeats the faulting instruction for ever.
    """
    unset = (signal.SIGPROF, signal.SIGSEGV)
    real_signal, real_timer, real_mask = signal.signal, signal.setitimer, signal.pthread_sigmask

    def set_handler(signalnum: int, handler: Any) -> Any:
        return signal.SIG_DFL if signalnum in unset else real_signal(signalnum, handler)

    def set_timer(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        return (0.0, 0.0) if which == signal.ITIMER_PROF else real_timer(which, seconds, interval)

    def set_mask(how: int, mask: Any) -> Any:
        return real_mask(how, set(mask) - {signal.SIGPROF})

    with (
        replaced(signal, "signal", set_handler),
        replaced(signal, "setitimer", set_timer),
        replaced(signal, "pthread_sigmask", set_mask),
    ):
        yield
