"""What the clean runs of a DAG say before anything is crashed: that it runs, agrees with itself, loads without effects."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .compare.counting import Counting
from .compare.differences import diff_outputs, summarise
from .compare.effects import describe_effect, outputs_of_effect, task_name
from .compare.remedies import BY_SETS, remedy
from .compare.volatile import Problem, Volatility, find_volatile
from .explore.messages import Answer, Cut, Done, Failed, Lost
from .model import (
    Attempt,
    DagInfo,
    Difference,
    Effect,
    Finding,
    Location,
    Obstacle,
    Outcome,
    Output,
    Recording,
    Rule,
    Verdict,
)

DISAGREE = "the clean runs disagree: mend what the check `clean` has found first"
_DEADLINE = "The callback of the DAG's deadline is not run here: time passes otherwise than in a deployment"
FAILS = "the clean run does not succeed: see the check `clean`"


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanRuns:
    """The clean runs of a DAG, judged."""

    verdict: Verdict
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    reference: Recording | None = None
    outcomes: tuple[Outcome, ...] = ()
    """Of the reference and of the run by another clock: how a rerun may end that has become like one of them."""
    situations: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """What the world was in these runs: which of `outcomes`, and the number of its attempts before."""
    executed_lines: Mapping[str, int] = field(default_factory=dict)
    """Lines of the project's code that a task's attempts run, by task id."""
    volatility: Volatility = field(default_factory=Volatility.none)
    counting: Counting = field(default_factory=Counting)
    """Which outputs count, now that it is known what tasks read."""
    stops: str | None = None
    """Why no other check makes sense; None if they do."""


def judge_clean_runs(
    dag: DagInfo, file: str, answers: Sequence[Answer], counting: Counting, orders: Sequence[Answer] = ()
) -> CleanRuns:
    """What the runs say: reference, other clock, other entropy, and shared memory if there was such a run.

    `orders` are runs that differ from each other in nothing but the order of sets, if there were any.
    """
    lost = [answer for answer in answers[:3] if not isinstance(answer, Done)]
    if lost:
        return _without_recording(lost[0])
    return _Judgement(dag, file, answers, counting, orders).verdict()


def _without_recording(answer: Answer) -> CleanRuns:
    match answer:
        case Failed(reason):
            return CleanRuns(verdict=Verdict.ERROR, reason=reason, stops=FAILS)
        case Lost(obstacle):
            return CleanRuns(verdict=Verdict.UNVERIFIABLE, reason=obstacle_text(obstacle), stops=FAILS)
        case Done() | Cut():
            raise AssertionError("a recording is not lost, and no clean run is cut off")


def obstacle_text(obstacle: Obstacle) -> str:
    """What, where, what to do, in one paragraph."""
    place = f" at {obstacle.where.file}:{obstacle.where.line}" if obstacle.where else ""
    return f"{obstacle.what}{place}. {obstacle.remedy}"


class _Judgement:
    """The clean runs of one DAG while they are judged."""

    def __init__(
        self,
        dag: DagInfo,
        file: str,
        answers: Sequence[Answer],
        counting: Counting,
        orders: Sequence[Answer],
    ) -> None:
        self._dag = dag
        self._orders = orders
        self._file = file
        recordings: list[Any] = [answer.result if isinstance(answer, Done) else None for answer in answers]
        self._reference: Recording = recordings[0]
        self._other_clock: Recording = recordings[1]
        self._other_entropy: Recording = recordings[2]
        self._shared_memory: Recording | None = recordings[3] if len(recordings) > 3 else None
        self._counting = counting.with_xcoms_of(self._reference.outcome)

    def verdict(self) -> CleanRuns:
        if not _succeeded(self._reference):
            return self._failed()
        volatility = find_volatile(
            self._outputs(self._reference),
            self._agreeing(self._other_clock),
            self._agreeing(self._other_entropy),
            is_unordered=self._counting.is_unordered,
        )
        by_order = self._by_order(volatility)
        disagreements = (
            *self._failing_elsewhere(),
            *self._disagreements(volatility.problems, summarise),
            *self._disagreements(by_order, _by_order_of_sets),
        )
        findings = (*self._parse_effects(), *disagreements, *self._memory_sharing(volatility))
        obstacles = self._reference.outcome.obstacles
        return CleanRuns(
            verdict=Verdict.UNSAFE if findings else Verdict.UNVERIFIABLE if obstacles else Verdict.SAFE,
            reason=obstacle_text(obstacles[0]) if obstacles else None,
            findings=findings,
            notes=(*self._order_notes(), *((_DEADLINE,) if self._dag.has_deadline else ())),
            reference=self._reference,
            outcomes=(self._reference.outcome, self._other_clock.outcome),
            situations=_situations(self._reference, self._other_clock),
            executed_lines=_executed_lines(self._other_clock),
            volatility=volatility,
            counting=self._counting,
            stops=DISAGREE if disagreements else None,
        )

    def _agreeing(self, recording: Recording) -> dict[str, Output]:
        """The outputs of a run; of one that failed those of the reference, for its failure is a finding of its own."""
        return self._outputs(recording if _succeeded(recording) else self._reference)

    def _outputs(self, recording: Recording) -> dict[str, Output]:
        return self._counting.select(recording.outcome.outputs)

    # --- a run that fails ---------------------------------------------------------------------

    def _failed(self) -> CleanRuns:
        if self._shared_memory is not None and _succeeded(self._shared_memory):
            finding = self._memory_finding(_why(self._reference), ())
            return CleanRuns(verdict=Verdict.UNSAFE, findings=(finding,), stops=FAILS)
        obstacles = self._reference.outcome.obstacles
        if obstacles:
            return CleanRuns(verdict=Verdict.UNVERIFIABLE, reason=obstacle_text(obstacles[0]), stops=FAILS)
        return CleanRuns(verdict=Verdict.ERROR, reason=failure(self._reference), stops=FAILS)

    def _failing_elsewhere(self) -> tuple[Finding, ...]:
        orders = [answer.result for answer in self._orders if isinstance(answer, Done)]
        # If all of them fail, the order of sets is not what they fail for.
        by_order = orders if any(map(_succeeded, orders)) else []
        rules = (
            (self._other_clock, Rule.CLOCK_DEPENDENT),
            (self._other_entropy, Rule.NONDETERMINISTIC_OUTPUT),
            *((run, Rule.NONDETERMINISTIC_OUTPUT) for run in by_order),
        )
        return tuple(
            self._finding(
                rule, self._failed_task(run), self._dag_line(), f"a second clean run fails: {_why(run)}"
            )
            for run, rule in rules
            if not _succeeded(run)
        )

    def _failed_task(self, recording: Recording) -> str:
        failed = next((a for a in recording.outcome.attempts if a.state == "failed"), None)
        return "" if failed is None else task_name(failed, self._dag.dag_id)

    # --- runs that disagree -------------------------------------------------------------------

    def _by_order(self, volatility: Volatility) -> tuple[Problem, ...]:
        """What the order of sets makes differ; what differs anyway is told already."""
        ended = [answer.result for answer in self._orders if isinstance(answer, Done)]
        told = {difference.output for _, difference in volatility.problems}
        if len(ended) < 2 or not all(map(_succeeded, ended)):
            return ()
        one, other = map(self._outputs, ended)
        differences = diff_outputs(one, other, volatility, is_unordered=self._counting.is_unordered)
        return tuple((Rule.NONDETERMINISTIC_OUTPUT, d) for d in differences if d.output not in told)

    def _order_notes(self) -> tuple[str, ...]:
        """That the order of sets was not varied, and why."""
        failed = [
            answer for answer in self._orders if not (isinstance(answer, Done) and _succeeded(answer.result))
        ]
        if len(failed) < 2:
            return ()
        answer = failed[0]
        match answer:
            case Done(recording):
                why = _why(recording)
            case Failed(reason):
                why = reason.strip().splitlines()[-1]
            case other:
                why = getattr(other, "obstacle", Obstacle(what="no result", where=None, remedy="")).what
        return (f"the order of sets was not varied: in an interpreter without your conftest.py, {why}",)

    def _disagreements(
        self, problems: Sequence[Problem], told: Callable[[Sequence[Difference]], str]
    ) -> tuple[Finding, ...]:
        """One finding per rule and task: an output that varies seldom varies alone."""
        found: dict[tuple[Rule, str], list[Difference]] = {}
        for rule, difference in problems:
            found.setdefault((rule, self._writer(difference.output)), []).append(difference)
        return tuple(
            self._finding(
                rule,
                task_id,
                self._line_of(differences[0].output),
                told(differences),
                tuple(differences),
            )
            for (rule, task_id), differences in found.items()
        )

    def _memory_sharing(self, volatility: Volatility) -> tuple[Finding, ...]:
        run = self._shared_memory
        if run is None or not _succeeded(run):
            return ()
        differences = diff_outputs(
            self._outputs(run),
            self._outputs(self._reference),
            volatility,
            is_unordered=self._counting.is_unordered,
        )
        if not differences or self._is_parse_output(differences):
            return ()
        return (self._memory_finding(summarise(differences), differences),)

    def _is_parse_output(self, differences: Sequence[Difference]) -> bool:
        """Whether loading the file makes all that differs: it is loaded once there, and before each task elsewhere."""
        parsed = {
            f"file:{path}"
            for effect in self._reference.effects
            if effect.is_parse
            for path, _ in effect.files
        }
        return {difference.output for difference in differences} <= parsed

    def _memory_finding(self, summary: str, differences: tuple[Difference, ...]) -> Finding:
        task_id = self._writer(differences[0].output) if differences else self._failed_task(self._reference)
        line = self._line_of(differences[0].output) if differences else self._dag_line()
        return self._finding(Rule.WORKER_LOCAL_STATE, task_id, line, summary, differences)

    # --- loading the file ---------------------------------------------------------------------

    def _parse_effects(self) -> tuple[Finding, ...]:
        """One finding per line that changes data while the file is loaded, be it by functions that it calls.

        Making sure of a folder is none.
        """
        found: dict[Location, list[Effect]] = {}
        for effect in self._reference.effects:
            if self._is_of_others(effect):
                continue  # that DAG's own check tells
            if (
                effect.is_parse
                and effect.kind not in ("mkdir", "sync")
                and not effect.kind.startswith("xcom")
            ):
                where = next((each for each in effect.stack if each.is_entry), self._dag_line())
                if self._counting.counts(f"file:{effect.target}"):
                    found.setdefault(Location(file=where.file, line=where.line), []).append(effect)
        targets: set[str] = set()
        findings: list[Finding] = []
        for where, effects in found.items():
            # A file that one line opens is written at others: one finding per file.
            if not {effect.target for effect in effects} <= targets:
                targets |= {effect.target for effect in effects}
                summary = f"loading the DAG file {describe_effect(effects[0])}"
                findings.append(self._finding(Rule.PARSE_SIDE_EFFECT, "", where, summary))
        return tuple(findings)

    def _is_of_others(self, effect: Effect) -> bool:
        attempts = self._reference.outcome.attempts
        return effect.attempt is not None and attempts[effect.attempt].run[0] != self._dag.dag_id

    # --- blame --------------------------------------------------------------------------------

    def _finding(
        self,
        rule: Rule,
        task_id: str,
        where: Location,
        summary: str,
        differences: tuple[Difference, ...] = (),
    ) -> Finding:
        return Finding(
            rule=rule,
            dag_id=self._dag.dag_id,
            task_id=task_id,
            map_index=-1,
            crash_point=None,
            crash_kind=None,
            recovery=None,
            file=where.file,
            line=where.line,
            summary=summary,
            differences=differences,
            remedy=remedy(rule, where, differences, is_by_sets=summary.startswith(BY_SETS)),
            replay=f"pytest --rerun-safety {shlex.quote(f'{self._file}::{self._dag.dag_id}::clean')}",
        )

    def _dag_line(self) -> Location:
        return Location(file=self._file, line=self._dag.line)

    def _line_of(self, output: str) -> Location:
        effect = self._effect_on(output)
        return effect.stack[0] if effect is not None and effect.stack else self._dag_line()

    def _writer(self, output: str) -> str:
        if output.startswith("xcom:"):
            return output.removeprefix("xcom:").partition("/")[0].partition("[")[0]
        effect = self._effect_on(output)
        if effect is None or effect.attempt is None:
            return ""
        return task_name(self._reference.outcome.attempts[effect.attempt], self._dag.dag_id)

    def _effect_on(self, output: str) -> Effect | None:
        effects = self._reference.effects
        return next((effect for effect in effects if output in outputs_of_effect(effect)), None)


def _by_order_of_sets(differences: Sequence[Difference]) -> str:
    return f"{BY_SETS}, {summarise(differences)}"


def _situations(*recordings: Recording) -> dict[str, tuple[int, int]]:
    """Those of all runs; of the first where several were in the same."""
    found: dict[str, tuple[int, int]] = {}
    for number, recording in enumerate(recordings):
        for situation, attempts in recording.situations.items():
            found.setdefault(situation, (number, attempts))
    return found


def _executed_lines(recording: Recording) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for attempt in recording.outcome.attempts:
        if attempt.run == recording.run:
            counts[attempt.task_id] += attempt.executed_lines
    return dict(counts)


def _succeeded(recording: Recording) -> bool:
    return recording.outcome.run_state == "success"


def _why(recording: Recording) -> str:
    failed = _failed_attempt(recording)
    return (
        failed.error.splitlines()[-1] if failed is not None and failed.error else recording.outcome.run_state
    )


def _failed_attempt(recording: Recording) -> Attempt | None:
    failed = [a for a in reversed(recording.outcome.attempts) if a.state == "failed"]
    return next((a for a in failed if a.run == recording.run), failed[0] if failed else None)


def failure(recording: Recording) -> str:
    """Why a clean run did not succeed, with how to give the input that it lacks, if it lacks one."""
    failed = _failed_attempt(recording)
    if failed is None:
        states = ", ".join(f"{task} {state}" for task, state in recording.outcome.task_states.items())
        return f"the clean run ends {recording.outcome.run_state}: {states}"
    lines = [f"task {task_name(failed, recording.run[0])} fails in the clean run"]
    if failed.missing_input:
        lines += ["", *_how_to_give(failed.missing_input)]
    if failed.error:
        lines += ["", failed.error]
    if failed.exit_code is not None and not failed.error:
        lines[0] += f": its process ended with exit code {failed.exit_code}"
    return "\n".join(lines)


_MISSING = {
    "file": re.compile(r"FileNotFoundError: .*: '([^']+)'"),
    "variable": re.compile(r"VARIABLE_NOT_FOUND: .*(?:Variable |'key': ')([^ ']+)"),
    "connection": re.compile(r"The conn_id `([^`]+)` isn't defined"),
}


def load_error(error: str) -> str:
    """Why a file does not load, with how to give the input that it lacks, if it lacks one."""
    for kind, pattern in _MISSING.items():
        if found := pattern.search(error):
            hint = [*_how_to_give(f"{kind}:{found[1]}"), "", "(`dag` is None while the file does not load.)"]
            return "\n".join([error, "", *hint])
    return "\n".join([error, *_how_to_install(error)])


_NO_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([^']+)'", re.MULTILINE)
_PROVIDER = re.compile(
    r"airflow\.providers\.([a-z_.]+?)(?:\.(?:operators|sensors|hooks|transfers|triggers|decorators)\b|\W*$)"
)


def _how_to_install(error: str) -> list[str]:
    """What is to be installed for a module that was not there; nothing if none was missing."""
    found = _NO_MODULE.search(error)
    if found is None:
        return []
    module = found[1]
    told = f"The module {module} is not there: the checks import all that your DAGs import. Install it beside pytest"
    provider = _PROVIDER.search(
        next((line for line in error.splitlines() if "import" in line and module in line), module)
    )
    if not module.startswith("airflow.") or provider is None:
        return ["", f"{told}."]
    package = provider[1].replace(".", "-").replace("_", "-")
    return ["", f"{told}:", "", f"    pip install apache-airflow-providers-{package}"]


def _how_to_give(missing: str) -> list[str]:
    """How an input is put in place that was not there."""
    kind, _, name = missing.partition(":")
    match kind:
        case "file":
            what, calls = f"file {name} is", [f"world.write({name!r}, ...)"]
        case "folder":
            what = f"file {name} and its folder are"
            calls = [
                f"world.write({name!r}, ...)  # if the task reads it",
                f"world.mkdir({os.path.dirname(name)!r})  # if the task writes it",
            ]
        case _:
            what, calls = f"{kind.capitalize()} {name} is", [f"world.set_{kind}({name!r}, ...)"]
    return [
        f"The {what} not there. Put it in place in conftest.py:",
        "",
        "    def pytest_rerun_safety_prepare(dag, world):",
        *(f"        {call}" for call in calls),
    ]
