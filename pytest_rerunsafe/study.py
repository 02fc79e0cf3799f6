"""The main path, for one DAG: clean runs, recording, crash states, recoveries, differences, findings, verdict."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from .again import Again, as_clean
from .budget import Budget
from .causes import Causes
from .clean import CleanRuns, judge_clean_runs, obstacle_text
from .compare.counting import Counting
from .compare.findings import Case, Judge
from .compare.folding import fold
from .compare.volatile import Volatility
from .explore.jobs import RECOVERY, REFERENCE, Job, RecordJob
from .explore.messages import Answer, Cut, Done, Failed, Lost
from .explore.outputs import file_outputs
from .explore.scenarios import (
    Trial,
    crash_trials,
    interval_trials,
    rerun_trials,
    scenario_id,
)
from .intervals import COUNT, InOrder, Stop
from .model import (
    CheckResult,
    Coverage,
    CrashKind,
    DagInfo,
    Finding,
    Obstacle,
    Outcome,
    Profile,
    Recording,
    RecoveryKind,
    Scenario,
    Verdict,
)
from .report.replay import replay_text
from .settings import Settings
from .trials import (
    Ended,
    Plan,
    Run,
    Trials,
    crash_map,
    is_blurred,
    less,
    none_tried,
    not_tried,
    reason_of,
    untried,
)

START_S = 433.0
"""From the end of the data interval to the start of the clean run. No round number: nothing coincides by chance."""
OTHER_CLOCK_S = START_S + 86_400 + 3_600 + 2_472
"""The same for the run by another clock: another hour, minute and second, on the day of a rerun the day after."""
HASH_SEEDS = (1, 2)
"""Of the interpreters whose runs are compared with each other: that of pytest itself is another one in each session, and
what is found must not depend on it."""
RERUN = "rerun"
BACKFILL = "backfill"
AHEAD = 8
"""Checks that are tried together, if they are all asked for and there is no budget."""


class Study:
    """All that is known of one DAG; each part is found out when it is first asked for."""

    def __init__(
        self,
        *,
        dag: DagInfo,
        settings: Settings,
        rootdir: Path,
        folder: str,
        related: Mapping[str, str],
        run: Run,
        budget: Budget,
    ) -> None:
        self._dag = dag
        self._settings = settings
        self._file = os.path.relpath(dag.file, rootdir).replace(os.sep, "/")
        self._folder = folder
        self._related = related
        self._run = run
        self._budget = budget
        self._ended: dict[str, list[Ended]] = {}
        """How the trials of a check ended."""

    def result(self, check: str, expected: Sequence[str]) -> CheckResult:
        """The outcome of a check; those expected besides may be tried along with it."""
        with self._budget.spending():
            return self._found(check, expected)

    def _found(self, check: str, expected: Sequence[str]) -> CheckResult:
        skip = self._settings.for_dag(self._dag.dag_id).skip
        if skip:
            return self._result(check, Verdict.SKIPPED, reason=skip)
        if check == "clean":
            return self._of_clean_runs(check)
        if self._clean.stops:
            return self._result(check, Verdict.SKIPPED, reason=self._clean.stops)
        if check == BACKFILL and "_in_order" not in vars(self) and self._budget.left() <= 0:
            return self._result(check, Verdict.UNVERIFIABLE, reason=none_tried(self._budget.seconds))
        if check == BACKFILL and not isinstance(self._in_order.recording, Recording):
            return self._stopped(check, self._in_order.recording)
        plan = self._plan(check)
        if plan.stand_ins:
            note = f"{_task_of(check)} is not crashed itself: it did what {', '.join(plan.stand_ins)} did, which are."
            map_of_none = untried(plan.coverage.distinct_states)
            return self._result(
                check, Verdict.SAFE, coverage=plan.coverage, notes=(note,), crash_map=map_of_none
            )
        if not plan.trials and self._chosen and (plan.coverage.distinct_states or check in (RERUN, BACKFILL)):
            return self._result(
                check, Verdict.SKIPPED, reason="`recoveries` names none that this check tries"
            )
        if not plan.trials and self._reference.outcome.task_states.get(_task_of(check)) == "success":
            return self._result(check, Verdict.SAFE)  # Airflow gives no worker a task that does nothing
        if not plan.trials:
            return self._result(check, Verdict.SKIPPED, reason="the task did not run in the clean run")
        if check not in self._ended:
            self._try_ahead(check, expected)
        result = self._of_trials(check, plan, self._ended[check])
        is_told = any(finding.crash_kind is not CrashKind.POWER for finding in result.findings)
        is_over = result.verdict is Verdict.ERROR or is_told or check in (RERUN, BACKFILL)
        if is_over or self._settings.profile is not Profile.THOROUGH:
            return result  # who cannot bear one death need not be told of two
        return self._with_deaths_in_recoveries(result, plan)

    @cached_property
    def _again(self) -> Again:
        return Again(
            dag=self._dag,
            folder=self._folder,
            reference=self._reference,
            local=self._settings.for_dag(self._dag.dag_id).local,
            run=self._run,
        )

    def _with_deaths_in_recoveries(self, result: CheckResult, plan: Plan) -> CheckResult:
        """What a check says, and what comes of workers that die again."""
        if self._budget.left() <= 0:
            reason = result.reason or none_tried(self._budget.seconds)
            verdict = Verdict.UNVERIFIABLE if result.verdict is Verdict.SAFE else result.verdict
            coverage = replace(result.coverage, exhaustive=False)
            return replace(result, verdict=verdict, reason=reason, coverage=coverage)
        recovered = self._again.recovered(plan.trials)
        plans = [Plan(trials=each.trials, recording=each.recording) for each in recovered]
        findings: list[Finding] = []
        reasons = [result.reason] if result.reason else []
        for each, ended in zip(plans, self._trials.ended(plans, left=self._budget.share(1, 1)), strict=True):
            judge = self._judge_by(as_clean(each.recording, self._reference), self._clean.volatility)
            reasons += [reason_of(end) for end in ended if not isinstance(end, Outcome)]
            for trial, end in zip(each.trials, ended, strict=True):
                if isinstance(end, Outcome):
                    reasons += map(obstacle_text, end.obstacles)
                    case = self._causes.of_crash(judge.case(trial.scenario, trial.state, end))
                    if case.is_bad:
                        findings.append(judge.finding(case, None, by_chance=self._causes.by_chance(case)))
        found = (*result.findings, *fold(findings))
        tried = sum(len(each.trials) for each in plans)
        coverage = replace(
            result.coverage,
            distinct_states=result.coverage.distinct_states + tried,
            explored=result.coverage.explored + tried,
            recoveries=result.coverage.recoveries + tried,
        )
        bad = Verdict.UNSAFE if found else Verdict.UNVERIFIABLE
        return replace(
            result,
            verdict=bad if found or reasons else result.verdict,
            reason=reasons[0] if reasons else None,
            findings=found,
            coverage=coverage,
        )

    # --- clean runs ---------------------------------------------------------------------------

    @cached_property
    def _clean(self) -> CleanRuns:
        answers = self._run(self.clean_jobs())
        orders = self._run(self._order_jobs(answers)) if _depend_on_hashes(answers) else ()
        return judge_clean_runs(self._dag, self._file, answers, self._counting, orders)

    def _order_jobs(self, answers: Sequence[Answer]) -> list[Job]:
        """The same run in interpreters that have sets in other orders."""
        reference = answers[0].result if isinstance(answers[0], Done) else None
        if reference is None or reference.outcome.run_state != "success":
            return []
        return [
            self._record_job(keeps_effects=False, initial=reference.initial, hash_seed=seed)
            for seed in HASH_SEEDS
        ]

    def clean_jobs(self) -> list[Job]:
        """What is run first of the DAG; nothing if it is to be skipped."""
        if self._settings.for_dag(self._dag.dag_id).skip:
            return []
        jobs: list[Job] = [
            self._record_job(),
            self._record_job(delay_s=OTHER_CLOCK_S, counts_lines=True, keeps_effects=False),
            self._record_job(seed="other entropy", keeps_effects=False),
        ]
        if len(self._dag.tasks) > 1:  # a task alone has nobody to share memory with
            jobs.append(self._record_job(shares_memory=True, keeps_effects=False))
        return jobs

    def _record_job(self, **options: Any) -> RecordJob:
        dag_settings = self._settings.for_dag(self._dag.dag_id)
        chosen = {"delay_s": START_S, "seed": REFERENCE, **options}
        return RecordJob(
            dag=self._dag,
            folder=self._folder,
            logical_date=dag_settings.logical_date or self._dag.logical_date,
            related=self._related,
            **chosen,
        )

    @cached_property
    def _counting(self) -> Counting:
        chosen = self._settings.for_dag(self._dag.dag_id)
        local = [glob for path in chosen.local for glob in (path, f"{path}/*")]
        return Counting(only=chosen.outputs, ignore=(*chosen.ignore, *local), unordered=chosen.unordered)

    @property
    def _reference(self) -> Recording:
        assert self._clean.reference is not None, "asked for only when nothing stops the other checks"
        return self._clean.reference

    def _of_clean_runs(self, check: str) -> CheckResult:
        clean = self._clean
        return self._result(
            check,
            clean.verdict,
            reason=clean.reason,
            findings=clean.findings,
            notes=clean.notes,
            masked=clean.volatility.places(),
        )

    @cached_property
    def _in_order(self) -> InOrder:
        jobs = [
            self._record_job(intervals=COUNT),
            self._record_job(intervals=COUNT, delay_s=OTHER_CLOCK_S, keeps_effects=False),
            self._record_job(intervals=COUNT, seed="other entropy", keeps_effects=False),
        ]
        return InOrder(jobs, self._clean.counting, self._run)

    # --- trials -------------------------------------------------------------------------------

    @cached_property
    def _trials(self) -> Trials:
        return Trials(
            dag=self._dag,
            folder=self._folder,
            local=self._settings.for_dag(self._dag.dag_id).local,
            clean=self._clean,
            run=self._run,
        )

    @cached_property
    def _judge(self) -> Judge:
        return self._judge_by(self._reference, self._clean.volatility)

    @cached_property
    def _causes(self) -> Causes:
        return Causes(
            judge=self._judge,
            reference=self._reference,
            trials=self._trials,
            has_local=bool(self._settings.for_dag(self._dag.dag_id).local),
            without_crash=lambda: self._cases_without_crash,
            draw=lambda: self._drawn,
        )

    @cached_property
    def _drawn(self) -> Outcome | None:
        """How a clean run ends that draws what reruns draw; None if it cannot be told."""
        (answer,) = self._run([self._record_job(seed=RECOVERY, keeps_effects=False)])
        return answer.result.outcome if isinstance(answer, Done) else None

    def _judge_by(self, recording: Recording, volatility: Volatility) -> Judge:
        return Judge(
            recording=recording,
            volatility=volatility,
            is_of_intervals=recording.intervals is not None,
            counting=self._clean.counting,
            dag_file=self._file,
            dag_line=self._dag.line,
            outputs_of=lambda state: file_outputs(state.world.files),
            replay_of=self._replay_command,
        )

    def _replay_command(self, scenario: Scenario) -> str:
        return f"pytest --rerun-safety-replay={shlex.quote(scenario_id(scenario))} {shlex.quote(self._file)}"

    @property
    def _chosen(self) -> tuple[RecoveryKind, ...]:
        """The recoveries that the configuration asks for; empty: those of the profile."""
        return self._settings.for_dag(self._dag.dag_id).recoveries

    def _plan(self, check: str) -> Plan:
        """What is tried for a check."""
        if check == RERUN:
            return Plan(
                trials=rerun_trials(self._dag, self._reference, self._settings.profile, self._chosen),
                recording=self._reference,
            )
        if check == BACKFILL:
            return self._plan_of_intervals()
        task_id = _task_of(check)
        found = crash_trials(self._dag, self._reference, task_id, self._settings.profile, self._chosen)
        coverage = Coverage(
            crash_points=self._clean.executed_lines.get(task_id, 0),
            distinct_states=found.distinct,
            explored=found.explored,
            exhaustive=found.explored == found.distinct,
        )
        return Plan(
            trials=found.trials, recording=self._reference, coverage=coverage, stand_ins=found.stand_ins
        )

    def _plan_of_intervals(self) -> Plan:
        recording = self._in_order.recording
        if not isinstance(recording, Recording):
            return Plan(trials=(), recording=self._reference)
        trials = interval_trials(self._dag, recording, self._settings.profile, self._chosen)
        return Plan(trials=trials, recording=recording)

    def _try_ahead(self, check: str, expected: Sequence[str]) -> None:
        """Try a check along with some that are expected, so that no core has to wait for the last trial of each.

        Where time is short, along with all of them: what is most likely to find something then comes first.
        """
        later = [other for other in expected if other not in (check, "clean") and other not in self._ended]
        if self._budget.is_bounded:
            # To find out what to try of several intervals costs time itself.
            together = [check, *(other for other in later if other != BACKFILL)]
        else:
            together = [check, *later[: AHEAD - 1]]
        asked = {check, *expected} if expected else {*checks_of(self._dag)}
        to_come = [other for other in asked if other != "clean" and other not in self._ended]
        left = self._budget.share(len(together), len(to_come))
        ended = self._trials.ended([self._plan(each) for each in together], left=left)
        self._ended.update(zip(together, ended, strict=True))

    def _of_trials(self, check: str, plan: Plan, ended: Sequence[Ended]) -> CheckResult:
        cases: list[Case] = []
        obstacles: list[Obstacle] = list(plan.recording.outcome.obstacles)
        judge = self._judge_of(plan, ended)
        if not isinstance(judge, Judge):
            return self._stopped(check, judge)
        impossible: list[Scenario] = []
        notes: list[str] = []
        cut: list[Trial] = []
        for trial, answer in zip(plan.trials, ended, strict=True):
            match answer:
                case Outcome(run_state="refused" | "missed"):
                    impossible.append(trial.scenario)
                case Outcome():
                    obstacles += answer.obstacles
                    notes += map(obstacle_text, answer.notes)
                    if not is_blurred(plan.recording, trial, answer):
                        cases.append(judge.case(trial.scenario, trial.state, answer))
                case Lost(obstacle):
                    obstacles.append(obstacle)
                case Failed(reason):
                    return self._result(check, Verdict.ERROR, reason=reason)
                case Cut():
                    cut.append(trial)
        of_intervals = check == BACKFILL
        findings = (
            self._causes.findings_of_intervals(judge, cases, plan.trials)
            if of_intervals
            else self._causes.findings(cases, plan.trials)
        )
        found: dict[str, Any] = {
            "coverage": less(plan.coverage, cut, recoveries=len(plan.trials) - len(impossible)),
            "crash_map": crash_map(
                plan.trials,
                bad={case.scenario for case in cases if case.is_bad},
                fine={*(case.scenario for case in cases), *impossible},
            ),
            "notes": tuple(dict.fromkeys(f"A callback did what is not seen here: {note}" for note in notes)),
        }
        short = not_tried(cut, len(plan.trials), self._budget.seconds) if cut else None
        if findings:
            return self._result(check, Verdict.UNSAFE, reason=short, findings=findings, **found)
        reasons = [*map(obstacle_text, obstacles[:1]), *([short] if short else ())]
        if reasons:
            return self._result(check, Verdict.UNVERIFIABLE, reason="\n".join(reasons), **found)
        return self._result(check, Verdict.SAFE, **found)

    def _judge_of(self, plan: Plan, ended: Sequence[Ended]) -> Judge | Stop:
        """Who judges these trials; what is volatile in several intervals is found out only if anything differs."""
        if plan.recording is self._reference:
            return self._judge
        if plan.recording.intervals is None:
            return self._judge_by(plan.recording, self._clean.volatility)
        judge = self._judge_by(plan.recording, Volatility.none())
        pairs = zip(plan.trials, ended, strict=True)
        cases = [judge.case(trial.scenario, None, end) for trial, end in pairs if isinstance(end, Outcome)]
        if not any(case.differences for case in cases):
            return judge
        volatility = self._in_order.volatility
        return (
            self._judge_by(plan.recording, volatility) if isinstance(volatility, Volatility) else volatility
        )

    @cached_property
    def _cases_without_crash(self) -> tuple[Case, ...]:
        plan = self._plan(RERUN)
        ended = self._ended.get(RERUN, [Cut()])
        if any(
            isinstance(end, Cut) for end in ended
        ):  # what is found is judged in full, however long that takes
            (ended,) = self._trials.ended([plan])
        if not self._budget.is_bounded:
            self._ended[RERUN] = ended
        return tuple(
            self._judge.case(trial.scenario, None, outcome)
            for trial, outcome in zip(plan.trials, ended, strict=True)
            if isinstance(outcome, Outcome)
        )

    def _stopped(self, check: str, stop: Stop) -> CheckResult:
        verdict, reason = stop
        return self._result(check, verdict, reason=reason)

    def _result(self, check: str, verdict: Verdict, **details: Any) -> CheckResult:
        return CheckResult(dag_id=self._dag.dag_id, file=self._file, check=check, verdict=verdict, **details)

    # --- replay -------------------------------------------------------------------------------

    def replay(self, wanted: str) -> str:
        """One scenario run again, told in full. Raises LookupError if there is none of that id."""
        plan = self._plan_of(wanted)
        (trial,) = plan.trials
        ((outcome,),) = self._trials.ended([plan], keeps_log=True)
        if not isinstance(outcome, Outcome):
            return reason_of(outcome)
        judge = self._judge_of(plan, [outcome])
        if not isinstance(judge, Judge):
            raise LookupError(judge[1])
        return self._told(judge, trial, judge.case(trial.scenario, trial.state, outcome))

    def outcome(self, wanted: str) -> Ended:
        """How one scenario ends. Raises LookupError if there is none of that id."""
        ((outcome,),) = self._trials.ended([self._plan_of(wanted)])
        return outcome

    def _plan_of(self, wanted: str) -> Plan:
        """One trial, by its scenario's id. Raises LookupError."""
        if self._clean.stops:
            raise LookupError(self._clean.stops)
        known = {scenario_id(plan.trials[0].scenario): plan for plan in self._all_trials()}
        if wanted not in known and (first := next((i for i in known if wanted.startswith(f"{i}:")), None)):
            known |= self._plans_after(known[first].trials[0].scenario.task_id)
        if wanted not in known:
            raise LookupError(f"no scenario {wanted!r}{near(wanted, known)}")
        return known[wanted]

    def _plans_after(self, task_id: str) -> dict[str, Plan]:
        """One trial each of deaths in recoveries from deaths of a task, by the scenario's id."""
        trials = crash_trials(self._dag, self._reference, task_id, Profile.THOROUGH, self._chosen).trials
        return {
            scenario_id(trial.scenario): Plan(
                trials=(trial,), recording=as_clean(each.recording, self._reference)
            )
            for each in self._again.recovered(trials)
            for trial in each.trials
        }

    def _all_trials(self) -> Iterator[Plan]:
        """The trials of the most thorough profile, one by one: whatever profile an id comes from, it is among them."""
        every = tuple(RecoveryKind)
        trials = list(rerun_trials(self._dag, self._reference, Profile.THOROUGH, every))
        for task in self._dag.tasks:
            trials += crash_trials(self._dag, self._reference, task.task_id, Profile.THOROUGH, every).trials
        yield from (Plan(trials=(trial,), recording=self._reference) for trial in trials)
        if self._dag.is_scheduled and isinstance(recording := self._in_order.recording, Recording):
            for trial in interval_trials(self._dag, recording, Profile.THOROUGH, every):
                yield Plan(trials=(trial,), recording=recording)

    def _told(self, judge: Judge, trial: Trial, case: Case) -> str:
        finding = self._causes.finding(judge, trial, case) if case.is_bad else None
        last, following = judge.effects_around(case)
        return replay_text(
            case.scenario,
            last_effect=last,
            next_effect=following,
            outcome=case.outcome,
            differences=case.differences,
            rule=finding.rule if finding else None,
        )


def checks_of(dag: DagInfo) -> tuple[str, ...]:
    """The names of a DAG's checks."""
    crashes = (f"crash.{task.task_id}" for task in dag.tasks)
    return ("clean", RERUN, *crashes, *((BACKFILL,) if dag.is_scheduled else ()))


def _depend_on_hashes(answers: Sequence[Answer]) -> bool:
    """Whether code that ran in one of these runs makes sets or asks for hashes, as far as anybody has looked."""
    recordings = [answer.result for answer in answers if isinstance(answer, Done)]
    return any(attempt.depends_on_hashes for each in recordings for attempt in each.outcome.attempts)


def _task_of(check: str) -> str:
    return check.removeprefix("crash.")


def near(wanted: str, known: Iterable[str]) -> str:
    """A question after the known words that are like it; empty if none is."""
    found = get_close_matches(wanted, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""
