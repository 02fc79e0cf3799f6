"""SQL functions that look at the clock or draw random numbers: by the virtual clock and the seed; no files here."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

_REAL_CONNECT = (sqlite3.connect,)
_TIMES = {
    "date": (0,),
    "time": (0,),
    "datetime": (0,),
    "julianday": (0,),
    "strftime": (1,),
    "unixepoch": (0,),
    "timediff": (0, 1),
}
"""By function, the positions of its arguments that may say `now`."""
_KEYWORDS = {"current_date": "date", "current_time": "time", "current_timestamp": "datetime"}
_SUBSECONDS = ("subsec", "subsecond")


class Functions:
    """SQLite's own functions, given another clock and other randomness."""

    def __init__(self) -> None:
        self._sqlite = _REAL_CONNECT[0](":memory:", check_same_thread=False)
        self._known = [name for name in _TIMES if self._has(name)]

    def _has(self, name: str) -> bool:
        """Whether this version of SQLite has the function."""
        try:
            self._sqlite.execute(f"SELECT {name}()")
        except sqlite3.OperationalError as error:
            return "no such function" not in str(error)
        return True

    def install(self, create: Callable[..., None]) -> None:
        """Let a connection use them; `create` is its `create_function`."""
        for name in self._known:
            # Deterministic, as the real ones are within one statement, or no index could use them.
            create(name, -1, self._function(name), deterministic=True)
        for keyword, name in _KEYWORDS.items():
            create(keyword, 0, self._function(name), deterministic=True)
        create("random", 0, lambda: int.from_bytes(os.urandom(8), "big", signed=True))
        create("randomblob", 1, lambda size: os.urandom(max(1, int(size or 0))))

    def _function(self, name: str) -> Callable[..., Any]:
        places = _TIMES[name]

        def function(*arguments: Any) -> Any:
            given = list(arguments)
            if len(given) == places[0] or (name != "strftime" and given[0] in _SUBSECONDS):
                given.insert(places[0], "now")
            for place in places:
                if place < len(given) and isinstance(given[place], str) and given[place].lower() == "now":
                    given[place] = _now()
            marks = ", ".join("?" * len(given))
            return self._sqlite.execute(f"SELECT {name}({marks})", given).fetchone()[0]

        return function


def _now() -> str:
    now = datetime.fromtimestamp(time.time(), timezone.utc)
    return f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03}"
