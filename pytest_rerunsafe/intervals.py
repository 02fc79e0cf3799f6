"""What several intervals of a DAG say that run once each, oldest first: the reference for every other order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .clean import failure, obstacle_text
from .compare.findings import Counting
from .compare.volatile import Volatility, find_volatile
from .explore.messages import Answer, Done, Failed, Lost
from .model import Output, Recording, Verdict

COUNT = 3
"""The least that has an interval with neighbours on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InOrder:
    """Intervals that ran in order, judged."""

    reference: Recording | None = None
    volatility: Volatility = field(default_factory=Volatility.none)
    stops: tuple[Verdict, str] | None = None
    """Why no other order makes sense; None if they do."""


def judge_in_order(answers: Sequence[Answer], counting: Counting) -> InOrder:
    """What the runs of some intervals say: reference, other clock, other entropy."""
    recordings: list[Recording] = []
    for answer in answers:
        match answer:
            case Done(Recording() as recording):
                recordings.append(recording)
            case Failed(reason):
                return InOrder(stops=(Verdict.ERROR, reason))
            case Lost(obstacle):
                return InOrder(stops=(Verdict.UNVERIFIABLE, obstacle_text(obstacle)))
            case other:
                raise AssertionError(other)
    reference = recordings[0]
    assert reference.intervals is not None, "several were asked for"
    if len(reference.intervals.logical_dates) < 2:
        return InOrder(stops=(Verdict.SKIPPED, "the DAG has one interval only"))
    failed = next((recording for recording in recordings if recording.outcome.run_state != "success"), None)
    if failed is not None:
        return InOrder(stops=(Verdict.UNVERIFIABLE, _why(failed, reference)))
    volatility = find_volatile(*(_outputs(recording, counting) for recording in recordings))
    if volatility.problems:
        names = ", ".join(dict.fromkeys(difference.output for _, difference in volatility.problems))
        reason = f"intervals that run in order disagree with themselves at another time or by chance: {names}"
        return InOrder(stops=(Verdict.UNVERIFIABLE, reason))
    return InOrder(reference=reference, volatility=volatility)


def _outputs(recording: Recording, counting: Counting) -> dict[str, Output]:
    return counting.select(recording.outcome.outputs)


def _why(failed: Recording, reference: Recording) -> str:
    """Which of the intervals does not end well, and why: often its inputs are not there."""
    assert reference.intervals is not None, "several were asked for"
    begun = len(dict.fromkeys(attempt.run for attempt in failed.outcome.attempts))
    date = reference.intervals.logical_dates[max(begun, 1) - 1]
    return f"the interval of {date:%Y-%m-%d %H:%M} does not succeed: {failure(failed)}"
