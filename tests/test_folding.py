"""One finding per cause: which findings are told as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pytest_rerunsafe.compare.folding import fold
from pytest_rerunsafe.model import CrashKind, Difference, Finding, RecoveryKind, Rule

OUT = Difference(output="file:/data/out", clean="1", rerun="2", summary="line 1 differs")
OTHER = Difference(output="file:/data/other", clean="1", rerun=None, summary="file is missing")
KILL = Finding(
    rule=Rule.DUPLICATE_OUTPUT,
    dag_id="d",
    task_id="load",
    map_index=-1,
    crash_point="load@write:/data/out#1",
    crash_kind=CrashKind.KILL,
    recovery=RecoveryKind.RETRY,
    file="dags/d.py",
    line=7,
    summary="line 1 differs",
    differences=(OUT,),
    replay="pytest",
)
ERROR = replace(KILL, crash_kind=CrashKind.ERROR, crash_point="load@write:/data/out#2")
CLEAR = replace(KILL, crash_point=None, crash_kind=None, recovery=RecoveryKind.CLEAR_RUN)


def told(*findings: Finding) -> Sequence[tuple[Finding, int]]:
    """What is left of findings, each with the number of those that were folded into it."""
    return [(replace(finding, others=0), finding.others) for finding in fold(findings)]


def test_the_same_rule_at_the_same_line_or_output_is_one_cause() -> None:
    same_line = replace(KILL, differences=(OUT, OTHER))
    same_output = replace(KILL, line=9)
    assert told(same_line, KILL, same_output) == [(KILL, 2)]


def test_another_task_line_and_output_is_another_cause() -> None:
    elsewhere = replace(KILL, line=9, differences=(OTHER,))
    other_task = replace(KILL, task_id="extract")
    assert told(KILL, elsewhere, other_task) == [(KILL, 0), (elsewhere, 0), (other_task, 0)]


def test_an_error_that_breaks_another_rule_is_not_hidden_by_the_kill_at_its_place() -> None:
    lost = replace(ERROR, rule=Rule.LOST_OUTPUT, differences=(OTHER,))
    assert told(KILL, lost) == [(KILL, 0), (lost, 0)]


def test_an_error_that_ends_just_as_the_kill_at_its_place_is_no_other_cause() -> None:
    lost = replace(ERROR, rule=Rule.LOST_OUTPUT)
    assert told(lost, KILL) == [(KILL, 1)]
    other_kill = replace(KILL, rule=Rule.LOST_OUTPUT)
    assert told(KILL, other_kill) == [(KILL, 0), (other_kill, 0)]


def test_a_power_loss_tells_nothing_new_where_a_kill_does_harm() -> None:
    power = replace(KILL, rule=Rule.DURABILITY, crash_kind=CrashKind.POWER, differences=(OTHER,))
    assert told(power, KILL) == [(KILL, 1)]


def test_without_a_crash_the_same_ends_have_one_cause_whatever_was_cleared() -> None:
    of_run = replace(CLEAR, task_id="")
    assert told(CLEAR, of_run) == [(CLEAR, 1)]
    other = replace(of_run, differences=(OUT, OTHER))
    assert told(CLEAR, other) == [(CLEAR, 0), (other, 0)]
