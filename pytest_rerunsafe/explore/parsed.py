"""A DAG file that is parsed once for several attempts, where the parse would come out the same for each."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from ..world.files_reads import Seen, View
from ..world.memory import Memory
from ..world.process import ProcessState
from .journal import Journal
from .sources import Executed, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a parse has left in this process, to be put back for each attempt."""

    file: str
    bag: Any
    memory: Memory
    process: ProcessState
    seen: Seen
    """What the parse has seen of the files."""
    looks: int
    """How often it has looked at the clock."""
    executed: Executed | None
    """What of the project's code it has run; None if nobody counted."""

    def serves(self, file: str, counts_lines: bool, view: View) -> bool:
        """Whether a parse of that file would come out the same where the files are as in the view."""
        is_told = self.executed is not None or not counts_lines
        return self.file == file and is_told and self.seen.holds(view)

    def restore(self) -> None:
        """Make this process what it was after the parse."""
        self.process.restore()
        self.memory.restore()


class Looks:
    """Looks at the clock while a file is loaded: how many, and whether code of the project wants to know the time.

    Airflow notes for itself when it parsed a file.
    """

    def __init__(self, sources: Sources, journal: Journal) -> None:
        self._sources = sources
        self._journal = journal
        self.count = 0
        self.of_project = False

    def look(self) -> None:
        """Somebody has looked."""
        self.count += self._journal.is_parse
        self.of_project = self.of_project or self._sources.innermost(sys._getframe(1)) is not None
