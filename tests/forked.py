"""Runs a function in a forked child: what the tests of patches do, for nobody takes all of them off again."""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60
"""For a child that hangs, which only broken code makes."""


def in_child(function: Callable[[], Any]) -> Any:
    """What `function` returns in a forked child; fails with the child's traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer: tuple[bool, Any] = (True, function())
        except BaseException:
            answer = (False, traceback.format_exc())
        os.write(writer, pickle.dumps(answer))
        os._exit(0)
    os.close(writer)
    if not select.select([reader], [], [], PATIENCE_S)[0]:
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    assert data, "the child died"
    is_well, value = pickle.loads(data)
    assert is_well, value
    return value
