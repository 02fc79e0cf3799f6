"""Tells the project's own code from everybody else's: locations, call stacks, tracebacks, executed lines."""

from __future__ import annotations

import ast
import dis
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from ..model import Location

_FRAME = re.compile(r'  File "(.+)", line \d+')
_FOREIGN_PARTS = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What of the project's code has run."""

    lines: int = 0
    depends_on_hashes: bool = False
    """Whether something of it makes sets, or asks for hashes, of which no two interpreters need have the same."""

    def and_then(self, other: Executed) -> Executed:
        """What has run of both together."""
        return Executed(
            lines=self.lines + other.lines,
            depends_on_hashes=self.depends_on_hashes or other.depends_on_hashes,
        )


_MAKE_SETS = frozenset({"BUILD_SET", "SET_ADD", "SET_UPDATE"})
_GIVE_SETS = frozenset(
    {"set", "frozenset", "hash", "union", "intersection", "difference", "symmetric_difference"}
)
_VIEWS = frozenset({"keys", "items"})
_SET_OPERATIONS = frozenset(
    f"{place}_{operation}"
    for place in ("BINARY", "INPLACE")
    for operation in ("AND", "OR", "XOR", "SUBTRACT")
)
"""Of CPython 3.10; later ones have one for all, with the operator as its argument."""


def depends_on_hashes(code: CodeType) -> bool:
    """Whether a function makes sets, or asks for hashes, itself; a constant set that is only searched is none."""
    names = frozenset(code.co_names)
    if names & _GIVE_SETS:
        return True
    before: dis.Instruction | None = None
    for found in dis.get_instructions(code):
        is_set = before is not None and isinstance(before.argval, frozenset)
        if found.opname in _MAKE_SETS or (is_set and found.opname != "CONTAINS_OP"):
            return True
        is_operation = found.opname in _SET_OPERATIONS or (
            found.opname == "BINARY_OP" and found.argrepr.rstrip("=") in ("&", "|", "^", "-")
        )
        if is_operation and names & _VIEWS:
            return True
        before = found
    return False


def mentions_sets(source: str) -> bool:
    """Whether code makes sets or asks for hashes, as far as its text tells."""
    try:
        nodes = ast.walk(ast.parse(source))
        return any(
            isinstance(node, (ast.Set, ast.SetComp))
            or (isinstance(node, ast.Name) and node.id in ("set", "frozenset", "hash"))
            for node in nodes
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # what does not parse does not run either


class Sources:
    """The code below the rootdir, save what is installed there and this package itself."""

    def __init__(self, rootdir: Path) -> None:
        self._root = str(rootdir).rstrip("/") + "/"
        self._foreign = (str(Path(__file__).parents[1]), sysconfig.get_path("stdlib"))
        self._relative: dict[str, str | None] = {}
        self._outside = frozenset(_outwards(sys._getframe(1)))
        """Frames of the process that this one was forked from: a test of the project that asked for the checks, for one."""

    def relative(self, filename: str) -> str | None:
        """A file's path from the rootdir in POSIX form; None if it is not the project's."""
        try:
            return self._relative[filename]
        except KeyError:
            found = self._relative[filename] = self._find(filename)
            return found

    def _find(self, filename: str) -> str | None:
        is_foreign = filename.startswith(self._foreign) or not _FOREIGN_PARTS.isdisjoint(
            filename.split(os.sep)
        )
        if is_foreign or not filename.startswith(self._root):
            return None
        return filename[len(self._root) :].replace(os.sep, "/")

    def locate(self, frame: FrameType) -> Location | None:
        """Where a frame stands; None if it is not the project's."""
        file = self.relative(frame.f_code.co_filename)
        if file is None:
            return None
        caller = frame.f_back
        is_entry = caller is None or self.relative(caller.f_code.co_filename) is None
        return Location(file=file, line=frame.f_lineno, function=frame.f_code.co_name, is_entry=is_entry)

    def innermost(self, frame: FrameType | None) -> Location | None:
        """The innermost of the project's frames; None if there is none."""
        return next(self._located(frame), None)

    def stack(self, frame: FrameType | None) -> tuple[Location, ...]:
        """The project's frames, innermost first."""
        return tuple(self._located(frame))

    def _located(self, frame: FrameType | None) -> Iterator[Location]:
        for inner in _outwards(frame):
            if inner in self._outside:
                return
            if (found := self.locate(inner)) is not None:
                yield found

    def is_on(self, trace: TracebackType | None) -> bool:
        """Whether an exception has come by any of the project's frames."""
        while trace is not None:
            if self.locate(trace.tb_frame) is not None:
                return True
            trace = trace.tb_next
        return False

    def cut(self, text: str) -> str:
        """A traceback's text with the project's frames only."""
        kept: list[str] = []
        is_kept = True
        for line in text.splitlines():
            if (found := _FRAME.match(line)) is not None:
                is_kept = self.relative(found[1]) is not None
            elif not line.startswith("    "):
                is_kept = True
            if is_kept:
                kept.append(line)
        return "\n".join(kept)

    def describe(self, error: BaseException) -> str:
        """An exception as a traceback that shows the project's frames only."""
        shown = traceback.TracebackException.from_exception(error)
        self._cut(shown)
        return "".join(shown.format()).rstrip()

    def _cut(self, shown: traceback.TracebackException) -> None:
        for part in (shown, shown.__cause__, shown.__context__):
            if part is None:
                continue
            kept = [frame for frame in part.stack if self.relative(frame.filename) is not None]
            part.stack = traceback.StackSummary.from_list(kept)
            if part is not shown:
                self._cut(part)

    @contextmanager
    def counted_lines(self) -> Iterator[Callable[[], Executed]]:
        """Inside, it is noted what of the project's code runs; gives a function that tells of it."""
        count = 0
        codes: set[CodeType] = set()

        def on_line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count
            if event == "line":
                count += 1
            return on_line

        def on_call(frame: FrameType, event: str, _: Any) -> Any:
            if self.relative(frame.f_code.co_filename) is None:
                return None
            codes.add(frame.f_code)
            return on_line

        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            yield lambda: Executed(lines=count, depends_on_hashes=any(map(depends_on_hashes, codes)))
        finally:
            sys.settrace(before)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame, its caller, and so on."""
    while frame is not None:
        yield frame
        frame = frame.f_back
