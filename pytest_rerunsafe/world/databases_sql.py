"""SQL that reaches beyond its own database, and what is run in its stead; opens nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from sqlite3 import complete_statement

_LEADING = re.compile(r"(?:[\s;]|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_END = r"\s*;?\s*\Z"
_ATTACH = re.compile(
    rf"ATTACH\b\s*(?:DATABASE\b\s*)?(?P<file>.+)\bAS\b\s*(?P<name>.+?)(?:\s+KEY\s.+)?{_END}", re.I | re.DOTALL
)
_VACUUM = re.compile(rf"VACUUM\b\s*(?P<schema>.*?)\s*\bINTO\b\s*(?P<file>.+?){_END}", re.I | re.DOTALL)
_PRAGMA = re.compile(
    rf"PRAGMA\s+(?:\w+\.)?(?P<name>busy_timeout|database_list|temp_store|temp_store_directory|data_store_directory)"
    rf"\s*(?:[=(]\s*(?P<value>[^)]*?)\s*\)?)?{_END}",
    re.I,
)
_READING = re.compile(r"(?:SELECT|VALUES|EXPLAIN)\b", re.I)
_QUOTED = re.compile(r'"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]')
_WORD = re.compile(r"[A-Za-z_]\w*")


def beginning(sql: str) -> int:
    """Where the statement begins, past blanks and comments."""
    found = _LEADING.match(sql)
    return found.end() if found else 0


def only_reads(sql: str) -> bool:
    """Whether it can commit nothing; said of few, and of those that are many."""
    return _READING.match(sql, beginning(sql)) is not None


@dataclass(frozen=True, slots=True)
class Attach:
    """ATTACH: the file and the name as SQL expressions."""

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class VacuumInto:
    """VACUUM INTO: the file as an SQL expression."""

    schema: str
    file: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A PRAGMA that concerns the machine: its name, and its new value if one is given."""

    name: str
    value: str | None


def reaching(sql: str) -> Attach | VacuumInto | Setting | None:
    """What a statement does beyond its database; None for all usual ones."""
    start = beginning(sql)
    match sql[start : start + 6].upper():
        case "ATTACH":
            found = _ATTACH.match(sql, start)
            return Attach(as_text(found["file"]), as_text(found["name"])) if found else None
        case "VACUUM":
            found = _VACUUM.match(sql, start)
            return VacuumInto(found["schema"], as_text(found["file"])) if found else None
        case "PRAGMA":
            found = _PRAGMA.match(sql, start)
            return Setting(found["name"].lower(), found["value"]) if found else None
    return None


def as_text(expression: str) -> str:
    """An expression as SELECT understands it where ATTACH takes a name for a text."""
    expression = expression.strip()
    if _WORD.fullmatch(expression):
        return quoted(expression)
    if _QUOTED.fullmatch(expression):
        mark = expression[-1]
        return quoted(expression[1:-1].replace(mark * 2, mark))
    return expression


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one; the last may be torn."""
    start, end = 0, script.find(";")
    while end >= 0:
        if complete_statement(script[start : end + 1]):
            yield script[start : end + 1]
            start = end + 1
        end = script.find(";", end + 1)
    if script[start:].strip():
        yield script[start:]


def database_list(files: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]]:
    """The PRAGMA of that name, told of the files as they are known by name; statement and parameters."""
    cases = " ".join("WHEN ? THEN ?" for _ in files)
    shown = f"CASE name {cases} ELSE '' END" if files else "''"
    parameters = tuple(part for pair in files for part in pair)
    return f"SELECT seq, name, {shown} AS file FROM pragma_database_list", parameters
