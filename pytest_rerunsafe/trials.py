"""What is tried for a check, and how it ended: trials as jobs, answers as outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Protocol

from .budget import Left
from .clean import CleanRuns, obstacle_text
from .explore.jobs import Job, RecoverJob
from .explore.messages import Answer, Cut, Done, Failed, Lost
from .explore.scenarios import Trial, best_first, jobs_of, states_per_job
from .model import Coverage, DagInfo, Outcome, Recording, Scenario

Ended = Outcome | Lost | Failed | Cut


class Run(Protocol):
    """Has jobs done."""

    def __call__(self, jobs: Sequence[Job], left: Left | None = None) -> list[Answer]:
        """The answers, in the order of the jobs; those that have no time left are cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tried for a check, and how much of what could be that is."""

    trials: tuple[Trial, ...]
    recording: Recording
    """What the trials start from, and are judged by."""
    coverage: Coverage = field(default_factory=Coverage)
    stand_ins: tuple[str, ...] = ()
    """The tasks whose trials are for this one too, which then has none."""


class Trials:
    """Tries what can befall one DAG."""

    def __init__(
        self,
        *,
        dag: DagInfo,
        folder: str,
        local: Sequence[str],
        clean: CleanRuns,
        run: Run,
    ) -> None:
        self._dag = dag
        self._folder = folder
        self._local = local
        """Paths that another worker does not have."""
        self._clean = clean
        self._run = run

    def ended(
        self,
        plans: Sequence[Plan],
        *,
        keeps_log: bool = False,
        same_worker: bool = False,
        left: Left | None = None,
    ) -> list[list[Ended]]:
        """How the trials of each plan ended, on another worker unless on the same one.

        Where time is short, those that are most likely to find something come first, state by state.
        """
        size = states_per_job([plan.trials for plan in plans]) if left is None else 1
        local = () if same_worker else self._local
        jobs = [self._jobs_of(plan, size, keeps_log, local) for plan in plans]
        flat = [job for batch in jobs for job in batch]
        order = range(len(flat)) if left is None else best_first([(p.recording, p.trials) for p in plans])
        done = dict(zip(order, self._run([flat[index] for index in order], left), strict=True))
        answers = iter([done[index] for index in range(len(flat))])
        return [
            [ended for job in batch for ended in self._of_job(job, next(answers), left)] for batch in jobs
        ]

    def _jobs_of(self, plan: Plan, size: int, keeps_log: bool, local: Sequence[str]) -> list[RecoverJob]:
        return jobs_of(
            plan.trials,
            size,
            self._dag,
            plan.recording,
            self._folder,
            self._clean.situations,
            keeps_log=keeps_log,
            # Several intervals have run on whatever workers there are.
            local=() if plan.recording.intervals else local,
        )

    def _of_job(self, job: RecoverJob, answer: Answer, left: Left | None) -> Iterable[Ended]:
        """How each trial of a job ended. Those that took a worker down with others in it are tried alone."""
        match answer:
            case Done():
                return map(self._completed, answer.result)
            case Cut():
                return [answer] * len(job.starts)
            case _:
                return [answer] if len(job.starts) == 1 else self._try_alone(job, left)

    def _try_alone(self, job: RecoverJob, left: Left | None) -> Iterator[Ended]:
        for answer in self._run([replace(job, starts=(start,)) for start in job.starts], left):
            yield self._completed(answer.result[0]) if isinstance(answer, Done) else answer

    def _completed(self, outcome: Outcome) -> Outcome:
        """The outcome with what was not run, because it would have gone as in the clean run."""
        if outcome.as_clean_from is None:
            return outcome
        number, attempts = outcome.as_clean_from
        clean = self._clean.outcomes[number]
        return replace(
            outcome,
            task_states=clean.task_states,
            outputs=clean.outputs,
            attempts=(*outcome.attempts, *clean.attempts[attempts:]),
        )


_LONGEST_GAP = 20
"""States in a row that were not tried, in a crash map; of more only both ends show."""


def crash_map(trials: Sequence[Trial], bad: Container[Scenario], fine: Container[Scenario]) -> str:
    """A sign per distinct state; what is neither bad nor fine is not known."""
    maps: list[str] = []
    of_crashes = [(trial.state, trial.scenario) for trial in trials if trial.state is not None]
    for _, of_attempt in groupby(of_crashes, key=lambda pair: pair[0].point.attempt):
        signs = ""
        reached = 0
        for _, pairs in groupby(of_attempt, key=lambda pair: pair[0].point):
            (state, *_), scenarios = zip(*pairs, strict=True)
            signs += untried(state.number - reached)
            reached = state.number + 1
            is_fine = all(scenario in fine for scenario in scenarios)
            signs += "X" if any(scenario in bad for scenario in scenarios) else "." if is_fine else "?"
        maps.append(signs)
    return " ".join(filter(None, maps))


def untried(states: int) -> str:
    """The crash map of states in a row that were not tried."""
    return "-" * states if states <= _LONGEST_GAP else "-...-"


def reason_of(answer: Answer | Ended) -> str:
    """Why there is no result."""
    match answer:
        case Failed(reason):
            return reason
        case Lost(obstacle):
            return obstacle_text(obstacle)
        case Cut():
            return "there was no time left for it"
        case other:
            return f"unexpected result {other!r}"


def is_blurred(recording: Recording, trial: Trial, outcome: Outcome) -> bool:
    """Whether what is not seen here may have changed what the recovery met.

    So it is if it was done between the first run of what was run again and the crash or clear.
    """
    attempts = recording.outcome.attempts
    again = {(attempt.run, attempt.task_id, attempt.map_index) for attempt in outcome.attempts}
    places = [i for i, a in enumerate(attempts) if (a.run, a.task_id, a.map_index) in again]
    end = len(attempts) if trial.state is None else trial.state.point.attempt
    return any(attempt.is_opaque for attempt in attempts[min(places, default=end) : end])


# --- what there was no time for ---------------------------------------------------------------

_NAMED = 5


def less(coverage: Coverage, cut: Sequence[Trial], *, recoveries: int) -> Coverage:
    """How much was tried of so many recoveries, without those that were cut off."""
    # Faults strike at states that a kill leaves too.
    states = {trial.state.point for trial in cut if trial.state is not None and trial.fault is None}
    return replace(
        coverage,
        explored=coverage.explored - len(states),
        recoveries=recoveries - len(cut),
        exhaustive=coverage.exhaustive and not cut,
    )


def not_tried(cut: Sequence[Trial], planned: int, seconds: float) -> str:
    """What was cut off, counted and named, and what to do about it."""
    places = Counter(map(_place, cut))
    named = [f"{place} ({count})" for place, count in places.most_common(_NAMED)]
    more = f" and {sum(places.values()) - sum(n for _, n in places.most_common(_NAMED))} more"
    names = ", ".join(named) + (more if len(places) > _NAMED else "")
    return f"{len(cut):,} of {planned:,} scenarios were not tried in the budget of {seconds:g} s: {names}. {_RAISE_IT}"


def none_tried(seconds: float) -> str:
    """The same where it was not even found out what there is to try."""
    return f"nothing of it was tried in the budget of {seconds:g} s. {_RAISE_IT}"


_RAISE_IT = "Raise the budget (--rerun-safety-budget), or choose a profile that explores less."


def _place(trial: Trial) -> str:
    """What scenarios are counted together by: the crash point without its number, else the recovery."""
    scenario = trial.scenario
    if scenario.crash_point is not None:
        return scenario.crash_point.rpartition("#")[0]
    return f"{scenario.recovery} of {scenario.task_id}" if scenario.task_id else str(scenario.recovery)
