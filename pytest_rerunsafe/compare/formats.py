"""How outputs fall into records and values: formats by name and content; never what differs or why."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TypeAlias

from ..model import Output
from . import tables

Outputs: TypeAlias = Mapping[str, Output]

DEPTH_LIMIT = 50
_CACHED = 8
"""Contents kept in parsed form: a few questions are asked of each pair, one after the other."""


# --- formats ----------------------------------------------------------------------------------


class Format(Enum):
    """How a content falls into records and values."""

    JSON = "json"
    JSON_LINES = "json lines"
    DELIMITED = "delimited"
    TEXT = "text"
    TABLES = "tables"
    """The dump of a database: a record is a row, in no order."""
    BINARY = "binary"

    @property
    def is_by_lines(self) -> bool:
        """Whether a record is a line, so that a torn one and the next can run together."""
        return self in (Format.TEXT, Format.DELIMITED, Format.JSON_LINES)


_BINARY_BYTE = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_DELIMITED_SUFFIXES = (".csv", ".tsv", ".tab")
_JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")


def format_of(name: str, content: bytes) -> Format:
    """The format of an output, by the suffix of its name, else by its content."""
    if tables.is_dump(content):
        return Format.TABLES
    if _BINARY_BYTE.search(content):
        return Format.BINARY
    suffix = posixpath.splitext(inner_name(name))[1].lower() if name.startswith("file:") else ""
    if suffix in _DELIMITED_SUFFIXES:
        return Format.DELIMITED
    if suffix in _JSON_LINES_SUFFIXES:
        return Format.JSON_LINES
    return _format_by_content(content, Format.JSON if suffix == ".json" else Format.TEXT, name)


def _format_by_content(content: bytes, otherwise: Format, name: str) -> Format:
    if not name.startswith("file:") or content.lstrip()[:1] in (b"{", b"["):
        if json_value(content) is not BROKEN:
            return Format.JSON
        if _is_json_lines(content):
            return Format.JSON_LINES
    return otherwise


def _is_json_lines(content: bytes) -> bool:
    first = [line for line in content.split(b"\n", 3)[:3] if line.strip()]
    return len(first) > 1 and all(isinstance(json_value(line), (dict, list)) for line in first[:2])


# --- packed files -----------------------------------------------------------------------------


_PACKED = {
    b"\x1f\x8b\x08": "gzip",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PAR1": "Parquet",
    b"SQLite format 3\0": "SQLite",  # one that could be read is the dump of its tables
}
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257


def packing_of(content: bytes) -> str:
    """`gzip`, `zip`, `Parquet`, `SQLite` or `tar` if a content begins like such a file; else empty."""
    found = next((kind for start, kind in _PACKED.items() if content.startswith(start)), "")
    return found or ("tar" if content.startswith(_TAR_MARK, _TAR_MARK_AT) else "")


def unreadable(clean: bytes, rerun: bytes) -> str:
    """The kind of packed file that a rerun's content begins like and is not, where the clean run's could be read."""
    kind = packing_of(rerun)
    return kind if packing_of(clean) != kind else ""


def inner_name(name: str) -> str:
    """The name that a gzip file's content would have by itself: `out.csv` of `out.csv.gz`."""
    base, suffix = posixpath.splitext(name)
    return f"{base}.tar" if suffix.lower() == ".tgz" else base if suffix.lower() in (".gz", ".gzip") else name


# --- JSON -------------------------------------------------------------------------------------


class _Broken:
    """Stands for what is no JSON; None is JSON."""


BROKEN = _Broken()


@lru_cache(maxsize=_CACHED)
def json_value(content: bytes) -> object:
    """The JSON value, not to be changed; `BROKEN` if it is none."""
    try:
        value: object = json.loads(content, object_pairs_hook=_all_pairs)
    except (ValueError, RecursionError):
        return BROKEN
    return value


def _all_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Every pair, also where masking has made keys equal."""
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: Counter[str] = Counter()
    value = {}
    for key, item in pairs:
        seen[key] += 1
        value[key if seen[key] == 1 else f"{key}#{seen[key]}"] = item
    return value


# --- records ----------------------------------------------------------------------------------


def records(name: str, content: bytes) -> tuple[bytes, ...]:
    """The records of an output: lines, rows (the header is one), items of JSON; a binary content is one."""
    return split(format_of(name, content), content)


def record_pair(name: str, clean: bytes, rerun: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The records of two contents of one output, split alike even where one of them is damaged."""
    form = common_format(name, clean, rerun)
    if form is Format.TABLES:
        return tables.record_pair(clean, rerun)
    return split(form, clean), split(form, rerun)


def common_format(name: str, clean: bytes, rerun: bytes) -> Format:
    """The format in which two contents of one output can both be read."""
    form = format_of(name, clean or rerun)
    forms = {form, format_of(name, rerun or clean)}
    if Format.BINARY in forms or (Format.TABLES in forms and len(forms) > 1):
        return Format.BINARY
    if form is Format.JSON and BROKEN in (json_value(clean), json_value(rerun)):
        return Format.TEXT
    return form


def is_same(name: str, one: bytes, other: bytes, is_unordered: bool = False) -> bool:
    """Whether two contents hold the same: JSON by structure, all else by bytes; as multisets of records if unordered."""
    if one == other:
        return True
    form = common_format(name, one, other)
    if form is Format.TABLES:
        return tables.is_same(one, other)
    if form in (Format.JSON, Format.JSON_LINES) and _canonical_lines(form, one) == _canonical_lines(
        form, other
    ):
        return True
    return is_unordered and Counter(split(form, one)) == Counter(split(form, other))


def _canonical_lines(form: Format, content: bytes) -> list[bytes]:
    parts = [content] if form is Format.JSON else lines(content)
    return [part if (value := json_value(part)) is BROKEN else canonical(value) for part in parts]


def ordered(name: str, one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Two contents with their records sorted, for those to be told apart of which the order does not count."""
    form = common_format(name, one, other)
    return (_sorted(form, one), _sorted(form, other)) if form.is_by_lines else (one, other)


def _sorted(form: Format, content: bytes) -> bytes:
    rows = split(form, content)
    head = rows[:1] if form is Format.DELIMITED and header_of(rows) else ()
    return b"".join(row + b"\n" for row in (*head, *sorted(rows[len(head) :])))


@lru_cache(maxsize=_CACHED)
def split(form: Format, content: bytes) -> tuple[bytes, ...]:
    """The records of a content in that format."""
    match form:
        case Format.BINARY:
            return (content,) if content else ()
        case Format.TABLES:
            return tables.records(content)
        case Format.DELIMITED:
            return _rows(content)
        case Format.JSON:
            value = json_value(content)
            return lines(content) if value is BROKEN else tuple(_items(value, ""))
        case _:
            return lines(content)


def lines(content: bytes) -> tuple[bytes, ...]:
    """The lines of a text, without their ends."""
    found = content.replace(b"\r\n", b"\n").split(b"\n")
    if not found[-1]:
        found.pop()
    return tuple(found)


def _rows(content: bytes) -> tuple[bytes, ...]:
    """Lines, put together again where a quoted cell holds a line break."""
    plain = lines(content)
    if b'"' not in content:
        return plain
    rows: list[bytes] = []
    is_open = False
    for line in plain:
        if is_open:
            rows[-1] += b"\n" + line
        else:
            rows.append(line)
        is_open ^= line.count(b'"') % 2 == 1
    return tuple(rows)


def _items(value: object, path: str) -> Iterator[bytes]:
    """One record per element of a list and per value of an object that is not itself a container."""
    if isinstance(value, dict) and value and path.count(".") < DEPTH_LIMIT:
        for key in sorted(value):
            yield from _items(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for element in value:
            yield _labelled(f"{path}[]" if path else "", element)
    elif value not in ({}, []):
        yield _labelled(path, value)


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def _labelled(path: str, value: object) -> bytes:
    return (f"{path}: " if path else "").encode("utf-8", "surrogatepass") + canonical(value)


def canonical(value: object) -> bytes:
    """A JSON value as text: the same for equal ones."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


_NAME_CELL = re.compile(rb'\s*"?[A-Za-z_][\w .()/%#-]*"?\s*')
_CELL_END = re.compile(rb"[,;\t|]")


def header_of(rows: Sequence[bytes]) -> tuple[bytes, ...]:
    """The column names of delimited records; empty if the first record is none."""
    cells = _CELL_END.split(rows[0]) if rows else []
    if not all(map(_NAME_CELL.fullmatch, cells)) or len(set(cells)) < len(cells):
        return ()
    is_plain = len(rows) > 1 and all(map(_NAME_CELL.fullmatch, _CELL_END.split(rows[1])))
    if is_plain and not (len(cells) > 1 and rows[0].islower()):
        return ()
    return tuple(cell.strip(b' "') for cell in cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordChanges:
    """How the multiset of a rerun's records differs from the clean run's."""

    missing: tuple[bytes, ...]
    repeated: tuple[bytes, ...]
    """There more often than in the clean run."""
    foreign: tuple[bytes, ...]
    """Unknown to the clean run."""


def compare_records(clean: Sequence[bytes], rerun: Sequence[bytes]) -> RecordChanges:
    """What is missing, repeated and foreign in a rerun, each record as often as it is so."""
    wanted, found = Counter(clean), Counter(rerun)
    extra = found - wanted
    return RecordChanges(
        missing=tuple((wanted - found).elements()),
        repeated=tuple(record for record in extra.elements() if record in wanted),
        foreign=tuple(record for record in extra.elements() if record not in wanted),
    )


def shared_start(one: bytes, other: bytes) -> int:
    """The number of bytes that two contents have in common at the start."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
