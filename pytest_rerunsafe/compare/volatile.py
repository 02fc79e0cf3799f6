"""Which values are times or ids that every run makes anew, and their masks; never what a rerun breaks."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

from ..model import Difference, Output, Rule
from .differences import describe
from .formats import Format, Outputs, format_of, header_of, is_same, records

Kind: TypeAlias = Literal["time", "id"]
Problem: TypeAlias = tuple[Rule, Difference]

# --- what times and ids look like --------------------------------------------------------------

_DATE = r"(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_COMPACT_DATE = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"
_COMPACT_CLOCK = r"(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d(?:\.?\d{3,6})?)?"
_HOURS = r"(?:[01]\d|2[0-3]):[0-5]\d"
_CLOCK = _HOURS + r":[0-5]\d(?:\.\d{1,9}|,\d{3}(?!\d))?"
_ZONE = r"(?: ?(?:Z|UTC|GMT)| ?[+-](?:[01]\d|2[0-3]):?[0-5]\d)?"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}"
_SHAPES = {
    "rfc2822": rf"(?:{_DAY}, ?)?\d{{1,2}} {_MONTH} (?:19|20)\d\d,? {_CLOCK}{_ZONE}",
    "ctime": rf"{_DAY} {_MONTH} [ \d]?\d {_CLOCK} (?:[A-Z]{{3,4}} )?(?:19|20)\d\d",
    "access_log": rf"\d\d/{_MONTH}/(?:19|20)\d\d:{_CLOCK}{_ZONE}",
    "datetime": rf"{_DATE}[T _](?:{_CLOCK}|{_HOURS}){_ZONE}",
    "dashed_datetime": rf"{_DATE}[T _-]\d\d-[0-5]\d(?:-[0-5]\d)?",
    "date": _DATE,
    "named_date": rf"\d{{1,2}} {_MONTH} (?:19|20)\d\d|{_MONTH} \d{{1,2}},? (?:19|20)\d\d",
    "slashed_date": r"(?:19|20)\d\d/[01]\d/[0-3]\d|[0-3]?\d/[0-3]?\d/(?:19|20)\d\d",
    "dotted_date": r"[0-3]\d\.[01]\d\.(?:19|20)\d\d",
    "clock": _CLOCK + _ZONE,
    "hours": _HOURS,
    "compact_datetime": rf"{_COMPACT_DATE}[T_-]?{_COMPACT_CLOCK}(?:Z|[+-]\d{{4}})?",
    "compact_date": _COMPACT_DATE,
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "number": r"\d+\.\d+(?:[eE][+-]?\d+)?",
}
_NO_TIMES = frozenset(("uuid", "number"))
# The first group only saves time: no shape starts in any other way.
# A letter before a token usually belongs to it, but not the one of an escaped line break in JSON.
_SPECIAL = re.compile(
    (
        r"(?=[0-9][0-9./ ]|[A-Z][a-z]{2}|[0-9A-Fa-f]{8}-)(?:(?<![0-9A-Za-z.])|(?<=\\[nrt])|(?<=[^0-9]\.))(?:"
        + "|".join(f"(?P<{name}>{shape})" for name, shape in _SHAPES.items())
        + r")(?![0-9A-Za-z])"
    ).encode()
)
_WORD = re.compile(rb"[A-Za-z0-9_-]{16,}|[A-Za-z0-9]+|[\s,;|]+")
_DELIMITERS = b" \t\n\r\v\f,;|"
_KEY = re.compile(rb"""(?<![\w.-])([A-Za-z_][\w.-]*)["']?\s?[:=]\s?["']?\Z""")
_EPOCH = re.compile(rb"\d{10}(?:\.\d+)?|\d{13}(?:\.\d+)?|\d{16}|\d{19}")
_EPOCH_FIRST, _EPOCH_LAST = 946_684_800, 4_102_444_800
"""2000 to 2100: what lies outside is a number like any other."""

_ID_SHAPES = {
    "uuid": re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "integer": re.compile(rb"-?\d+"),
    "hex": re.compile(rb"[0-9a-f]+|[0-9A-F]+"),
    "token": re.compile(rb"[A-Za-z0-9_-]+"),
}
_ID_LENGTHS = {"uuid": (36, 36), "integer": (10, 5), "hex": (8, 6), "token": (16, 8)}
"""The shortest that counts as an id anywhere, and where the place is named one."""
_SHORTEST_ID = 5
_ID_SLACK = 3
"""Random integers are not all of one length."""
_ID_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:id|uuid|guid|token|nonce|key)$|[a-z](?:Id|ID|Uuid|UUID|Token|Key)$"
)
_CLASS_CHANGE = re.compile(
    rb"[a-z](?=[A-Z0-9_-])|[A-Z](?=[a-z0-9_-])|[0-9](?=[A-Za-z_-])|[_-](?=[A-Za-z0-9])"
)
_WORD_PLACE = re.compile(r"word (\d+)")
_CACHED = 32
"""Contents whose masked form is kept: those of the clean run are asked for in every scenario."""


def _time_shape(value: bytes) -> str:
    """The name of the way in which a value writes a time; empty if it is none."""
    found = _SPECIAL.fullmatch(value)
    if found and found.lastgroup not in _NO_TIMES:
        return found.lastgroup or ""
    seconds = _epoch_seconds(value)
    return f"epoch{len(value.partition(b'.')[0])}" if seconds is not None else ""


def _epoch_seconds(value: bytes) -> float | None:
    if not _EPOCH.fullmatch(value):
        return None
    whole = value.partition(b".")[0]
    seconds = float(value) / 10.0 ** (len(whole) - 10)
    return seconds if _EPOCH_FIRST <= seconds <= _EPOCH_LAST else None


def _id_shape(pair: tuple[bytes, bytes], is_named: bool) -> str:
    """The name of the way in which both values write an id; empty if they don't."""
    for shape, pattern in _ID_SHAPES.items():
        shortest = min(map(len, pair))
        if shortest >= _ID_LENGTHS[shape][is_named] and all(map(pattern.fullmatch, pair)):
            return shape if shape in ("uuid", "integer") or _is_random(pair, shape) else ""
    return ""


def _is_random(pair: tuple[bytes, bytes], shape: str) -> bool:
    if shape == "hex":
        return any(byte in b"0123456789" for byte in b"".join(pair))
    return all(len(_CLASS_CHANGE.findall(value)) >= len(value) / 5 for value in pair)


# --- places -----------------------------------------------------------------------------------


class _Token(NamedTuple):
    """A piece of a content that may be masked, and its place: alike in every record."""

    place: str
    start: int
    end: int
    is_bare: bool = False
    """A JSON number, which needs quotes once it is masked."""


class _Wanted(NamedTuple):
    """The places that a reader asks for; what cannot lead to one of them need not be read, which is most."""

    paths: frozenset[str] | None
    """None: all."""
    words: float
    """The number of words of a line that can be asked for; the key of a value may stand anywhere."""

    def has(self, path: str) -> bool:
        return self.paths is None or path in self.paths


_ALL = _Wanted(None, math.inf)


def _wanted(masks: Mapping[str, object]) -> _Wanted:
    paths = {place[: gap.start()] for place in masks for gap in re.finditer(r" |$", place)}
    numbers = [_WORD_PLACE.fullmatch(place) for place in masks]
    return _Wanted(frozenset(paths), max(int(number[1]) if number else math.inf for number in numbers))


def _tokens(form: Format, content: bytes, wanted: _Wanted = _ALL) -> Iterator[_Token]:
    match form:
        case Format.JSON:
            yield from _json_tokens(content, 0, len(content), wanted)
        case Format.JSON_LINES | Format.TABLES:
            for start, end in _line_spans(content):
                yield from _json_tokens(content, start, end, wanted)
        case Format.DELIMITED:
            yield from _cell_tokens(content, wanted)
        case Format.TEXT:
            for start, end in _line_spans(content):
                yield from _text_tokens(content, start, end, "", wanted.words)
        case Format.BINARY:
            return


def _line_spans(content: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    for line in content.splitlines(keepends=True):
        yield start, start + len(line)
        start += len(line)


def _text_tokens(
    content: bytes, start: int, end: int, path: str, words: float = math.inf
) -> Iterator[_Token]:
    """Times, ids and words by the key before them, else by the number of delimiters before them."""
    count, at = 0, start
    for special in chain(_SPECIAL.finditer(content, start, end), (None,)):
        for word in _WORD.finditer(content, at, special.start() if special else end):
            if content[word.start()] in _DELIMITERS:
                count += 1
            else:
                yield _Token(
                    _place(content, (start, at, word.start()), path, count), word.start(), word.end()
                )
            if count >= words:
                return
        if special:
            # A time with a space in it counts as one: masked, it has none.
            yield _Token(
                _place(content, (start, at, special.start()), path, count), special.start(), special.end()
            )
            at = special.end()


def _place(content: bytes, starts: tuple[int, int, int], path: str, count: int) -> str:
    """The place of a token by the starts of its line, of the text since the last time in it, and its own."""
    line, gap, start = starts
    if start == line:
        return path or "word 1"
    before = content[max(gap, start - 64) : start]
    key = _KEY.search(before) if before[-3:].strip(b" \"'")[-1:] in (b":", b"=") else None
    is_named = key is not None and _is_name(key[1])
    if not is_named and path and count == 0:
        return path
    inner = key[1].decode() if key and is_named else f"word {count + 1}"
    return f"{path} {inner}" if path else inner


def _is_name(key: bytes) -> bool:
    """Whether a key is no id itself: as such it would be masked and lead to another place the next time."""
    pieces = re.findall(rb"[A-Za-z0-9]+", key)
    return all(piece.isalpha() or len(piece) < _SHORTEST_ID for piece in pieces) and (
        len(key) < 16 or not re.search(rb"\d", key)
    )


def _cell_tokens(content: bytes, wanted: _Wanted) -> Iterator[_Token]:
    """Each cell of delimited records by the number of its column."""
    ends = (re.escape(_delimiter(content)),) * 2
    cell = re.compile(rb'"(?:[^"]|"")*"?|[^%b\r\n]+|(%b)|(\r?\n|\r)' % ends)
    column = 1
    for found in cell.finditer(content):
        if found.lastindex:
            column = column + 1 if found.lastindex == 1 else 1
        elif wanted.has(path := f"column {column}"):
            start, end = found.span()
            is_quoted = content[start] == ord('"')
            yield from _text_tokens(content, start + is_quoted, end, path)


def _delimiter(content: bytes) -> bytes:
    first_line = content.partition(b"\n")[0]
    # Commas last: of all four they are likeliest inside a cell.
    return max((b"\t", b";", b"|", b","), key=first_line.count)


_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*'
_JSON_PIECE = re.compile(
    rf'({_STRING}")\s*:|{_STRING}"?|-?[0-9][0-9.eE+-]*|[{{}}\[\]]|true|false|null'.encode(), re.DOTALL
)
_CHANGING_KEY = re.compile(r"\d+|[0-9a-f]{8,}|.*<(?:time|id)>.*", re.DOTALL)


def _json_tokens(content: bytes, start: int, end: int, wanted: _Wanted) -> Iterator[_Token]:
    """Keys and values by the path of their keys, list indexes left out; goes on where JSON is torn."""
    paths: dict[tuple[str, bytes], str] = {}
    path, outer = "", [""]
    for piece in _JSON_PIECE.finditer(content, start, end):
        match content[piece.start()]:
            case 0x7B:
                outer.append(path)
            case 0x5B:
                path += "[]"
                outer.append(path)
            case 0x7D | 0x5D:
                del outer[max(1, len(outer) - 1) :]
                path = outer[-1]
            case 0x22:
                if key := piece[1]:
                    path, place = _known_path(paths, outer[-1], key), f"{outer[-1]}{{}}"
                else:
                    place = path or "value"
                if wanted.has(place):
                    yield from _string_tokens(content, piece.span(1 if key else 0), place)
            case _:
                if wanted.has(path or "value"):
                    yield _Token(path or "value", piece.start(), piece.end(), is_bare=True)


def _known_path(known: dict[tuple[str, bytes], str], outer: str, key: bytes) -> str:
    if (outer, key) not in known:
        known[outer, key] = _inner_path(outer, key[1:-1])
    return known[outer, key]


def _inner_path(outer: str, key: bytes) -> str:
    """The path of an object's value; a key that is itself an id, a number or a time counts as any key."""
    found = _SPECIAL.search(key)
    name = key.decode("utf-8", "replace")
    if found or _CHANGING_KEY.fullmatch(name):
        name = "*"
    return f"{outer}.{name}" if outer else name


def _string_tokens(content: bytes, span: tuple[int, int], path: str) -> Iterator[_Token]:
    start, end = span
    is_closed = end - start > 1 and content[end - 1] == ord('"')
    return _text_tokens(content, start + 1, end - is_closed, path)


def _by_place(form: Format, content: bytes) -> dict[str, list[bytes]]:
    values: dict[str, list[bytes]] = {}
    for place, start, end, _ in _tokens(form, content):
        values.setdefault(place, []).append(content[start:end])
    return values


# --- masks ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """One place whose values every run makes anew, and how they are written there."""

    place: str
    label: str
    """The place as its user knows it: a column by its name."""
    kind: Kind
    shape: str
    shortest: int = 0
    longest: int = 0

    def covers(self, value: bytes) -> bool:
        """Whether a value at this place is one that the mask stands for; an empty or torn one is not."""
        if self.kind == "time":
            return _time_shape(value) == self.shape
        return self.shortest <= len(value) <= self.longest and bool(_ID_SHAPES[self.shape].fullmatch(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMasks:
    """The format in which one output's places are to be read, and its masks."""

    form: Format
    masks: tuple[Mask, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatility:
    """What of the clean run's outputs is made anew by every run, and what of it may not be."""

    masks: Mapping[str, OutputMasks]
    """Of every output of the clean run, by name."""
    problems: tuple[Problem, ...] = ()
    """Sorted by output: what two clean runs disagree about although it is neither time nor id."""

    @classmethod
    def none(cls) -> Volatility:
        """Nothing is masked."""
        return cls(masks={})

    def mask(self, name: str, content: bytes) -> bytes:
        """The content with `<time>` and `<id>` for what is volatile; the very same object if nothing is."""
        if name in self.masks:
            return _masked(self.masks[name], content)
        for sibling in _siblings(name, self.masks):
            content = _masked(self.masks[sibling], content)
        return content

    def places(self) -> tuple[str, ...]:
        """One line per output that has masked places: `/data/out.csv: time in `at`, id in `key``."""
        return tuple(_note(name, found.masks) for name, found in sorted(self.masks.items()) if found.masks)


def _note(name: str, masks: Sequence[Mask]) -> str:
    places = sorted({(mask.label, mask.kind) for mask in masks})
    return f"{name.removeprefix('file:')}: {', '.join(f'{kind} in `{label}`' for label, kind in places)}"


def _siblings(name: str, masks: Mapping[str, OutputMasks]) -> tuple[str, ...]:
    """The clean run's files that an unknown one is like: those whose name it extends, else of its suffix."""
    if not name.startswith("file:"):
        return ()
    folder, base = posixpath.split(name)
    suffix = posixpath.splitext(base)[1]
    known = [other for other in sorted(masks) if masks[other].masks and posixpath.dirname(other) == folder]
    extended = tuple(other for other in known if posixpath.basename(other).removeprefix("file:") in base)
    return extended or tuple(other for other in known if posixpath.splitext(other)[1] == suffix)


@lru_cache(maxsize=_CACHED)
def _masked(found: OutputMasks, content: bytes) -> bytes:
    masks: dict[str, list[Mask]] = {}
    for mask in found.masks:
        masks.setdefault(mask.place, []).append(mask)
    parts, at = [], 0
    for place, start, end, is_bare in _tokens(found.form, content, _wanted(masks)) if masks else ():
        if place not in masks:
            continue
        kind = next((mask.kind for mask in masks[place] if mask.covers(content[start:end])), None)
        if kind is not None:
            parts += [content[at:start], f'"<{kind}>"'.encode() if is_bare else f"<{kind}>".encode()]
            at = end
    return b"".join([*parts, content[at:]]) if parts else content


# --- finding them -----------------------------------------------------------------------------


def find_volatile(
    clean: Outputs,
    other_clock: Outputs,
    other_entropy: Outputs,
    *,
    is_unordered: Callable[[str], bool] = lambda name: False,
) -> Volatility:
    """What is volatile, from three clean runs that differ in clock and randomness alone."""
    masks = {
        name: _find_masks(clean[name], other_clock.get(name), other_entropy.get(name))
        for name in sorted(clean)
    }
    found = Volatility(masks=masks)
    names = clean.keys() | other_clock.keys() | other_entropy.keys()
    problems = [
        *_name_problems(clean, other_clock, other_entropy),
        *(
            problem
            for name in sorted(names)
            for problem in _content_problems(
                name, found, (clean, other_clock, other_entropy), is_unordered(name)
            )
        ),
    ]
    return Volatility(masks=masks, problems=tuple(sorted(problems, key=lambda problem: problem[1].output)))


def _find_masks(clean: Output, other_clock: Output | None, other_entropy: Output | None) -> OutputMasks:
    form = format_of(clean.name, clean.content)
    labels = _labels(form, clean)
    ids = _id_masks(form, clean, other_entropy, labels)
    whole_ids = {mask.place for mask in ids if mask.shape == "integer"}
    times = _time_masks(form, clean, other_clock, labels)
    # A random integer may happen to look like an epoch: at a place of ids it is none.
    times = [mask for mask in times if not (mask.shape.startswith("epoch") and mask.place in whole_ids)]
    return OutputMasks(form=form, masks=(*times, *ids))


def _labels(form: Format, output: Output) -> dict[str, str]:
    names = header_of(records(output.name, output.content)) if form is Format.DELIMITED else ()
    return {f"column {number}": name.decode("utf-8", "replace") for number, name in enumerate(names, 1)}


def _label(place: str, labels: Mapping[str, str]) -> str:
    column = next((known for known in labels if place == known or place.startswith(f"{known} ")), None)
    return labels[column] + place[len(column) :] if column else place


def _changed_pairs(form: Format, clean: Output, other: Output | None) -> dict[str, list[tuple[bytes, bytes]]]:
    """Values that a place has in the clean run only, with what stands there in the other run."""
    if other is None or other.content == clean.content:
        return {}
    ours, theirs = _by_place(form, clean.content), _by_place(form, other.content)
    pairs = {}
    for place in sorted(ours.keys() & theirs.keys()):
        known = frozenset(theirs[place])
        pairs[place] = [
            pair for pair in zip(ours[place], theirs[place], strict=False) if pair[0] not in known
        ]
    return pairs


def _time_masks(form: Format, clean: Output, other: Output | None, labels: Mapping[str, str]) -> list[Mask]:
    masks = []
    for place, pairs in _changed_pairs(form, clean, other).items():
        shapes = {shape for one, two in pairs if (shape := _time_shape(one)) and shape == _time_shape(two)}
        if not _is_consistent(pairs):
            shapes = {shape for shape in shapes if not shape.startswith("epoch")}
        label = _label(place, labels)
        masks += [Mask(place=place, label=label, kind="time", shape=shape) for shape in sorted(shapes)]
    return masks


def _is_consistent(pairs: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the values of a place differ as two clocks do: all by about as much."""
    seconds = [(_epoch_seconds(one), _epoch_seconds(two)) for one, two in pairs]
    shifts = [two - one for one, two in seconds if one is not None and two is not None]
    return (
        bool(shifts)
        and len(shifts) == len(pairs)
        and max(shifts) - min(shifts) <= max(60.0, abs(shifts[0]) / 100)
    )


def _id_masks(form: Format, clean: Output, other: Output | None, labels: Mapping[str, str]) -> list[Mask]:
    masks = []
    for place, pairs in _changed_pairs(form, clean, other).items():
        label = _label(place, labels)
        by_shape: dict[str, list[bytes]] = {}
        for pair in pairs:
            by_shape.setdefault(_id_shape(pair, bool(_ID_NAME.search(label))), []).extend(pair)
        shapes = sorted(by_shape.keys() - {""})
        masks += [_id_mask(place, label, shape, [*map(len, by_shape[shape])]) for shape in shapes]
    return masks


def _id_mask(place: str, label: str, shape: str, lengths: Sequence[int]) -> Mask:
    shortest, longest = max(_SHORTEST_ID, min(lengths) - _ID_SLACK), max(lengths) + _ID_SLACK
    return Mask(place=place, label=label, kind="id", shape=shape, shortest=shortest, longest=longest)


# --- problems ---------------------------------------------------------------------------------


def _content_problems(
    name: str, found: Volatility, runs: tuple[Outputs, Outputs, Outputs], is_unordered: bool
) -> Iterator[Problem]:
    clean, *others = runs
    if name not in clean:
        return
    reference = found.mask(name, clean[name].content)
    contents = [found.mask(name, run[name].content) if name in run else reference for run in others]
    by_clock, by_chance = (
        frozenset[str]()
        if is_same(name, reference, content, is_unordered)
        else _changed_places(found.masks[name].form, reference, content)
        for content in contents
    )
    if by_chance:
        yield Rule.NONDETERMINISTIC_OUTPUT, describe(name, reference, contents[1])
    if by_clock - by_chance:
        yield Rule.CLOCK_DEPENDENT, describe(name, reference, contents[0])


def _changed_places(form: Format, clean: bytes, other: bytes) -> frozenset[str]:
    if clean == other:
        return frozenset()
    ours, theirs = _by_place(form, clean), _by_place(form, other)
    changed = {place for place in ours.keys() | theirs.keys() if ours.get(place) != theirs.get(place)}
    if not changed or len(records("", clean)) != len(records("", other)):
        changed.add("")
    return frozenset(changed)


def _name_problems(clean: Outputs, other_clock: Outputs, other_entropy: Outputs) -> Iterator[Problem]:
    """Outputs that are not there under the same name everywhere."""
    random_names = clean.keys() ^ other_entropy.keys()
    yield from _renamed(
        Rule.NONDETERMINISTIC_OUTPUT, "with other random values", clean, other_entropy, random_names
    )
    clock_names = (clean.keys() ^ other_clock.keys()) - random_names
    yield from _renamed(Rule.CLOCK_DEPENDENT, "at another time", clean, other_clock, clock_names)


def _renamed(
    rule: Rule, when: str, clean: Outputs, other: Outputs, names: frozenset[str] | set[str]
) -> Iterator[Problem]:
    """One problem per output that has another name in the other run, or none."""
    theirs = sorted(name for name in names if name in other)
    for name in sorted(name for name in names if name in clean):
        partner = next((their for their in theirs if _generalised(their) == _generalised(name)), None)
        if partner is None:
            plain = describe(name, clean[name].content, None)
            yield rule, _reworded(plain, f"{plain.summary} {when}")
        else:
            theirs.remove(partner)
            summary = f"named {posixpath.basename(partner)} {when}"
            yield rule, Difference(output=name, clean=name, rerun=partner, summary=summary)
    for name in theirs:
        plain = describe(name, None, other[name].content)
        yield rule, _reworded(plain, f"{plain.summary} {when}")


def _reworded(difference: Difference, summary: str) -> Difference:
    return Difference(
        output=difference.output, clean=difference.clean, rerun=difference.rerun, summary=summary
    )


def _generalised(name: str) -> bytes:
    """A name without what may differ from run to run: times, ids, numbers."""
    plain = _SPECIAL.sub(b"<>", name.encode("utf-8", "replace"))
    return re.sub(rb"[A-Za-z0-9]*\d[A-Za-z0-9]*|[A-Za-z0-9_-]{16,}", b"<>", plain)
