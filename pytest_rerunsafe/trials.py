"""What is tried for a check, and how it ended: trials as jobs, answers as outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from .clean import CleanRuns, obstacle_text
from .explore.jobs import Job, RecoverJob
from .explore.messages import Answer, Done, Failed, Lost
from .explore.scenarios import Trial, jobs_of, states_per_job
from .model import Coverage, DagInfo, Outcome, Recording

Ended = Outcome | Lost | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is tried for a check, and how much of what could be that is."""

    trials: tuple[Trial, ...]
    recording: Recording
    """What the trials start from, and are judged by."""
    coverage: Coverage = field(default_factory=Coverage)


class Trials:
    """Tries what can befall one DAG."""

    def __init__(
        self,
        *,
        dag: DagInfo,
        folder: str,
        local: Sequence[str],
        clean: CleanRuns,
        run: Callable[[Sequence[Job]], list[Answer]],
    ) -> None:
        self._dag = dag
        self._folder = folder
        self._local = local
        """Paths that another worker does not have."""
        self._clean = clean
        self._run = run

    def ended(
        self, plans: Sequence[Plan], *, keeps_log: bool = False, same_worker: bool = False
    ) -> list[list[Ended]]:
        """How the trials of each plan ended, on another worker unless on the same one."""
        size = states_per_job([plan.trials for plan in plans])
        local = () if same_worker else self._local
        jobs = [self._jobs_of(plan, size, keeps_log, local) for plan in plans]
        answers = iter(self._run([job for batch in jobs for job in batch]))
        return [[ended for job in batch for ended in self._of_job(job, next(answers))] for batch in jobs]

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

    def _of_job(self, job: RecoverJob, answer: Answer) -> Iterable[Ended]:
        """How each trial of a job ended. Those that took a worker down with others in it are tried alone."""
        if isinstance(answer, Done):
            return map(self._completed, answer.result)
        return [answer] if len(job.starts) == 1 else self._try_alone(job)

    def _try_alone(self, job: RecoverJob) -> Iterator[Ended]:
        for answer in self._run([replace(job, starts=(start,)) for start in job.starts]):
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


def reason_of(answer: Answer | Ended) -> str:
    """Why there is no result."""
    match answer:
        case Failed(reason):
            return reason
        case Lost(obstacle):
            return obstacle_text(obstacle)
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
