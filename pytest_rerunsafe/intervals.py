"""What several intervals of a DAG say that run once each, oldest first: the reference for every other order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from .clean import failure, obstacle_text
from .compare.counting import Counting
from .compare.volatile import Volatility, find_volatile
from .explore.jobs import Job, RecordJob
from .explore.messages import Answer, Done, Failed, Lost
from .model import Output, Recording, Verdict

COUNT = 3
"""The least that has an interval with neighbours on both sides."""

Stop = tuple[Verdict, str]
"""Why nothing can be said of other orders."""


class InOrder:
    """Several intervals of a DAG, once each; run when first asked for."""

    def __init__(
        self, jobs: Sequence[RecordJob], counting: Counting, run: Callable[[Sequence[Job]], list[Answer]]
    ) -> None:
        self._job, *self._others = jobs
        """The reference, and the same at another time and with other chance."""
        self._counting = counting
        self._run = run

    @cached_property
    def recording(self) -> Recording | Stop:
        """The reference, if its intervals all ended well."""
        (answer,) = self._run([self._job])
        return _judge(answer)

    @cached_property
    def volatility(self) -> Volatility | Stop:
        """What is volatile in the outputs of all intervals."""
        assert isinstance(self.recording, Recording), "asked for only when nothing stops the check"
        return _volatility(self.recording, self._run(self._others), self._counting)


def _judge(answer: Answer) -> Recording | Stop:
    match answer:
        case Done(Recording() as recording):
            return _stop(recording) or recording
        case Failed(reason):
            return Verdict.ERROR, reason
        case Lost(obstacle):
            return Verdict.UNVERIFIABLE, obstacle_text(obstacle)
        case other:
            raise AssertionError(other)


def _stop(recording: Recording) -> Stop | None:
    assert recording.intervals is not None, "several were asked for"
    dates = recording.intervals.logical_dates
    if len(dates) < 2:
        return Verdict.SKIPPED, "the DAG has one interval only"
    if recording.outcome.run_state == "success":
        return None
    begun = len({attempt.run for attempt in recording.outcome.attempts if attempt.run[0] == recording.run[0]})
    date = f"{dates[max(begun, 1) - 1]:%Y-%m-%d %H:%M}"
    return Verdict.UNVERIFIABLE, f"the interval of {date} does not succeed: {failure(recording)}"


def _volatility(reference: Recording, answers: Sequence[Answer], counting: Counting) -> Volatility | Stop:
    judged = [_judge(answer) for answer in answers]
    others = [recording for recording in judged if isinstance(recording, Recording)]
    if len(others) < len(judged):
        return next(stop for stop in judged if not isinstance(stop, Recording))
    outputs: list[dict[str, Output]] = [
        counting.select(recording.outcome.outputs) for recording in (reference, *others)
    ]
    reference_outputs, other_clock, other_entropy = outputs
    volatility = find_volatile(
        reference_outputs, other_clock, other_entropy, is_unordered=counting.is_unordered
    )
    if not volatility.problems:
        return volatility
    names = ", ".join(dict.fromkeys(difference.output for _, difference in volatility.problems))
    return (
        Verdict.UNVERIFIABLE,
        f"intervals in order do not agree with the same at another time or by other chance: {names}",
    )
