"""One finding per cause: findings that are alike are folded into the simplest of them. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..model import CrashKind, Finding


def fold(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding per cause, the simplest: of those of a task that share a line or an output, and break the same rule.

    What a power loss does where a kill does harm, or another kind of crash that ends just as a kill, has the same cause,
    whatever rule it breaks.
    """
    weight = _weight(findings)
    folded = [replace(min(group, key=weight), others=len(group) - 1) for group in _groups(findings)]
    return tuple(sorted(folded, key=lambda finding: findings.index(replace(finding, others=0))))


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    groups: list[list[Finding]] = []
    for finding in findings:
        alike = [group for group in groups if any(_is_alike(finding, other) for other in group)]
        merged = [finding, *(other for group in alike for other in group)]
        groups = [group for group in groups if group not in alike] + [merged]
    return groups


_SIMPLE = (None, CrashKind.KILL, CrashKind.OOM)
"""No crash, or one that the task's own code cannot notice."""


def _is_alike(one: Finding, other: Finding) -> bool:
    if not _is_at_one_place(one, other):
        return False
    if one.rule is other.rule:
        return True
    is_with_kill = (one.crash_kind in _SIMPLE) is not (other.crash_kind in _SIMPLE)
    is_of_power = CrashKind.POWER in (one.crash_kind, other.crash_kind)
    return is_with_kill and (is_of_power or one.differences == other.differences)


def _is_at_one_place(one: Finding, other: Finding) -> bool:
    """Whether both share a task, and in it a line or an output; or, if only tasks were cleared, all that differs."""
    if one.task_id != other.task_id:
        is_without_crash = one.crash_kind is None and other.crash_kind is None
        return is_without_crash and bool(one.differences) and one.differences == other.differences
    shares_output = {d.output for d in one.differences} & {d.output for d in other.differences}
    return (one.file, one.line) == (other.file, other.line) or bool(shares_output)


def _weight(findings: Sequence[Finding]) -> Callable[[Finding], tuple[int, ...]]:
    """The simplest kind of crash, fewest differences, then the smallest, then the first that was tried."""
    kinds = [None, *CrashKind]

    def weight(finding: Finding) -> tuple[int, ...]:
        size = sum(len(d.clean or "") + len(d.rerun or "") for d in finding.differences)
        return (
            kinds.index(finding.crash_kind),
            len(finding.differences),
            size,
            findings.index(finding),
        )

    return weight
