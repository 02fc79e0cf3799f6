"""Tables of an SQLite database, dumped as JSON lines: which rows are alike. Never what that means."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

_BEGINNING = b'{"(format)": "SQLite"}'
_CACHED = 8


def is_dump(content: bytes) -> bool:
    """Whether a content is the dump of a database."""
    return content.startswith(_BEGINNING)


@dataclass(slots=True)
class _Dump:
    schema: dict[str, object] = field(default_factory=dict)
    """SQL by the name of a table, index, view or trigger."""
    keys: dict[str, str] = field(default_factory=dict)
    """By table the column whose values SQLite may have made."""
    counting: set[str] = field(default_factory=set)
    """Those of which it has made them all, and none twice: AUTOINCREMENT."""
    references: dict[str, dict[str, str]] = field(default_factory=dict)
    """By table, the tables whose keys a column holds, where SQLite may have made them."""
    rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    by_key: dict[tuple[str, object], dict[str, object]] = field(default_factory=dict)
    """Rows by their table and the key that SQLite may have made."""


@lru_cache(maxsize=_CACHED)
def _parsed(content: bytes) -> _Dump:
    """Not to be changed."""
    dump = _Dump()
    for line in content.split(b"\n")[1:]:
        for name, value in json.loads(line).items() if line else ():
            match name:
                case "(schema)":
                    dump.schema |= value
                case "(rowid)":
                    dump.keys |= value
                case "(autoincrement)":
                    dump.keys |= value
                    dump.counting |= value.keys()
                case "(references)":
                    dump.references |= value
                case _:
                    dump.rows.setdefault(name, []).append(value)
                    if name in dump.keys:
                        dump.by_key[name, value[dump.keys[name]]] = value
    _mark_dangling(dump)
    return dump


def _mark_dangling(dump: _Dump) -> None:
    """Tell apart a reference to a row from one to none, which may have the same number."""
    for table, references in dump.references.items():
        for row in dump.rows.get(table, ()):
            for column, owner in references.items():
                number = row[column]
                if isinstance(number, int) and (owner, number) not in dump.by_key:
                    row[column] = {"no row": number}


def schema(content: bytes) -> Mapping[str, object]:
    """SQL by the name of a table, index, view or trigger."""
    return _parsed(content).schema


def records(content: bytes) -> tuple[bytes, ...]:
    """What the schema says, and each row, also without a key that SQLite may have made."""
    dump = _parsed(content)
    found = [_definition(name, sql) for name, sql in sorted(dump.schema.items())]
    for table, rows in sorted(dump.rows.items()):
        found += [_shown(table, row) for row in rows]
        if table in dump.keys:
            found += [_shown(table, _without(row, dump.keys[table])) for row in rows]
    return tuple(found)


def record_pair(clean: bytes, rerun: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The records of two dumps, to be compared as multisets."""
    parts = pairs(clean, rerun).values()
    one, other = ([record for part in parts for record in part[side]] for side in (0, 1))
    return tuple(one), tuple(other)


@lru_cache(maxsize=_CACHED)
def pairs(clean: bytes, rerun: bytes) -> Mapping[str, tuple[Sequence[bytes], Sequence[bytes]]]:
    """By table its records in two dumps; what the schema says is under the empty name.

    A key that SQLite makes is another one when a row is deleted and inserted again, or when a transaction before it was
    rolled back: nobody calls that another row. So rows may differ in it, unless the other side has another row under it;
    and where a row refers to another by such a key, that row counts.
    """
    one, other = _parsed(clean), _parsed(rerun)
    found: dict[str, tuple[Sequence[bytes], Sequence[bytes]]] = {"": (_schema(one), _schema(other))}
    for table in sorted(one.rows.keys() | other.rows.keys()):
        key = one.keys.get(table, "")
        if key != other.keys.get(table, ""):
            key = ""
        is_free = not key or table in one.counting
        disputed = frozenset[object]() if is_free else _disputed(table, (one, other), key)
        found[table] = _freed(table, (one, other), key, disputed)
    return found


def _schema(dump: _Dump) -> list[bytes]:
    return [_definition(name, sql) for name, sql in sorted(dump.schema.items())]


def _disputed(table: str, dumps: tuple[_Dump, _Dump], key: str) -> frozenset[object]:
    """The keys under which the dumps have other rows."""
    one, other = (
        {row[key]: _resolved(dump, table, row, key) for row in dump.rows.get(table, ())} for dump in dumps
    )
    return frozenset(number for number in one.keys() & other.keys() if one[number] != other[number])


def _freed(
    table: str, dumps: tuple[_Dump, _Dump], key: str, disputed: frozenset[object]
) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """The records, without keys that SQLite may have made where only then they are on both sides."""
    sides = [dump.rows.get(table, []) for dump in dumps]
    plain = [
        [
            None if key and row[key] in disputed else _shown(table, _resolved(dump, table, row, key))
            for row in side
        ]
        for dump, side in zip(dumps, sides, strict=True)
    ]
    shared = frozenset(plain[0]) & frozenset(plain[1])
    one, other = (
        [
            record if record in shared and record else _shown(table, row)
            for record, row in zip(*both, strict=True)
        ]
        for both in zip(plain, sides, strict=True)
    )
    return one, other


_DEEPEST = 8
"""Rows that refer to each other in a circle are followed so far."""


def _resolved(dump: _Dump, table: str, row: dict[str, object], key: str, depth: int = 0) -> dict[str, object]:
    """The row without its key, with the rows that it refers to instead of theirs."""
    found = _without(row, key)
    for column, owner in dump.references.get(table, {}).items() if depth < _DEEPEST else ():
        number = row[column]
        referred = dump.by_key.get((owner, number)) if isinstance(number, int) else None
        if referred is not None:
            found = {**found, column: _resolved(dump, owner, referred, dump.keys[owner], depth + 1)}
    return found


def _without(row: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != key} or row


def is_same(clean: bytes, rerun: bytes) -> bool:
    """Whether two dumps hold the same."""
    return all(Counter(one) == Counter(other) for one, other in pairs(clean, rerun).values())


def empties_a_table(clean: bytes, left: bytes) -> bool:
    """Whether nothing is left of a table that has rows in the clean run."""
    return bool(_parsed(clean).rows.keys() - _parsed(left).rows.keys())


def _definition(name: str, sql: object) -> bytes:
    return f"{name}: {sql}".encode("utf-8", "surrogatepass")


def _shown(table: str, row: dict[str, object]) -> bytes:
    return f"{table}: {json.dumps(row, ensure_ascii=False)}".encode("utf-8", "surrogatepass")
