"""The main path: load, clean runs, recording, crash states, recoveries, differences, findings, verdict."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from .clean import CleanRuns, judge_clean_runs, load_error
from .compare.findings import Case, Counting, Judge, fold
from .explore.jobs import FindJob, Job, LoadJob, RecordJob, RecoverJob
from .explore.messages import Answer, Done, Failed, Lost
from .explore.outputs import file_outputs
from .explore.pool import Pool
from .explore.scenarios import Trial, crash_trials, jobs_of, rerun_trials, scenario_id
from .explore.zygote import Zygote, ZygoteError
from .model import (
    CheckResult,
    Coverage,
    DagInfo,
    Finding,
    LoadedFile,
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

START_S = 433.0
"""From the end of the data interval to the start of the clean run. No round number: nothing coincides by chance."""
OTHER_CLOCK_S = START_S + 86_400 + 3_600 + 2_472
"""The same for the run by another clock: another hour, minute and second, on the day of a rerun the day after."""


class CheckerError(Exception):
    """Nothing can be checked; the message is for the user."""


class Checker:
    """Answers what pytest asks about DAG files. Forks when first used."""

    def __init__(
        self, *, settings: Settings, rootdir: Path, prepare: Callable[[str, Any, Any], None]
    ) -> None:
        self._settings = settings
        self._rootdir = rootdir
        self._prepare = prepare
        self._zygote: Zygote | None = None
        self._pool: Pool | None = None
        self._pool_file = ""
        self._studies: dict[tuple[str, str], Study] = {}

    def find_dag_files(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Absolute paths of the DAG files among files and folders, sorted, by Airflow's own rule."""
        answer = self._run("", [FindJob(paths=tuple(os.path.abspath(path) for path in paths))])[0]
        if not isinstance(answer, Done):
            raise CheckerError(_reason(answer))
        found: tuple[str, ...] = answer.result
        return found

    def load(self, file: str) -> LoadedFile:
        """The DAGs of a file, or why it has none. Raises `CheckerError` if Airflow cannot be used."""
        answer = self._run(file, [LoadJob(file=file, folder=self._folder(file))])[0]
        match answer:
            case Done(LoadedFile() as loaded):
                return replace(loaded, error=load_error(loaded.error))
            case _:
                return LoadedFile(file=file, dags=(), error=_reason(answer))

    def checks_of(self, dag: DagInfo) -> tuple[str, ...]:
        """The names of a DAG's checks."""
        return ("clean", "rerun", *(f"crash.{task.task_id}" for task in dag.tasks))

    def run(self, dag: DagInfo, check: str) -> CheckResult:
        """The outcome of one check."""
        began = time.perf_counter()
        result = self._study(dag).result(check)
        return replace(result, duration_s=time.perf_counter() - began)

    def replay(self, scenario_id: str, files: Sequence[str]) -> str:
        """One scenario run again, told in full. Raises `CheckerError` for an id that names none."""
        dag_id = scenario_id.partition(":")[0]
        dags = {dag.dag_id: dag for file in files for dag in self.load(file).dags}
        if dag_id not in dags:
            raise CheckerError(f"--rerun-safety-replay: no DAG {dag_id!r}{_near(dag_id, dags)}")
        return self._study(dags[dag_id]).replay(scenario_id)

    def close(self) -> None:
        """End all processes."""
        self._end_pool()
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _study(self, dag: DagInfo) -> Study:
        key = (dag.file, dag.dag_id)
        if key not in self._studies:
            self._studies[key] = Study(
                dag=dag,
                settings=self._settings,
                rootdir=self._rootdir,
                folder=self._folder(dag.file),
                run=lambda jobs: self._run(dag.file, jobs),
            )
        return self._studies[key]

    def _run(self, file: str, jobs: Sequence[Job]) -> list[Answer]:
        """Jobs of one DAG file: workers are never shared between files."""
        if self._pool is None or self._pool_file != file:
            self._end_pool()
            self._pool = Pool(self._started(), _cores())
            self._pool_file = file
        return self._pool.run(jobs)

    def _started(self) -> Zygote:
        if self._zygote is None:
            try:
                self._zygote = Zygote.start(self._rootdir, self._prepare)
            except ZygoteError as error:
                raise CheckerError(_cannot_start(str(error))) from None
        return self._zygote

    def _end_pool(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _folder(self, file: str) -> str:
        """The DAGs folder that a file stands in, whatever path was given on the command line."""
        configured = [*self._settings.dags, os.environ.get("AIRFLOW__CORE__DAGS_FOLDER", ""), "dags"]
        folders = [str(self._rootdir / folder) for folder in configured if folder]
        return next((f for f in folders if file.startswith(f.rstrip("/") + "/")), os.path.dirname(file))


class Study:
    """All that is known of one DAG; each part is found out when it is first asked for."""

    def __init__(
        self,
        *,
        dag: DagInfo,
        settings: Settings,
        rootdir: Path,
        folder: str,
        run: Callable[[Sequence[Job]], list[Answer]],
    ) -> None:
        self._dag = dag
        self._settings = settings
        self._file = os.path.relpath(dag.file, rootdir).replace(os.sep, "/")
        self._folder = folder
        self._run = run

    def result(self, check: str) -> CheckResult:
        """The outcome of a check."""
        skip = self._settings.for_dag(self._dag.dag_id).skip
        if skip:
            return self._result(check, Verdict.SKIPPED, reason=skip)
        if check == "clean":
            return self._of_clean_runs(check)
        if self._clean.stops:
            return self._result(check, Verdict.SKIPPED, reason=self._clean.stops)
        if check == "rerun":
            return self._of_trials(check, rerun_trials(self._dag, self._reference), Coverage())
        found = crash_trials(
            self._dag,
            self._reference,
            check.removeprefix("crash."),
            self._settings.profile,
        )
        if (
            not found.trials
            and self._reference.outcome.task_states.get(check.removeprefix("crash.")) == "success"
        ):
            return self._result(check, Verdict.SAFE)  # Airflow gives no worker a task that does nothing
        if not found.trials:
            return self._result(check, Verdict.SKIPPED, reason="the task did not run in the clean run")
        coverage = Coverage(
            crash_points=self._clean.executed_lines.get(check.removeprefix("crash."), 0),
            distinct_states=found.distinct,
            explored=found.explored,
            exhaustive=found.explored == found.distinct,
        )
        return self._of_trials(check, found.trials, coverage)

    # --- clean runs ---------------------------------------------------------------------------

    @cached_property
    def _clean(self) -> CleanRuns:
        jobs = [
            self._record_job(),
            self._record_job(delay_s=OTHER_CLOCK_S, counts_lines=True, keeps_effects=False),
            self._record_job(seed="other entropy", keeps_effects=False),
        ]
        if len(self._dag.tasks) > 1:  # a task alone has nobody to share memory with
            jobs.append(self._record_job(shares_memory=True, keeps_effects=False))
        return judge_clean_runs(self._dag, self._file, self._run(jobs), self._counting)

    def _record_job(self, **options: Any) -> RecordJob:
        dag_settings = self._settings.for_dag(self._dag.dag_id)
        chosen = {"delay_s": START_S, "seed": "reference", **options}
        return RecordJob(
            dag=self._dag,
            folder=self._folder,
            logical_date=dag_settings.logical_date or self._dag.logical_date,
            **chosen,
        )

    @cached_property
    def _counting(self) -> Counting:
        chosen = self._settings.for_dag(self._dag.dag_id)
        return Counting(only=chosen.outputs, ignore=chosen.ignore)

    @property
    def _reference(self) -> Recording:
        assert self._clean.reference is not None, "asked for only when nothing stops the other checks"
        return self._clean.reference

    def _of_clean_runs(self, check: str) -> CheckResult:
        clean = self._clean
        return self._result(
            check, clean.verdict, reason=clean.reason, findings=clean.findings, notes=clean.notes
        )

    # --- trials -------------------------------------------------------------------------------

    @cached_property
    def _judge(self) -> Judge:
        return Judge(
            recording=self._reference,
            volatility=self._clean.volatility,
            counting=self._clean.counting,
            dag_file=self._file,
            dag_line=self._dag.line,
            outputs_of=lambda state: file_outputs(state.world.files),
            replay_of=self._replay_command,
        )

    def _replay_command(self, scenario: Scenario) -> str:
        return f"pytest --rerun-safety-replay={shlex.quote(scenario_id(scenario))} {shlex.quote(self._file)}"

    def _of_trials(self, check: str, trials: Sequence[Trial], coverage: Coverage) -> CheckResult:
        cases: list[Case] = []
        obstacles: list[Obstacle] = list(self._reference.outcome.obstacles)
        for trial, answer in zip(trials, self._try(trials), strict=True):
            match answer:
                case Outcome():
                    obstacles += answer.obstacles
                    cases.append(self._judge.case(trial.scenario, trial.state, answer))
                case Lost(obstacle):
                    obstacles.append(obstacle)
                case Failed(reason):
                    return self._result(check, Verdict.ERROR, reason=reason)
        findings = self._findings(cases)
        coverage = replace(coverage, recoveries=len(trials))
        if findings:
            return self._result(check, Verdict.UNSAFE, findings=findings, coverage=coverage)
        if obstacles:
            return self._result(
                check, Verdict.UNVERIFIABLE, reason=obstacle_text(obstacles[0]), coverage=coverage
            )
        return self._result(check, Verdict.SAFE, coverage=coverage)

    def _try(self, trials: Sequence[Trial], *, keeps_log: bool = False) -> list[Outcome | Lost | Failed]:
        """How each trial ended. Trials share a worker; those that took it down with others in it are tried alone."""
        jobs = jobs_of(trials, self._dag, self._folder, self._clean.situations, keeps_log=keeps_log)
        ended: list[Outcome | Lost | Failed] = []
        for job, answer in zip(jobs, self._run(jobs), strict=True):
            if isinstance(answer, Done):
                ended += map(self._completed, answer.result)
            elif len(job.starts) == 1:
                ended.append(answer)
            else:
                ended += self._try_alone(job)
        return ended

    def _try_alone(self, job: RecoverJob) -> Iterator[Outcome | Lost | Failed]:
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

    def _findings(self, cases: Sequence[Case]) -> tuple[Finding, ...]:
        blamed = [self._of_crash(case) if case.state is not None and case.is_bad else case for case in cases]
        return fold(
            [self._judge.finding(case, _same_day_is_fine(case, cases)) for case in blamed if case.is_bad]
        )

    def _of_crash(self, case: Case) -> Case:
        """The case without what the same clear does to other tasks' outputs when nothing has crashed."""
        scenario = case.scenario
        for other in self._cases_without_crash if scenario.recovery is not RecoveryKind.RETRY else ():
            same = (other.scenario.recovery, other.scenario.task_id or scenario.task_id)
            if same == (scenario.recovery, scenario.task_id):
                return self._judge.without(case, other)
        return case

    @cached_property
    def _cases_without_crash(self) -> tuple[Case, ...]:
        trials = rerun_trials(self._dag, self._reference)
        return tuple(
            self._judge.case(trial.scenario, None, outcome)
            for trial, outcome in zip(trials, self._try(trials), strict=True)
            if isinstance(outcome, Outcome)
        )

    def _result(self, check: str, verdict: Verdict, **details: Any) -> CheckResult:
        return CheckResult(dag_id=self._dag.dag_id, file=self._file, check=check, verdict=verdict, **details)

    # --- replay -------------------------------------------------------------------------------

    def replay(self, wanted: str) -> str:
        """One scenario run again, told in full."""
        if self._clean.stops:
            raise CheckerError(f"--rerun-safety-replay: {self._clean.stops}")
        trials = {scenario_id(trial.scenario): trial for trial in self._all_trials()}
        if wanted not in trials:
            raise CheckerError(f"--rerun-safety-replay: no scenario {wanted!r}{_near(wanted, trials)}")
        trial = trials[wanted]
        (outcome,) = self._try([trial], keeps_log=True)
        if not isinstance(outcome, Outcome):
            raise CheckerError(_reason(outcome))
        return self._told(self._judge.case(trial.scenario, trial.state, outcome))

    def _all_trials(self) -> Iterator[Trial]:
        """The trials of the most thorough profile: whatever profile an id comes from, it is among them."""
        yield from rerun_trials(self._dag, self._reference)
        for task in self._dag.tasks:
            yield from crash_trials(self._dag, self._reference, task.task_id, Profile.THOROUGH).trials

    def _told(self, case: Case) -> str:
        finding = self._judge.finding(case, None) if case.is_bad else None
        last, following = self._judge.effects_around(case.state)
        return replay_text(
            case.scenario,
            last_effect=last,
            next_effect=following,
            outcome=case.outcome,
            differences=case.differences,
            rule=finding.rule if finding else None,
        )


def _same_day_is_fine(case: Case, cases: Sequence[Case]) -> bool | None:
    """Whether the same clear on the same day ended well; None for every other case."""
    if case.scenario.recovery is not RecoveryKind.CLEAR_RUN_DAY_LATER:
        return None
    # Where one clear selects the same tasks as another, only the first was tried: any clear of that state will do.
    same_day = [other for other in cases if other is not case and other.state is case.state]
    clears = [other for other in same_day if other.scenario.recovery is not RecoveryKind.RETRY]
    return not any(other.is_bad for other in clears) if clears else None


def obstacle_text(obstacle: Obstacle) -> str:
    """What, where, what to do, in one paragraph."""
    place = f" at {obstacle.where.file}:{obstacle.where.line}" if obstacle.where else ""
    return f"{obstacle.what}{place}. {obstacle.remedy}"


def _reason(answer: Answer) -> str:
    match answer:
        case Failed(reason):
            return reason
        case Lost(obstacle):
            return obstacle_text(obstacle)
        case Done(result):
            return f"unexpected result {result!r}"


def _cores() -> int:
    """Workers at a time: the cores that this process may use, shared with the other processes of pytest-xdist."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _near(wanted: str, known: Iterable[str]) -> str:
    found = get_close_matches(wanted, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def _cannot_start(trace: str) -> str:
    last = trace.strip().splitlines()[-1]
    if "No module named 'airflow'" in last:
        return "Airflow is not installed here: pip install 'pytest-rerunsafe[airflow]'"
    return f"Airflow cannot be used: {last}\n{trace}"
