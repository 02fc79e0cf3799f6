"""Faults: what befalls an attempt at one of its changes, so that its own handlers run."""

from __future__ import annotations

import contextvars
import errno
import os
import signal
import sqlite3
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pyfakefs

from ..airflow.answers_between import server_error
from ..model import ERRORS, CrashKind
from ..world.buffers import repeats_of
from ..world.interrupts import interrupt
from .jobs import Fault, TaskInstanceKey
from .sandbox import Sandbox

ESCALATION_S = 5.0
"""From SIGTERM to SIGKILL: the default of `ActivitySubprocess.kill` in Airflow 3.1 to 3.3."""
HEARTBEAT_S = 5.0
"""At most so long until the supervisor asks the server whether the task should still run: Airflow's default."""
_ERRNOS = {
    "write": errno.ENOSPC,
    "truncate": errno.EIO,
    **dict.fromkeys(("create", "mkdir", "rename", "unlink", "rmdir", "symlink", "link"), errno.EACCES),
}
"""What fails in life: a full disk, a broken one, a folder that has become read-only (write(2), truncate(2), open(2), ...)."""
_OF_DESCRIPTORS = ("write", "truncate")
"""Kinds whose error names no file."""
_COMMIT = "commit"
_OURS = tuple(f"{Path(module).parent}/" for module in (str(Path(__file__).parent), pyfakefs.__file__))
"""Where the code is that stands for the file system."""


def error_of(kind: str, target: str) -> Exception:
    """What a change raises that fails."""
    if kind == _COMMIT:
        return sqlite3.OperationalError("database or disk is full")
    if (code := _ERRNOS.get(kind)) is None:
        return server_error()
    return OSError(code, os.strerror(code), None if kind in _OF_DESCRIPTORS else target)


def _reaches_somebody(error: Exception) -> bool:
    """Whether anybody's code got it: what fails when a file is flushed that nobody holds any more, Python cannot raise."""
    return any(
        not frame.f_code.co_filename.startswith(_OURS)
        for raised in (error, *repeats_of(error))
        for frame, _ in traceback.walk_tb(raised.__traceback__)
    )


class Strike:
    """A fault that waits in an attempt for its change to come."""

    def __init__(
        self,
        fault: Fault,
        instance: TaskInstanceKey,
        sandbox: Sandbox,
        outlive: Callable[[], None],
    ) -> None:
        self.instance = instance
        self._fault = fault
        self._place = (fault.kind, fault.target, fault.nth)
        self._sandbox = sandbox
        self._outlive = outlive
        """Does what others do while the worker stands still."""
        self._error: Exception | None = None
        self._has_struck = False

    def coming(self, kind: str, target: str, nth: int) -> None:
        """Let the change fail, if it is the one."""
        if self._fault.crash_kind in ERRORS and (kind, target, nth) == self._place:
            self._error = error_of(kind, target)
            self._has_struck = True
            raise self._error

    def changed(self, kind: str, target: str, nth: int) -> None:
        """Let it befall the task as soon as that goes on, if it is that change."""
        is_here = (kind, target, nth) == self._place and not self._has_struck
        if is_here and threading.current_thread() is threading.main_thread():
            match self._fault.crash_kind:
                case CrashKind.TIMEOUT:
                    interrupt(self._time_out)
                case CrashKind.SIGTERM:
                    interrupt(self._terminate)
                case CrashKind.ZOMBIE:
                    interrupt(self._stand_still)

    def _time_out(self) -> None:
        """Let `execution_timeout` be over, if the task is still where it counts."""
        clock = self._sandbox.clock
        if (left_s := clock.alarm.left_s) is not None:
            self._has_struck = True
            clock.advance(left_s)

    def _terminate(self) -> None:
        """Ask the task to end, as its supervisor does: what still runs some time later is killed."""
        self._has_struck = True
        self._sandbox.clock.kill.set(ESCALATION_S)
        signal.raise_signal(signal.SIGTERM)

    def _stand_still(self) -> None:
        """Let Airflow take the worker for dead and run the task again, then go on, until a heartbeat is refused."""
        current = self._sandbox.journal.current
        self._has_struck = True
        if current is not None:
            current.is_given_up = True
            with self._sandbox.beside():
                contextvars.Context().run(self._outlive)
            self._sandbox.clock.kill.set(HEARTBEAT_S + ESCALATION_S)

    @property
    def raised(self) -> str:
        """What the change raised, in words; empty if none did."""
        return f"{type(self._error).__name__}: {self._error}" if self._error is not None else ""

    def is_to_blame(self) -> bool:
        """Whether it has come to pass, and the project's code could have noticed."""
        if self._error is None:
            return self._has_struck
        if not _reaches_somebody(self._error):
            return False
        # Airflow's own code may keep to itself that the server did not answer.
        is_of_server = self._fault.kind not in _ERRNOS and self._fault.kind != _COMMIT
        return not is_of_server or self._sandbox.sources.is_on(self._error.__traceback__)
