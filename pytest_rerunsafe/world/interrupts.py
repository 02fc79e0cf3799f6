"""Calls something between two steps of DAG code, as signal handlers are called; what it raises, that code gets."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyfakefs

_OURS = tuple(f"{Path(module).parent}/" for module in (str(Path(__file__).parent), pyfakefs.__file__))
_HELPER = contextlib.__file__
_MARK = "is_interrupt"


def interrupt(call: Callable[[], None]) -> None:
    """Call it as soon as the code of this package has been left, and what C code called it from, such as a file's buffer.

    Python calls a signal's handler no earlier either: only there, what a buffer holds is what it says.
    """

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        if _is_ours(frame) and not (event == "call" and not _is_ours(frame.f_back)):
            return
        forget_interrupt()
        call()

    on_event.__dict__[_MARK] = True
    sys.setprofile(on_event)


def forget_interrupt() -> None:
    """Call nothing any more."""
    if hasattr(sys.getprofile(), _MARK):  # else it is somebody's profiler
        sys.setprofile(None)


def _is_ours(frame: FrameType | None) -> bool:
    if frame is None:
        return False
    file = frame.f_code.co_filename
    return file.startswith(_OURS) or (file == _HELPER and _is_ours(frame.f_back))
