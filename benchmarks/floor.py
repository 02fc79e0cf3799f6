"""The floor, as a child process of `speed.py`: fork and wait of the process that the plugin's workers are forked from.

Reads a number of forks per line from its input and answers each when they are done. The caller measures, for
this process has a virtual clock.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from pytest_rerunsafe.explore.zygote import _make_ready

# The engine puts a fake file system into the modules that are loaded by then.
_fork, _exit, _waitpid = os.fork, os._exit, os.waitpid


def ready_engine(rootdir: Path) -> object:
    """This process as a worker's parent: all imported, patched and warmed up."""
    engine: object = _make_ready(rootdir, lambda file, dag, world: None)
    return engine


def fork_and_wait() -> None:
    """A child that ends at once."""
    pid = _fork()
    if pid == 0:
        _exit(0)
    _waitpid(pid, 0)


def main() -> NoReturn:
    """Answer requests until the input ends."""
    engine = ready_engine(Path.cwd())
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            fork_and_wait()
        print("done", flush=True)
    del engine
    _exit(0)


if __name__ == "__main__":
    main()
