"""What differs between two outputs, in a person's words; never why it differs or whether that matters."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from functools import lru_cache
from typing import Protocol, TypeAlias

from ..model import Difference, Output

Outputs: TypeAlias = Mapping[str, Output]

LINE_LIMIT = 10
WIDTH_LIMIT = 100
_SUMMARY_LIMIT = 100
_VALUE_LIMIT = 30
_ALIGN_LIMIT = 40_000
"""Lines times lines up to which two texts are aligned; above that the whole stretch that differs is shown."""
_DEPTH_LIMIT = 50
_LEFT_OUT = "..."
_CACHED = 8
"""Contents kept in parsed form: a few questions are asked of each pair, one after the other."""


class Masking(Protocol):
    """What brings a content into comparable form; `Volatility` is one."""

    def mask(self, name: str, content: bytes) -> bytes: ...


# --- formats ----------------------------------------------------------------------------------


class Format(Enum):
    """How a content falls into records and values."""

    JSON = "json"
    JSON_LINES = "json lines"
    DELIMITED = "delimited"
    TEXT = "text"
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
    if _BINARY_BYTE.search(content):
        return Format.BINARY
    suffix = posixpath.splitext(name)[1].lower() if name.startswith("file:") else ""
    if suffix in _DELIMITED_SUFFIXES:
        return Format.DELIMITED
    if suffix in _JSON_LINES_SUFFIXES:
        return Format.JSON_LINES
    return _format_by_content(content, Format.JSON if suffix == ".json" else Format.TEXT, name)


def _format_by_content(content: bytes, otherwise: Format, name: str) -> Format:
    if not name.startswith("file:") or content.lstrip()[:1] in (b"{", b"["):
        if _parse(content) is not _BROKEN:
            return Format.JSON
        if _is_json_lines(content):
            return Format.JSON_LINES
    return otherwise


def _is_json_lines(content: bytes) -> bool:
    lines = [line for line in content.split(b"\n", 3)[:3] if line.strip()]
    return len(lines) > 1 and all(isinstance(_parse(line), (dict, list)) for line in lines[:2])


class _Broken:
    """Stands for what is no JSON; None is JSON."""


_BROKEN = _Broken()


@lru_cache(maxsize=_CACHED)
def _parse(content: bytes) -> object:
    """The JSON value, not to be changed; `_BROKEN` if it is none."""
    try:
        value: object = json.loads(content, object_pairs_hook=_all_pairs)
    except (ValueError, RecursionError):
        return _BROKEN
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
    return _split(format_of(name, content), content)


def record_pair(name: str, clean: bytes, rerun: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The records of two contents of one output, split alike even where one of them is damaged."""
    form = common_format(name, clean, rerun)
    return _split(form, clean), _split(form, rerun)


def common_format(name: str, clean: bytes, rerun: bytes) -> Format:
    """The format in which two contents of one output can both be read."""
    form = format_of(name, clean or rerun)
    if Format.BINARY in (form, format_of(name, rerun)):
        return Format.BINARY
    if form is Format.JSON and _BROKEN in (_parse(clean), _parse(rerun)):
        return Format.TEXT
    return form


@lru_cache(maxsize=_CACHED)
def _split(form: Format, content: bytes) -> tuple[bytes, ...]:
    match form:
        case Format.BINARY:
            return (content,) if content else ()
        case Format.DELIMITED:
            return _rows(content)
        case Format.JSON:
            value = _parse(content)
            return _lines(content) if value is _BROKEN else tuple(_items(value, ""))
        case _:
            return _lines(content)


def _lines(content: bytes) -> tuple[bytes, ...]:
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return tuple(lines)


def _rows(content: bytes) -> tuple[bytes, ...]:
    """Lines, put together again where a quoted cell holds a line break."""
    lines = _lines(content)
    if b'"' not in content:
        return lines
    rows: list[bytes] = []
    is_open = False
    for line in lines:
        if is_open:
            rows[-1] += b"\n" + line
        else:
            rows.append(line)
        is_open ^= line.count(b'"') % 2 == 1
    return tuple(rows)


def _items(value: object, path: str) -> Iterator[bytes]:
    """One record per element of a list and per value of an object that is not itself a container."""
    if isinstance(value, dict) and value and path.count(".") < _DEPTH_LIMIT:
        for key in sorted(value):
            yield from _items(value[key], f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for element in value:
            yield _labelled(f"{path}[]" if path else "", element)
    elif value not in ({}, []):
        yield _labelled(path, value)


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def _labelled(path: str, value: object) -> bytes:
    return (f"{path}: " if path else "").encode("utf-8", "surrogatepass") + _canonical(value)


def _canonical(value: object) -> bytes:
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


# --- differences ------------------------------------------------------------------------------


def diff_outputs(clean: Outputs, rerun: Outputs, volatility: Masking) -> tuple[Difference, ...]:
    """What of a rerun's outputs differs from the clean run's, volatile values masked; sorted by name."""
    found = []
    for name in sorted(clean.keys() | rerun.keys()):
        before, after = _content(clean, name), _content(rerun, name)
        if before == after:
            continue
        before, after = _masked(volatility, name, before), _masked(volatility, name, after)
        if before != after:
            found.append(describe(name, before, after))
    return tuple(found)


def _content(outputs: Outputs, name: str) -> bytes | None:
    return outputs[name].content if name in outputs else None


def _masked(volatility: Masking, name: str, content: bytes | None) -> bytes | None:
    return None if content is None else volatility.mask(name, content)


def describe(name: str, clean: bytes | None, rerun: bytes | None) -> Difference:
    """The difference between two contents of one output that are not equal; None stands for no output."""
    if clean is None or rerun is None:
        summary = f"extra {_noun(name)}" if clean is None else f"{_noun(name)} is missing"
        return Difference(
            output=name, clean=_beginning(name, clean), rerun=_beginning(name, rerun), summary=summary
        )
    form = common_format(name, clean, rerun)
    if form is Format.BINARY:
        before, after = _byte_excerpts(clean, rerun)
        return Difference(output=name, clean=before, rerun=after, summary=_byte_summary(name, clean, rerun))
    before, after = excerpts(_split(form, clean), _split(form, rerun))
    if before == after:
        before, after = excerpts(clean.split(b"\n"), rerun.split(b"\n"))
    return Difference(output=name, clean=before, rerun=after, summary=_summary(name, form, clean, rerun))


_NOUNS = {"file": "file", "xcom": "XCom", "variable": "Variable", "runs": "run of another DAG"}


def _noun(name: str) -> str:
    return _NOUNS.get(name.partition(":")[0], "output")


def _summary(name: str, form: Format, clean: bytes, rerun: bytes) -> str:
    if not rerun.strip():
        return f"{_noun(name)} is empty"
    if form is Format.JSON:
        return _printable(_json_summary(_parse(clean), _parse(rerun)))
    if clean.startswith(rerun) and not _ends_with_record(form, clean, rerun):
        return f"cut off after {len(rerun)} of {len(clean)} bytes"
    if not clean.endswith(b"\n") and _is_multiple(clean, rerun):
        return f"the whole content {_times(len(rerun) // len(clean))}"
    return _by_records(form, clean, rerun)


def _printable(text: str) -> str:
    """On one line, and without the lone surrogates that a JSON key may hold."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _is_multiple(clean: bytes, rerun: bytes) -> bool:
    return bool(clean) and rerun == clean * (len(rerun) // len(clean))


def _ends_with_record(form: Format, clean: bytes, rerun: bytes) -> bool:
    return form.is_by_lines and (rerun.endswith(b"\n") or clean[len(rerun) :] in (b"\n", b"\r\n"))


def _by_records(form: Format, clean: bytes, rerun: bytes) -> str:
    before, after = _split(form, clean), _split(form, rerun)
    header = before[:1] if form is Format.DELIMITED and header_of(before) else ()
    noun = "line" if form is Format.TEXT else "record"
    if header and after[:1] != header:
        return "header is missing" if header[0] not in after else "header is not the first record"
    return _record_phrase(_without(before, header), _without(after, header), noun)


def _without(rows: Sequence[bytes], header: Sequence[bytes]) -> tuple[bytes, ...]:
    return tuple(row for row in rows if row not in header)


def _record_phrase(clean: Sequence[bytes], rerun: Sequence[bytes], noun: str) -> str:
    changes = compare_records(clean, rerun)
    phrases = _changed_phrases(clean, changes, noun)
    if not phrases:
        return (
            f"same {noun}s in another order"
            if tuple(clean) != tuple(rerun)
            else "same data, written differently"
        )
    return ", ".join(phrases)


def _changed_phrases(clean: Sequence[bytes], changes: RecordChanges, noun: str) -> list[str]:
    phrases = []
    if changes.missing and len(changes.missing) == len(changes.foreign):
        phrases.append(_positions(clean, changes.missing, noun, "differs", "differ"))
    else:
        if changes.missing:
            phrases.append(_positions(clean, changes.missing, noun, "missing", "missing"))
        if changes.foreign:
            phrases.append(f"{len(changes.foreign)} extra {_plural(len(changes.foreign), noun)}")
    if changes.repeated:
        phrases.append(_repeated_phrase(clean, changes.repeated, noun))
    return phrases


def _positions(clean: Sequence[bytes], gone: Sequence[bytes], noun: str, one: str, many: str) -> str:
    """`record 4 missing`, `records 4 to 10 missing`, `3 of 10 records missing`."""
    left, places = Counter(gone), []
    for place in range(len(clean), 0, -1):
        if left[clean[place - 1]]:
            left[clean[place - 1]] -= 1
            places.append(place)
    if len(places) == len(clean):
        return f"all {len(clean)} {noun}s {many}" if len(clean) > 1 else f"the only {noun} {one}"
    if len(places) == 1:
        return f"{noun} {places[0]} {one}"
    if places[0] - places[-1] == len(places) - 1:
        return f"{noun}s {places[-1]} to {places[0]} {many}"
    return f"{len(places)} of {len(clean)} {noun}s {many}"


def _repeated_phrase(clean: Sequence[bytes], repeated: Sequence[bytes], noun: str) -> str:
    wanted, extra = Counter(clean), Counter(repeated)
    ratios = {(wanted[record] + count, wanted[record]) for record, count in extra.items()}
    factors = {total // once if total % once == 0 else 0 for total, once in ratios}
    often = _times(factors.pop()) if len(factors) == 1 and 0 not in factors else "more than once"
    affected = sum(wanted[record] for record in extra)
    if affected == len(clean):
        return f"all {len(clean)} {noun}s {often}" if len(clean) > 1 else f"the only {noun} {often}"
    return f"{affected} of {len(clean)} {noun}s {often}"


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"


# --- JSON -------------------------------------------------------------------------------------


def _json_summary(clean: object, rerun: object) -> str:
    phrases = list(_json_phrases(clean, rerun, ""))
    match len(phrases):
        case 0:
            return "same data, written differently"
        case 1:
            return phrases[0]
        case count:
            return f"{phrases[0]}, and {count - 1} more"


def _json_phrases(clean: object, rerun: object, path: str) -> Iterator[str]:
    if isinstance(clean, dict) and isinstance(rerun, dict) and path.count(".") < _DEPTH_LIMIT:
        yield from _object_phrases(clean, rerun, path)
    elif isinstance(clean, list) and isinstance(rerun, list):
        yield from _list_phrases(clean, rerun, path)
    elif _canonical(clean) != _canonical(rerun):
        yield f"{f'`{path}`' if path else 'value'} is {_shown(rerun)} instead of {_shown(clean)}"


def _object_phrases(clean: dict[str, object], rerun: dict[str, object], path: str) -> Iterator[str]:
    for key in sorted(clean.keys() | rerun.keys()):
        inner = f"{path}.{key}" if path else key
        if key not in rerun:
            yield f"`{inner}` is missing"
        elif key not in clean:
            yield f"extra `{inner}`"
        else:
            yield from _json_phrases(clean[key], rerun[key], inner)


def _list_phrases(clean: list[object], rerun: list[object], path: str) -> Iterator[str]:
    before, after = [*map(_canonical, clean)], [*map(_canonical, rerun)]
    if before == after:
        return
    changed = [index for index, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]]
    if len(before) == len(after) and len(changed) == 1:
        yield from _json_phrases(clean[changed[0]], rerun[changed[0]], f"{path}[{changed[0]}]")
    else:
        yield _record_phrase(before, after, "record") + (f" in `{path}`" if path else "")


def _shown(value: object) -> str:
    return _cut(_canonical(value).decode("utf-8", "backslashreplace"), _VALUE_LIMIT)


# --- excerpts ---------------------------------------------------------------------------------


def excerpts(clean: Sequence[bytes], rerun: Sequence[bytes]) -> tuple[str, str]:
    """The lines of each side that the other lacks, bounded; `...` for what is left out."""
    head = _shared_count(clean, rerun)
    tail = _shared_count(clean[head:][::-1], rerun[head:][::-1])
    whole = [*range(head, len(clean) - tail)], [*range(head, len(rerun) - tail)]
    if len(whole[0]) * len(whole[1]) <= _ALIGN_LIMIT:
        before, after = _aligned(clean, rerun, *whole)
        # Of records that only moved, the lines alone would be alike on both sides.
        if [clean[index] for index in before] != [rerun[index] for index in after]:
            return _rendered_pair(clean, rerun, before, after)
    return _rendered_pair(clean, rerun, *whole)


def _aligned(
    clean: Sequence[bytes], rerun: Sequence[bytes], before: Sequence[int], after: Sequence[int]
) -> tuple[list[int], list[int]]:
    sides = [clean[index] for index in before], [rerun[index] for index in after]
    blocks = SequenceMatcher(None, *sides, autojunk=False).get_opcodes()
    changed = [block for block in blocks if block[0] != "equal"]
    return (
        [before[line] for _, start, end, _, _ in changed for line in range(start, end)],
        [after[line] for _, _, _, start, end in changed for line in range(start, end)],
    )


def _rendered_pair(
    clean: Sequence[bytes], rerun: Sequence[bytes], before: Sequence[int], after: Sequence[int]
) -> tuple[str, str]:
    skips: Mapping[int, int] = {}
    if len(before) == len(after):
        pairs = list(zip(before, after, strict=True))[:LINE_LIMIT]
        skips = {place: shared_start(clean[one], rerun[two]) for place, (one, two) in enumerate(pairs)}
    return _rendered(clean, before, skips), _rendered(rerun, after, skips)


def _shared_count(clean: Sequence[bytes], rerun: Sequence[bytes]) -> int:
    pairs = enumerate(zip(clean, rerun, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(clean), len(rerun)))


def _rendered(lines: Sequence[bytes], changed: Sequence[int], skips: Mapping[int, int]) -> str:
    if not lines:
        return ""
    shown: list[str] = []
    last = -1
    for place, index in enumerate(changed):
        gap = [_LEFT_OUT] if index > last + 1 else []
        if len(shown) + len(gap) >= LINE_LIMIT - 1:
            break
        shown += [*gap, _line(lines[index], skips.get(place, 0))]
        last = index
    return "\n".join([*shown, _LEFT_OUT] if last < len(lines) - 1 else shown)


def _line(line: bytes, skip: int) -> str:
    text = _text(line)
    start = max(0, len(_text(line[:skip])) - WIDTH_LIMIT // 3) if len(text) > WIDTH_LIMIT else 0
    return _cut(_LEFT_OUT + text[start + len(_LEFT_OUT) :] if start else text, WIDTH_LIMIT)


def _text(line: bytes) -> str:
    """On one line, and two that differ still do."""
    return line.decode("utf-8", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_LEFT_OUT)] + _LEFT_OUT


def _beginning(name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    if format_of(name, content) is Format.BINARY:
        return _hex(content, 0)
    lines = _lines(content)
    return _rendered(lines, range(len(lines)), {})


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


def _byte_excerpts(clean: bytes, rerun: bytes) -> tuple[str, str]:
    start = shared_start(clean, rerun)
    return _hex(clean, start), _hex(rerun, start)


def _hex(content: bytes, start: int) -> str:
    piece = content[start : start + 16]
    if not piece:
        return _LEFT_OUT if content else ""
    return f"from byte {start + 1}: {piece.hex(' ')}{' ' + _LEFT_OUT if start + 16 < len(content) else ''}"


def _byte_summary(name: str, clean: bytes, rerun: bytes) -> str:
    if not rerun:
        return f"{_noun(name)} is empty"
    if clean.startswith(rerun):
        return f"cut off after {len(rerun)} of {len(clean)} bytes"
    if _is_multiple(clean, rerun):
        return f"the whole content {_times(len(rerun) // len(clean))}"
    sizes = f", {len(rerun)} bytes instead of {len(clean)}" if len(clean) != len(rerun) else ""
    return f"differs from byte {shared_start(clean, rerun) + 1} on{sizes}"


# --- one line ---------------------------------------------------------------------------------


def summarise(differences: Sequence[Difference]) -> str:
    """One line of at most 100 characters: the first difference in full, the number of the others."""
    if not differences:
        return "no difference"
    first, others = differences[0], len(differences) - 1
    end = f" (and {others} more {_plural(others, 'output')})" if others else ""
    room = _SUMMARY_LIMIT - len(end)
    summary = _cut(first.summary.replace("\n", " "), room * 2 // 3)
    return f"{_short_name(first.output, room - len(summary) - 2)}: {summary}{end}"


def _short_name(name: str, room: int) -> str:
    shown = name.removeprefix("file:").replace("\n", " ")
    return shown if len(shown) <= room else _LEFT_OUT + shown[len(_LEFT_OUT) + len(shown) - room :]
