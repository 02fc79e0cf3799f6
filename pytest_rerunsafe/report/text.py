"""What people read of findings, checks and sessions, as plain text; no colours, no files, no pytest here."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import NamedTuple, Protocol, TypeAlias
from unicodedata import combining, east_asian_width

from ..model import (
    ERRORS,
    OF_INTERVALS,
    CheckResult,
    Coverage,
    CrashKind,
    Difference,
    Finding,
    RecoveryKind,
    Rule,
    Verdict,
)

SourceOf: TypeAlias = Callable[[str, int], "str | None"]
"""Gives a line of a file's source; None if there is no such line."""

_INDENT = "  "
_LEFT_OUT = "..."
_SOON = "some minutes later"
_NARROWEST = 40
"""A narrower terminal breaks our lines itself: better than one word per line."""


class RuleText(Protocol):
    """What a rule says to its reader."""

    @property
    def title(self) -> str:
        """One line without a full stop."""

    @property
    def remedy(self) -> str:
        """What to do about it; indented lines are code and stay as they are."""


# --- findings ---------------------------------------------------------------------------------


def finding_text(
    finding: Finding, rule_text: RuleText, source_line: str | None = None, width: int = 80
) -> str:
    """The story of a finding; its first line stands alone. Only commands, code and names exceed `width`."""
    return "\n".join([_headline(finding), *_body(finding, rule_text, source_line, width)])


def _headline(finding: Finding) -> str:
    verdict = Verdict.KNOWN if finding.known else Verdict.UNSAFE
    place = f" in {_task(finding)}" if finding.task_id else ""
    return f"{verdict}: {finding.rule}{place}: {_first_line(finding.summary)}"


def _task(finding: Finding) -> str:
    return finding.task_id if finding.map_index < 0 else f"{finding.task_id}[{finding.map_index}]"


def _body(finding: Finding, rule_text: RuleText, source_line: str | None, width: int) -> list[str]:
    room = max(width, _NARROWEST) - len(_INDENT)
    blocks = (
        _wrapped(f"{rule_text.title}.", room),
        _events(finding, source_line, room),
        _rest(finding.summary),
        *_difference_blocks(finding, room),
        _labelled("What to do", finding.remedy or rule_text.remedy, room),
        _others(finding, room),
        ["To see it happen:", _INDENT + finding.replay],
    )
    return [line for block in blocks if block for line in ("", *_indented(block))]


def _rest(text: str) -> list[str]:
    """The lines of a summary that the headline has no room for, such as a traceback."""
    return [_visible(line) for line in text.strip().splitlines()[1:]]


def _others(finding: Finding, room: int) -> list[str]:
    if not finding.others:
        return []
    which = " (other crash points or recoveries)" if finding.crash_point is not None else ""
    return _wrapped(f"The same happens in {_count(finding.others, 'more case')}{which}.", room)


# --- what happened ----------------------------------------------------------------------------


def _events(finding: Finding, source_line: str | None, room: int) -> list[str]:
    if finding.crash_point is None:
        return _events_without_crash(finding, source_line, room)
    death = f"{_death(finding.crash_kind or CrashKind.KILL)} in {_task(finding)}, at"
    is_torn = finding.crash_point.endswith("+torn")
    if finding.recovery is RecoveryKind.GO_ON and finding.crash_kind not in _FAULTS:
        how = _death(finding.crash_kind or CrashKind.KILL)
        death = f"{how} after {_task(finding)} was recorded as success. Written at"
    if finding.crash_kind is CrashKind.POWER:
        return [
            *_at(death, finding, source_line, room),
            *_labelled("Last change made", finding.last_effect, room),
            *_labelled("Lost with the power, for it was not synced", finding.next_effect, room),
            *_rerun("Recovery", finding, room),
        ]
    is_elsewhere = bool(finding.died_at)
    return [
        *_labelled("It had died before, at", ", then at ".join(finding.before), room),
        *(
            _wrapped(f"{death} {finding.died_at}.", room)
            if is_elsewhere
            else _at(death, finding, source_line, room)
        ),
        *_labelled("Saved only in part" if is_torn else "Last change saved", finding.last_effect, room),
        *_labelled(_next_change(finding.crash_kind), finding.next_effect, room),
        *_rerun("Recovery", finding, room),
        *(_at("To blame is", finding, source_line, room) if is_elsewhere else ()),
    ]


def _events_without_crash(finding: Finding, source_line: str | None, room: int) -> list[str]:
    if finding.rule is Rule.PARSE_SIDE_EFFECT:
        return _at("No task was running: loading the DAG file did this, at", finding, source_line, room)
    return [
        *_wrapped(f"No worker died: {_occasion(finding)}.", room),
        *_rerun("Order" if finding.recovery in OF_INTERVALS else "Rerun", finding, room),
        *(_at("See", finding, source_line, room) if finding.file else ()),
    ]


def _occasion(finding: Finding) -> str:
    if finding.recovery in OF_INTERVALS:
        return "intervals ran otherwise than once each, oldest first"
    if finding.recovery is not None:
        return "the run had succeeded"
    match finding.rule:
        case Rule.CLOCK_DEPENDENT:
            return "two clean runs at different times do not agree"
        case Rule.NONDETERMINISTIC_OUTPUT:
            return "two clean runs on the same input do not agree"
        case _:
            return "this happens in a clean run"


def _at(text: str, finding: Finding, source_line: str | None, room: int) -> list[str]:
    """A sentence with the place of the finding and, if known, the line of code there."""
    place = f"{finding.file}:{finding.line}" if finding.line > 0 else finding.file
    sentence = f"{text} {place}" if place else text.removesuffix(", at")
    code = (source_line or "").strip()
    if not code:
        return _wrapped(f"{sentence}.", room)
    return [*_wrapped(f"{sentence}:", room), f"{finding.line:>6} | {_visible(code)}"]


_FAULTS = ERRORS | {CrashKind.TIMEOUT, CrashKind.SIGTERM}
"""What befalls a task that may go on and succeed all the same."""


def _death(kind: CrashKind) -> str:
    match kind:
        case CrashKind.KILL:
            return "The worker was killed"
        case CrashKind.POWER:
            return "The power failed"
        case CrashKind.OOM:
            return "The task's process was killed, by want of memory for one,"
        case CrashKind.ERROR:
            return "A change failed"
        case CrashKind.ERROR_EACH_TRY:
            return "A change failed on every try"
        case CrashKind.TIMEOUT:
            return "The execution_timeout was over"
        case CrashKind.SIGTERM:
            return "The task got SIGTERM"
        case CrashKind.ZOMBIE:
            return "The worker was taken for dead, and lived on,"


def _next_change(kind: CrashKind | None) -> str:
    """What the change after the last one that was saved is called."""
    match kind:
        case CrashKind.ERROR | CrashKind.ERROR_EACH_TRY:
            return "Change that failed"
        case CrashKind.KILL | CrashKind.OOM | None:
            return "First change lost"
        case _:
            return "Change that would come next"


def _rerun(label: str, finding: Finding, room: int) -> list[str]:
    if finding.recovery is None:
        return []
    return _labelled(label, f"{_recovery_words(finding.recovery, _task(finding))}.", room)


def _recovery_words(recovery: RecoveryKind, task: str) -> str:
    match recovery:
        case RecoveryKind.RETRY:
            return f"Airflow retries {task}, {_SOON}"
        case RecoveryKind.GO_ON:
            return f"none, for {task} had succeeded: the run goes on"
        case RecoveryKind.CLEAR_TASK:
            return f"{task} alone is cleared, {_SOON}"
        case RecoveryKind.CLEAR_DOWNSTREAM:
            return f"{task} is cleared with its downstream, {_SOON}"
        case RecoveryKind.CLEAR_RUN:
            return f"the whole run is cleared, {_SOON}"
        case RecoveryKind.CLEAR_RUN_DAY_LATER:
            return "the whole run is cleared, a day later"
        case RecoveryKind.CLEAR_UPSTREAM:
            return f"{task} is cleared with its upstream, {_SOON}"
        case RecoveryKind.CLEAR_BOTH_WAYS:
            return f"{task} is cleared with its upstream and downstream, {_SOON}"
        case RecoveryKind.CLEAR_INDEX:
            return f"this mapped index of {task} alone is cleared, {_SOON}"
        case RecoveryKind.CLEAR_FAILED:
            return f"all that failed in the run is cleared, {_SOON}"
        case RecoveryKind.CLEAR_RUNNING:
            return f"{task} is cleared while it runs, which ends it, and runs again"
        case RecoveryKind.MARK_SUCCESS:
            return f"{task} is marked success and the run goes on, {_SOON}"
        case RecoveryKind.CLEAR_RUN_AFTER_NEWER:
            return "the oldest run is cleared after the newer ones have ended"
        case RecoveryKind.RETRY_AFTER_NEWER:
            return f"Airflow retries {task} after newer intervals have ended"
        case RecoveryKind.CLEAR_DOWNSTREAM_AFTER_NEWER:
            return f"{task} is cleared with its downstream after newer intervals have ended"
        case RecoveryKind.BACKFILL_BACKWARDS:
            return "a backfill runs the intervals from the newest to the oldest, one at a time"
        case RecoveryKind.BACKFILL_COMPLETED:
            return "a backfill runs all intervals again, in order, one at a time"
        case RecoveryKind.BACKFILL_COMPLETED_BACKWARDS:
            return "a backfill runs all intervals again, from the newest to the oldest, one at a time"
        case RecoveryKind.CATCHUP:
            return "all intervals are due at once, and run as many at a time as max_active_runs allows"


# --- differences ------------------------------------------------------------------------------

_SHOWN_DIFFERENCES = 3
_NAMED_DIFFERENCES = 10
_SHOWN_ROWS = 20

_Row: TypeAlias = "tuple[str | None, str | None]"


def _difference_blocks(finding: Finding, room: int) -> Iterator[list[str]]:
    shown = finding.differences[:_SHOWN_DIFFERENCES]
    named = finding.differences[_SHOWN_DIFFERENCES:][:_NAMED_DIFFERENCES]
    for difference in shown:
        yield _difference(difference, _heads(finding), room)
    yield [_difference_title(difference) for difference in named]
    left = len(finding.differences) - len(shown) - len(named)
    yield [f"{_count(left, 'more output')} {'differs' if left == 1 else 'differ'}."] if left else []


def _heads(finding: Finding) -> tuple[str, str]:
    if finding.recovery in OF_INTERVALS:
        return "in order", "in this order" if finding.crash_point is None else "after the rerun"
    if finding.recovery is RecoveryKind.GO_ON:
        return "clean run", "at the end"
    if finding.recovery is not None or finding.crash_point is not None:
        return "clean run", "after the rerun"
    match finding.rule:
        case Rule.PARSE_SIDE_EFFECT:
            return "before loading", "after loading"
        case Rule.CLOCK_DEPENDENT:
            return "clean run", "clean run at another time"
        case Rule.NONDETERMINISTIC_OUTPUT:
            return "a clean run", "another clean run"
        case _:
            return "expected", "this run"


def _difference(difference: Difference, heads: tuple[str, str], room: int) -> list[str]:
    rows = _rows(_side(difference.clean), _side(difference.rerun))
    table = _side_by_side(rows, heads, room - len(_INDENT)) or _stacked(rows, heads, room - len(_INDENT))
    return [_difference_title(difference), *_indented(table)]


def _difference_title(difference: Difference) -> str:
    return f"{_output_name(difference.output)}: {_visible(difference.summary)}"


def _output_name(output: str) -> str:
    kind, _, name = output.partition(":")
    word = {"file": "", "xcom": "XCom ", "variable": "Variable "}.get(kind)
    return _visible(output if word is None else word + name)


def _side(content: str | None) -> list[str]:
    if content is None:
        return ["(not there)"]
    return [_visible(line) for line in content.split("\n")] if content else ["(empty)"]


def _rows(clean: Sequence[str], rerun: Sequence[str]) -> list[_Row]:
    """Pairs of lines; what both sides share shrinks to one pair of dots. Empty if they share all."""
    if clean == rerun:
        return []
    rows: list[_Row] = []
    for tag, start, end, other_start, other_end in SequenceMatcher(
        None, clean, rerun, autojunk=False
    ).get_opcodes():
        if tag == "equal":
            rows.append((_LEFT_OUT, _LEFT_OUT))
        else:
            rows += zip_longest(clean[start:end], rerun[other_start:other_end])
    return rows


def _side_by_side(rows: Sequence[_Row], heads: tuple[str, str], room: int) -> list[str]:
    """Two columns; empty if they don't fit."""
    shown = [(clean or "", rerun or "") for clean, rerun in rows[:_SHOWN_ROWS]]
    left = max(_cells(clean) for clean, _ in (heads, *shown))
    right = max(_cells(rerun) for _, rerun in (heads, *shown))
    if not rows or left + len(" | ") + right > room:
        return []
    lines = [f"{_padded(clean, left)} | {rerun}".rstrip() for clean, rerun in (heads, *shown)]
    return [lines[0], f"{'-' * left}-+-{'-' * right}", *lines[1:], *_rest_of_rows(len(rows))]


def _stacked(rows: Sequence[_Row], heads: tuple[str, str], room: int) -> list[str]:
    """One side above the other; empty if there is nothing to show."""
    if not rows:
        return []
    lines: list[str] = []
    for head, side in zip(heads, zip(*rows[:_SHOWN_ROWS], strict=True), strict=True):
        parts = [part for line in side if line is not None for part in _folded(line, room - len(_INDENT))]
        lines += [f"{head}:", *_indented(parts)]
    return [*lines, *_rest_of_rows(len(rows))]


def _folded(line: str, room: int) -> list[str]:
    """A line of an output in pieces that fit, the later ones set in."""
    pieces = [""]
    for char in line:
        if _cells(pieces[-1]) + _cells(char) > room:
            pieces.append(_INDENT)
        pieces[-1] += char
    return pieces


def _rest_of_rows(count: int) -> list[str]:
    left = count - _SHOWN_ROWS
    return [f"{_LEFT_OUT} and {_count(left, 'more line')}"] if left > 0 else []


# --- checks -----------------------------------------------------------------------------------

_BY_FINDINGS = (Verdict.UNSAFE, Verdict.KNOWN)
"""The verdicts that follow from findings alone."""


def check_text(
    result: CheckResult,
    rule_texts: Mapping[Rule, RuleText],
    source_of: SourceOf,
    verbose: bool,
    width: int = 80,
) -> str:
    """All there is to say about a check; the first line is `check_headline`."""
    reason = _reason_block(result, width)
    findings = _finding_blocks(result, rule_texts, source_of, verbose, width)
    story = [*findings, *reason] if result.verdict is Verdict.UNSAFE else [*reason, *findings]
    return "\n".join([check_headline(result), *story, *(_notes(result, width) if verbose else ())])


def check_headline(result: CheckResult) -> str:
    """The verdict of a check and its cause in one line, as for pytest's short summary."""
    findings = _worst_first(result.findings)
    if findings and result.verdict in _BY_FINDINGS:
        more = len(findings) - 1
        return _headline(findings[0]) + (f" (+{_count(more, 'more finding')})" if more else "")
    words = _coverage_words(result.coverage) if result.verdict is Verdict.SAFE else _gist(result.reason or "")
    return f"{result.verdict}: {words}" if words else str(result.verdict)


def _worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The new ones first, else in the order of the check."""
    return sorted(findings, key=lambda finding: finding.known)


def _finding_blocks(
    result: CheckResult,
    rule_texts: Mapping[Rule, RuleText],
    source_of: SourceOf,
    verbose: bool,
    width: int,
) -> list[str]:
    """All findings; of those in the baseline, unless asked for, no more than the headline."""
    has_told_first = result.verdict in _BY_FINDINGS
    lines: list[str] = []
    for index, finding in enumerate(_worst_first(result.findings)):
        if index or not has_told_first:
            lines += ["", _headline(finding)]
        if verbose or not finding.known:
            source = source_of(finding.file, finding.line) if finding.line > 0 else None
            lines += _body(finding, rule_texts[finding.rule], source, width)
    return lines


def _reason_block(result: CheckResult, width: int) -> list[str]:
    """The reason, unless the headline has told all of it."""
    if not result.reason:
        return []
    if result.verdict is Verdict.UNSAFE:
        label = "Besides, not everything could be checked"
        return ["", *_indented(_labelled(label, result.reason, max(width, _NARROWEST) - len(_INDENT)))]
    lines = result.reason.strip("\n").splitlines()
    return ["", *_indented(map(_visible, lines))] if len(lines) > 1 else []


def _notes(result: CheckResult, width: int) -> list[str]:
    room = max(width, _NARROWEST) - len(_INDENT)
    tried = (
        [] if result.verdict is Verdict.SAFE else _labelled("Tried", _coverage_words(result.coverage), room)
    )
    notes = [line for note in result.notes for line in _labelled("Note", note, room)]
    shown = [*tried, *_map_lines("Crash map: ", result, room), *notes]
    return ["", *_indented(shown)] if shown else []


_LEGEND = {
    ".": ". ends well",
    "X": "X does not",
    "?": "? not known",
    "-": "- not tried",
}


def _map_lines(label: str, result: CheckResult, room: int) -> list[str]:
    """The crash map below a label, with what its signs mean; nothing if there is none."""
    if not result.crash_map:
        return []
    lines = _folded(label + result.crash_map, room)
    return [*lines, _legend(result.crash_map)]


def _legend(signs: str) -> str:
    return (
        f"{_INDENT}one sign per state: {', '.join(words for sign, words in _LEGEND.items() if sign in signs)}"
    )


def _coverage_words(coverage: Coverage) -> str:
    """What was tried, without what was not; empty if nothing was."""
    parts = (
        (coverage.crash_points, _count(coverage.crash_points, "crash point")),
        (coverage.distinct_states, f"{_states(coverage)} distinct state{_s(coverage.distinct_states)}"),
        (coverage.recoveries, _count(coverage.recoveries, "recovery", "recoveries")),
    )
    return ", ".join(words for number, words in parts if number)


def _states(coverage: Coverage) -> str:
    """`11`, or `11 of 240` if not all were tried: the reader must not take a part for the whole."""
    of = f"{coverage.explored:,} of " if coverage.explored < coverage.distinct_states else ""
    return f"{of}{coverage.distinct_states:,}"


def _gist(reason: str) -> str:
    """The one line of a reason that says most: of a traceback, its exception."""
    lines = [line for line in reason.splitlines() if line.strip()]
    traces = [index for index, line in enumerate(lines) if _is_trace(line)]
    if not traces:
        return _visible(lines[0].strip()) if lines else ""
    intro = "" if _is_trace(lines[0]) else f"{lines[0].strip().rstrip(':')}: "
    exception = next((line for line in lines[traces[-1] + 1 :] if not line[0].isspace()), lines[-1])
    return _visible(intro + exception.strip())


def _is_trace(line: str) -> bool:
    return line.startswith(("Traceback (most recent call last)", '  File "'))


# --- DAGs -------------------------------------------------------------------------------------


def group_by_dag(results: Iterable[CheckResult]) -> tuple[tuple[CheckResult, ...], ...]:
    """The checks of each DAG in the order given; DAGs by file, then by id."""
    groups: dict[tuple[str, str], list[CheckResult]] = {}
    for result in results:
        groups.setdefault((result.file, result.dag_id), []).append(result)
    return tuple(tuple(groups[key]) for key in sorted(groups))


def dag_verdict(results: Sequence[CheckResult]) -> tuple[Verdict, str | None]:
    """The worst verdict of a DAG's checks, and the reasons of those that have it, one below the other."""
    verdict = _worst(result.verdict for result in results)
    return verdict, "\n".join(_reasons(results, verdict)) or None


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    return min(verdicts, key=list(Verdict).index)


def _reasons(results: Iterable[CheckResult], verdict: Verdict) -> tuple[str, ...]:
    """Each once."""
    given = (result.reason for result in results if result.verdict is verdict)
    return tuple(dict.fromkeys(reason for reason in given if reason))


def dag_coverage(results: Iterable[CheckResult]) -> Coverage:
    """What all checks of a DAG tried together; exhaustive if each of them was."""
    coverages = [result.coverage for result in results]
    return Coverage(
        crash_points=sum(coverage.crash_points for coverage in coverages),
        distinct_states=sum(coverage.distinct_states for coverage in coverages),
        explored=sum(coverage.explored for coverage in coverages),
        recoveries=sum(coverage.recoveries for coverage in coverages),
        exhaustive=all(coverage.exhaustive for coverage in coverages),
    )


# --- the terminal summary ---------------------------------------------------------------------

_GAP = "  "
_SHOWN_REASONS = 3
_SHOWN_MASKED = 10
_EXPLAINED = (Verdict.ERROR, Verdict.UNVERIFIABLE, Verdict.SKIPPED)
_SHORTEST_NAME = 12


class SummaryLine(NamedTuple):
    """A line of the terminal summary and the name of its colour, if any."""

    text: str
    markup: str | None


def summary_lines(
    results: Sequence[CheckResult], width: int = 80, durations: bool = True, verbose: bool = False
) -> tuple[SummaryLine, ...]:
    """One line per DAG, below it what was masked and reasons, totals at the end; nothing if there are no results.

    If verbose, there is a crash map per task too.
    """
    if not results:
        return ()
    dags = group_by_dag(results)
    head, *rows = _table([_HEAD, *map(_figures, dags)], width, durations)
    lines = [SummaryLine(head, None)]
    for dag, row in zip(dags, rows, strict=True):
        lines.append(SummaryLine(row, _colour(dag_verdict(dag)[0])))
        lines += [SummaryLine(line, None) for line in _masked_lines(dag, width, verbose)]
        lines += [SummaryLine(line, None) for line in _map_rows(dag, width) if verbose]
        lines += [SummaryLine(line, None) for line in _reason_lines(dag, width)]
    if verbose and (signs := "".join(result.crash_map for result in results)):
        lines.append(SummaryLine(_legend(signs).strip(), None))
    colour = _colour(_worst(result.verdict for result in results))
    return (*lines, *(SummaryLine(line, colour) for line in _totals(dags, width, durations)))


_HEAD = ("DAG", "verdict", "crash points", "states", "recoveries", "time")


def _figures(dag: Sequence[CheckResult]) -> tuple[str, ...]:
    coverage = dag_coverage(dag)
    return (
        _visible(dag[0].dag_id or dag[0].file),
        str(dag_verdict(dag)[0]),
        f"{coverage.crash_points:,}" if coverage.crash_points else "-",
        _states(coverage) if coverage.distinct_states else "-",
        f"{coverage.recoveries:,}" if coverage.recoveries else "-",
        _seconds(sum(result.duration_s for result in dag)),
    )


def _table(rows: Sequence[tuple[str, ...]], width: int, durations: bool) -> list[str]:
    """Aligned rows: words to the left, figures to the right; the name gives way to the rest."""
    shown = [row if durations else row[:-1] for row in rows]
    widths = [max(map(_cells, column)) for column in zip(*shown, strict=True)]
    taken = sum(widths[1:]) + len(_GAP) * len(widths[1:])
    widths[0] = min(widths[0], max(width - taken, _SHORTEST_NAME))
    return [_table_row(row, widths) for row in shown]


def _table_row(row: tuple[str, ...], widths: Sequence[int]) -> str:
    name, verdict, *figures = row
    cells = [_padded(_shortened(name, widths[0]), widths[0]), _padded(verdict, widths[1])]
    cells += [figure.rjust(room) for figure, room in zip(figures, widths[2:], strict=True)]
    return _GAP.join(cells).rstrip()


def _shortened(text: str, room: int) -> str:
    """The beginning and the end of what is too long."""
    if _cells(text) <= room:
        return text
    keep = room - len(_LEFT_OUT)
    return text[: keep - keep // 2] + _LEFT_OUT + text[len(text) - keep // 2 :]


def _masked_lines(dag: Sequence[CheckResult], width: int, verbose: bool) -> list[str]:
    """A line for the first output with masked values, if verbose for some more, and the number of the others."""
    masked = [line for result in dag for line in result.masked]
    shown = masked[: _SHOWN_MASKED if verbose else 1]
    left = len(masked) - len(shown)
    lines = []
    for line in shown:
        end = f" (and {_count(left, 'more output')})" if left and line is shown[-1] else ""
        room = max(width, _NARROWEST) - len(2 * _INDENT) - len("masked: ") - len(end)
        lines.append(f"{2 * _INDENT}masked: {_shortened(_visible(line), room)}{end}")
    return lines


def _map_rows(dag: Sequence[CheckResult], width: int) -> list[str]:
    room = max(width, _NARROWEST) - 2 * len(_INDENT)
    maps = [result for result in dag if result.crash_map]
    names = [result.check.removeprefix("crash.") for result in maps]
    longest = min(max(map(_cells, names), default=0), room // 3)
    return [
        2 * _INDENT + line
        for name, result in zip(names, maps, strict=True)
        for line in _folded(f"{_padded(_shortened(name, longest), longest)}  {result.crash_map}", room)
    ]


def _reason_lines(dag: Sequence[CheckResult], width: int) -> list[str]:
    verdict = dag_verdict(dag)[0]
    if verdict not in _EXPLAINED:
        return []
    reasons = _reasons(dag, verdict)
    shown = [line for reason in reasons[:_SHOWN_REASONS] for line in _reason_paragraphs(reason)]
    left = len(reasons) - _SHOWN_REASONS
    shown += [f"and {_count(left, 'more reason')}"] if left > 0 else []
    room = max(width, _NARROWEST) - 2 * len(_INDENT)
    return [2 * _INDENT + line for paragraph in shown for line in _wrapped(paragraph, room)]


def _reason_paragraphs(reason: str) -> list[str]:
    """All lines of a reason, but of a traceback only the exception: the failure shows the rest."""
    lines = [line for line in reason.splitlines() if line.strip()]
    return [_gist(reason)] if any(map(_is_trace, lines)) else [_visible(line.strip()) for line in lines]


def _totals(dags: Sequence[Sequence[CheckResult]], width: int, durations: bool) -> list[str]:
    """One line, or one per sentence if it is too long."""
    found = [dag_verdict(dag)[0] for dag in dags]
    counts = ", ".join(f"{found.count(verdict):,} {verdict}" for verdict in Verdict if verdict in found)
    everything = [result for dag in dags for result in dag]
    tried = [_coverage_words(dag_coverage(everything))]
    tried += [_seconds(sum(result.duration_s for result in everything))] if durations else []
    sentences = [f"{_count(len(dags), 'DAG')}: {counts}.", ", ".join(filter(None, tried)) + "."]
    line = " ".join(sentences).removesuffix(" .")
    if len(line) <= width:
        return [line]
    return [part for sentence in sentences for part in _wrapped(sentence, max(width, _NARROWEST))]


def _colour(verdict: Verdict) -> str:
    match verdict:
        case Verdict.ERROR | Verdict.UNSAFE:
            return "red"
        case Verdict.KNOWN | Verdict.UNVERIFIABLE | Verdict.SKIPPED:
            return "yellow"
        case Verdict.SAFE:
            return "green"


def _seconds(duration: float) -> str:
    if duration < 9.995:
        return f"{duration:.2f}s"
    if duration < 59.95:
        return f"{duration:.1f}s"
    minutes, seconds = divmod(round(duration), 60)
    return f"{minutes:,}m {seconds:02}s"


# --- lines ------------------------------------------------------------------------------------


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _s(number: int) -> str:
    return "" if number == 1 else "s"


def _first_line(text: str) -> str:
    return _visible(text.strip().partition("\n")[0].rstrip())


def _indented(lines: Iterable[str]) -> list[str]:
    return [(_INDENT + line).rstrip() for line in lines]


def _labelled(label: str, text: str, room: int) -> list[str]:
    """`label: text`, wrapped; indented lines of the text stay as they are. Nothing if there is no text."""
    if not text.strip():
        return []
    first, *others = text.strip().splitlines()
    lines = _wrapped(f"{label}: {first}", room)
    for other in others:
        lines += [_visible(other)] if other[:1].isspace() else _wrapped(other, room)
    return lines


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most `room` characters; paths and commands stay whole."""
    return textwrap.wrap(
        _visible(text), room, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )


def _visible(text: str) -> str:
    """Text that can do no harm to a terminal and hides nothing: `\\t`, `\\x1b`, `\\xa0` are spelled out."""
    return "".join(char if char.isprintable() else _spelled(char) for char in text)


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _cells(text: str) -> int:
    """The columns that a text takes on a terminal."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _padded(text: str, room: int) -> str:
    return text + " " * (room - _cells(text))
