"""What an SQLite database holds, as text that can be compared: its own bytes tell of its history besides."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from typing import Any

from pytest_rerunsafe.world.guard import real_files_allowed

_RealConnection = sqlite3.Connection
_DESERIALIZE: Any = getattr(_RealConnection, "deserialize", None)
_HEADER = b"SQLite format 3\0"
_HEADER_SIZE = 100
_VERSIONS_AT, _NO_LOG = slice(18, 20), b"\1\1"
"""Bytes that say whether there may be a log; a database in memory cannot have one."""
_BEGINNING = b'{"(format)": "SQLite"}\n'
_VIRTUAL = re.compile(r"CREATE\s+VIRTUAL\s", re.I)
_WITHOUT_ROWID = re.compile(r"\bWITHOUT\s+ROWID\b", re.I)
_AUTOINCREMENT = re.compile(r"\bAUTOINCREMENT\b", re.I)
_CACHED = 64


def dumped(content: bytes) -> bytes:
    """Schema and rows as JSON lines if the content is a database that can be read; else the content.

    `{"(schema)": {NAME: SQL}}` for each table, index, view and trigger; `{"(rowid)": {TABLE: COLUMN}}` or
    `{"(autoincrement)": {TABLE: COLUMN}}` where SQLite may have made the keys; `{"(references)": {TABLE: {COLUMN: TABLE}}}` for
    columns that hold such keys of another table; `{TABLE: {COLUMN: VALUE}}` for each row.
    """
    return _dumped(content) if content.startswith(_HEADER) and _is_whole(content) else content


@lru_cache(maxsize=_CACHED)
def _dumped(content: bytes) -> bytes:
    try:
        with _opened(content) as connection:
            connection.text_factory = _text
            lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(connection)]
    except sqlite3.Error:  # damaged, or of an SQLite that has more than ours
        return content
    return _BEGINNING + "".join(lines).encode("utf-8", "surrogatepass")


def _is_whole(content: bytes) -> bool:
    """Whether it has the pages that its header speaks of: a copy that was torn has fewer, and SQLite finds zeros there.

    The format is that of https://www.sqlite.org/fileformat2.html#the_database_header.
    """
    if len(content) < _HEADER_SIZE:
        return False
    (size,) = struct.unpack_from(">H", content, 16)
    changes, pages = struct.unpack_from(">II", content, 24)
    (valid_for,) = struct.unpack_from(">I", content, 92)
    size = 65536 if size == 1 else size
    return len(content) % size == 0 if changes != valid_for else len(content) == size * pages


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@contextmanager
def _opened(content: bytes) -> Iterator[sqlite3.Connection]:
    readable = bytearray(content)
    readable[_VERSIONS_AT] = _NO_LOG
    if _DESERIALIZE is not None:
        with closing(_RealConnection(":memory:")) as connection:
            _DESERIALIZE(connection, bytes(readable))
            yield connection
    else:
        with _on_disk(readable) as path, closing(_RealConnection(path)) as connection:
            yield connection


@contextmanager
def _on_disk(content: bytearray) -> Iterator[str]:
    """What CPython 3.10 can do instead."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    path = f"{folder}/rerunsafe-dump-{os.getpid()}"
    with real_files_allowed():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(fd, left) :]
            yield path
        finally:
            os.close(fd)
            with suppress(FileNotFoundError):
                os.unlink(path)


def _lines(connection: sqlite3.Connection) -> Iterator[object]:
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    )
    objects = [(kind, name, sql) for kind, name, sql in found if not name.startswith("sqlite_")]
    # What a virtual table keeps its rows in tells how it came to them.
    shadows = tuple(f"{name}_" for _, name, sql in objects if _VIRTUAL.match(sql))
    objects = [each for each in objects if not (shadows and each[1].startswith(shadows))]
    for _, name, sql in objects:
        yield {"(schema)": {name: sql}}
    tables = [(name, sql) for kind, name, sql in objects if kind == "table"]
    keys = {name: key for name, sql in tables if (key := _rowid_column(connection, name, sql))}
    for name, sql in tables:
        if column := keys.get(name):
            yield {f"({'autoincrement' if _AUTOINCREMENT.search(sql) else 'rowid'})": {name: column}}
        if parents := _references(connection, name, keys):
            yield {"(references)": {name: parents}}
    for name, _ in tables:
        cursor = connection.execute(f"SELECT * FROM {_quoted(name)}")
        columns = [column[0] for column in cursor.description]
        for row in cursor:
            yield {name: dict(zip(columns, map(_value, row), strict=True))}


def _rowid_column(connection: sqlite3.Connection, table: str, sql: str) -> str:
    """The column that is the table's own number for a row; empty if there is none."""
    if _WITHOUT_ROWID.search(sql) or _VIRTUAL.match(sql):
        return ""
    columns = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    keys = [(name, kind) for _, name, kind, _, _, place in columns if place]
    return keys[0][0] if len(keys) == 1 and keys[0][1].upper() == "INTEGER" else ""


def _references(connection: sqlite3.Connection, table: str, keys: Mapping[str, str]) -> dict[str, str]:
    """The tables whose keys, made by SQLite, some columns hold, by column."""
    owners = {name.lower(): (name, column.lower()) for name, column in keys.items()}
    found = connection.execute(f"PRAGMA foreign_key_list({_quoted(table)})").fetchall()
    sizes = Counter(number for number, *_ in found)
    references = {}
    for number, _, parent, column, referred, *_ in found:
        owner, key = owners.get(parent.lower(), ("", ""))
        if owner and sizes[number] == 1 and (referred is None or referred.lower() == key):
            references[column] = owner
    return references


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(value: Any) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value
