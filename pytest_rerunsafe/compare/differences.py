"""What differs between two outputs, in a person's words; never why it differs or whether that matters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Protocol

from ..model import Difference
from . import tables
from .formats import (
    DEPTH_LIMIT,
    Format,
    Outputs,
    RecordChanges,
    canonical,
    common_format,
    compare_records,
    format_of,
    header_of,
    is_same,
    json_value,
    lines,
    ordered,
    record_pair,
    shared_start,
    split,
    unreadable,
)

LINE_LIMIT = 10
WIDTH_LIMIT = 100
_SUMMARY_LIMIT = 100
_VALUE_LIMIT = 30
_ALIGN_LIMIT = 40_000
"""Lines times lines up to which two texts are aligned; above that the whole stretch that differs is shown."""
_LEFT_OUT = "..."


class Masking(Protocol):
    """What brings a content into comparable form; `Volatility` is one."""

    def mask(self, name: str, content: bytes) -> bytes: ...


# --- differences ------------------------------------------------------------------------------


def diff_outputs(
    clean: Outputs,
    rerun: Outputs,
    volatility: Masking,
    *,
    is_unordered: Callable[[str], bool] = lambda name: False,
) -> tuple[Difference, ...]:
    """What of a rerun's outputs differs from the clean run's, volatile values masked; sorted by name."""
    found = []
    for name in sorted(clean.keys() | rerun.keys()):
        before, after = _content(clean, name), _content(rerun, name)
        if before == after:
            continue
        before, after = _masked(volatility, name, before), _masked(volatility, name, after)
        if before is None or after is None:
            found.append(describe(name, before, after))
        elif not is_same(name, before, after, is_unordered(name)):
            sides = ordered(name, before, after) if is_unordered(name) else (before, after)
            found.append(describe(name, *sides))
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
    if kind := unreadable(clean, rerun):
        summary = f"{_noun(name)} is damaged: no {kind} file that can be read"
        return Difference(output=name, clean=_beginning(name, clean), rerun=_hex(rerun, 0), summary=summary)
    form = common_format(name, clean, rerun)
    if form is Format.BINARY:
        before, after = _byte_excerpts(clean, rerun)
        return Difference(output=name, clean=before, rerun=after, summary=_byte_summary(name, clean, rerun))
    before, after = excerpts(*record_pair(name, clean, rerun))
    if before == after:
        before, after = excerpts(clean.split(b"\n"), rerun.split(b"\n"))
    return Difference(output=name, clean=before, rerun=after, summary=_summary(name, form, clean, rerun))


_NOUNS = {"file": "file", "xcom": "XCom", "variable": "Variable", "runs": "run of another DAG"}


def _noun(name: str) -> str:
    return _NOUNS.get(name.partition(":")[0], "output")


def _summary(name: str, form: Format, clean: bytes, rerun: bytes) -> str:
    if not rerun.strip():
        return f"{_noun(name)} is empty"
    if form is Format.TABLES:
        return _printable(_tables_summary(clean, rerun))
    if form is Format.JSON:
        return _printable(_json_summary(json_value(clean), json_value(rerun)))
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
    before, after = split(form, clean), split(form, rerun)
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


# --- tables -----------------------------------------------------------------------------------


_DEFINED = re.compile(r"TABLE|INDEX|VIEW|TRIGGER", re.I)


def _tables_summary(clean: bytes, rerun: bytes) -> str:
    return _first_of(list(_tables_phrases(clean, rerun)))


def _tables_phrases(clean: bytes, rerun: bytes) -> Iterator[str]:
    ours, theirs = tables.schema(clean), tables.schema(rerun)
    for name in sorted(ours.keys() | theirs.keys()):
        noun = _DEFINED.search(str(ours.get(name, theirs.get(name))))
        what = f"{noun[0].lower() if noun else 'table'} `{name}`"
        if name not in theirs:
            yield f"{what} is missing"
        elif name not in ours:
            yield f"extra {what}"
        elif ours[name] != theirs[name]:
            yield f"{what} is defined otherwise"
    for name, (before, after) in tables.pairs(clean, rerun).items():
        if name in ours.keys() & theirs.keys() and Counter(before) != Counter(after):
            yield f"table `{name}`: {_record_phrase(before, after, 'row')}"


def _first_of(phrases: Sequence[str]) -> str:
    match len(phrases):
        case 0:
            return "same data, written differently"
        case 1:
            return phrases[0]
        case count:
            return f"{phrases[0]}, and {count - 1} more"


# --- JSON -------------------------------------------------------------------------------------


def _json_summary(clean: object, rerun: object) -> str:
    return _first_of(list(_json_phrases(clean, rerun, "")))


def _json_phrases(clean: object, rerun: object, path: str) -> Iterator[str]:
    if isinstance(clean, dict) and isinstance(rerun, dict) and path.count(".") < DEPTH_LIMIT:
        yield from _object_phrases(clean, rerun, path)
    elif isinstance(clean, list) and isinstance(rerun, list):
        yield from _list_phrases(clean, rerun, path)
    elif canonical(clean) != canonical(rerun):
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
    before, after = [*map(canonical, clean)], [*map(canonical, rerun)]
    if before == after:
        return
    changed = [index for index, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]]
    if len(before) == len(after) and len(changed) == 1:
        yield from _json_phrases(clean[changed[0]], rerun[changed[0]], f"{path}[{changed[0]}]")
    else:
        yield _record_phrase(before, after, "record") + (f" in `{path}`" if path else "")


def _shown(value: object) -> str:
    return _cut(canonical(value).decode("utf-8", "backslashreplace"), _VALUE_LIMIT)


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
    shown = lines(content)
    return _rendered(shown, range(len(shown)), {})


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


_OF_WHOLE_FILES = {
    "extra file": "extra files",
    "file is missing": "files missing",
    "file is empty": "files empty",
}


def summarise(differences: Sequence[Difference]) -> str:
    """One line of at most 100 characters: the first difference in full, with those alike, the number of the others."""
    if not differences:
        return "no difference"
    first = differences[0]
    plural = _OF_WHOLE_FILES.get(first.summary)
    alike = sum(difference.summary == first.summary for difference in differences) if plural else 1
    others = len(differences) - alike
    end = f" (and {others} more {_plural(others, 'output')})" if others else ""
    room = _SUMMARY_LIMIT - len(end)
    if alike > 1:
        begin = f"{alike} {plural}, such as "
        return f"{begin}{_short_name(first.output, room - len(begin))}{end}"
    summary = _cut(first.summary.replace("\n", " "), room * 2 // 3)
    return f"{_short_name(first.output, room - len(summary) - 2)}: {summary}{end}"


def _short_name(name: str, room: int) -> str:
    shown = name.removeprefix("file:").replace("\n", " ")
    return shown if len(shown) <= room else _LEFT_OUT + shown[len(_LEFT_OUT) + len(shown) - room :]
