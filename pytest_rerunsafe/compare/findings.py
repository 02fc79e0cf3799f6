"""Turns what runs showed into findings: evidence, rule, line of code. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ..model import (
    ERRORS,
    Attempt,
    CrashKind,
    CrashState,
    Difference,
    Effect,
    Finding,
    Location,
    Outcome,
    Output,
    Recording,
    Scenario,
    Splice,
)
from .counting import Counting, Outputs
from .differences import diff_outputs, summarise
from .effects import describe_effect, outputs_of_effect, task_name
from .remedies import remedy
from .rules import DECISION, Evidence, classify
from .volatile import Volatility

_PATH = re.compile(r"'(/[^']*)'")
"""In the last line of an `OSError`."""
_REFUSED_BY_DATABASE = re.compile(r"IntegrityError:|OperationalError: .* already exists")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A scenario and how it ended."""

    scenario: Scenario
    state: CrashState | None
    outcome: Outcome
    differences: tuple[Difference, ...]
    failing: tuple[str, ...] = ()
    """Tasks that end failed and did not in the clean run: Airflow calls a run a success whose last tasks are."""

    @property
    def rerun_state(self) -> str:
        """The state of the run; that of a run with failing tasks is no success."""
        return "failed" if self.failing and self.outcome.run_state == "success" else self.outcome.run_state

    @property
    def is_bad(self) -> bool:
        """Whether the rerun did not end as a clean run."""
        return bool(self.differences) or self.rerun_state != "success"


class Judge:
    """Knows the clean run of a DAG and judges its reruns by it."""

    def __init__(
        self,
        *,
        recording: Recording,
        volatility: Volatility,
        counting: Counting,
        dag_file: str,
        dag_line: int,
        outputs_of: Callable[[CrashState], Outputs],
        replay_of: Callable[[Scenario], str],
        is_of_intervals: bool = False,
    ) -> None:
        self._recording = recording
        self._volatility = volatility
        self._counting = counting
        self._dag = Location(file=dag_file, line=dag_line)
        self._outputs_of = outputs_of
        self._replay_of = replay_of
        # Intervals that add their records to one file leave them in the order in which they ran.
        self._is_unordered = (lambda name: True) if is_of_intervals else counting.is_unordered
        self._clean = counting.select(recording.outcome.outputs)
        self._failing_anyway = _failing(recording.outcome)

    def case(self, scenario: Scenario, state: CrashState | None, outcome: Outcome) -> Case:
        """How a rerun differs from the clean run."""
        rerun = self._counting.select(outcome.outputs)
        differences: tuple[Difference, ...] = ()
        if rerun != self._clean:
            differences = diff_outputs(self._clean, rerun, self._volatility, is_unordered=self._is_unordered)
        if state is not None and (kept := self._kept_by_error(scenario, state)):
            differences = tuple(d for d in differences if d.clean is not None or d.output != kept)
        failing = tuple(sorted(_failing(outcome) - self._failing_anyway))
        return Case(scenario=scenario, state=state, outcome=outcome, differences=differences, failing=failing)

    def _kept_by_error(self, scenario: Scenario, state: CrashState) -> str:
        """The output that could not be removed, if that was what failed: no code can help that it is still there."""
        effect = self._recording.effects[state.point.effect]
        is_removal = scenario.crash_kind in ERRORS and effect.kind in ("unlink", "rmdir")
        return f"file:{effect.target}" if is_removal else ""

    def without(self, case: Case, other: Case) -> Case:
        """The case less the differences that another shows too, on outputs of tasks other than the crashed one.

        And less what that task makes of them where it reads them; an output that it does not make at all is no such thing.
        """
        mine = {d.output for d in case.differences if self._writer({d.output}) == case.scenario.task_id}
        spoilt = {difference.output for difference in other.differences} - mine
        made = {d.output for d in case.differences if d.output in mine and d.rerun is not None}
        told = spoilt if spoilt.isdisjoint(_read_again(case)) else spoilt | made
        return replace(case, differences=tuple(d for d in case.differences if d.output not in told))

    def finding(
        self,
        case: Case,
        same_day_is_fine: bool | None,
        *,
        is_order: bool = False,
        is_local: bool = False,
        is_damaged: bool = False,
        by_chance: str = "",
    ) -> Finding:
        """What a bad case says. Without a crash, the task that makes the output is to blame, not the one cleared.

        `is_order` tells whether the order of intervals is to blame, `is_local` whether the lack of local files is,
        `is_damaged` whether a file is that the crash left in the middle of a change, `by_chance` what chance is.
        """
        evidence = replace(
            self._evidence(case, same_day_is_fine),
            is_other_order=is_order,
            is_local=is_local,
            is_damaged=is_damaged,
            is_by_callback=self._callback(case) is not None,
            by_chance=by_chance,
            has_ended=case.state is not None and case.state.point.has_ended,
        )
        scenario, failed = case.scenario, _failed(case)
        names = {difference.output for difference in case.differences}
        died_at: Location | None = None
        if case.state is not None and case.state.point.has_ended:
            where, task_id = self._first_effect_on(names), scenario.task_id
        elif case.state is not None:
            died_at, task_id = self._where_it_died(case.state), scenario.task_id
            mine = self._of_crashed(scenario, case.state)
            where = (self._why_it_failed(failed, mine) if failed else self._callback(case)) or died_at
        elif (spoiler := self._spoiler(case, names)) is not None:
            where, task_id = spoiler, scenario.task_id
        else:
            where, task_id = self._first_effect_on(names), self._writer(names) or scenario.task_id
            if failed is not None:
                task_id = task_name(failed, scenario.dag_id)
                of_run = [effect for effect in self._recording.effects if effect.attempt is not None]
                where = self._why_it_failed(failed, of_run) or self._where_it_failed(failed) or self._dag
        last, following = self.effects_around(case)
        rule = classify(evidence)
        return Finding(
            rule=rule,
            dag_id=scenario.dag_id,
            task_id=task_id,
            map_index=scenario.map_index,
            crash_point=scenario.crash_point,
            crash_kind=scenario.crash_kind,
            recovery=scenario.recovery,
            file=where.file,
            line=where.line,
            summary=_summary(case),
            differences=case.differences,
            replay=self._replay_of(scenario),
            last_effect=last,
            next_effect=following,
            remedy=remedy(
                rule,
                where,
                case.differences,
                evidence=evidence,
                error=failed.error if failed is not None else "",
                last_kind=self._recording.effects[case.state.point.effect].kind if case.state else "",
            ),
            died_at=_elsewhere(died_at, where),
            before=_before(scenario),
        )

    def by_chance(self, case: Case, drawn: Outcome) -> str:
        """What is not as in the clean run, neither in a bad case nor in a clean run that drew its random numbers.

        An output, a task that fails, or how a branch decided, by the name of its XCom; empty if there is none.
        """
        other = self.case(case.scenario, None, drawn)
        shared = sorted(self._unlike_clean(case) & self._unlike_clean(other))
        # Outputs follow from what a branch decided, so that comes first.
        return max(shared, key=lambda name: name.endswith(DECISION), default="")

    def _unlike_clean(self, case: Case) -> set[str]:
        usual = _decisions(self._recording.outcome)
        decisions = {name for name, tasks in _decisions(case.outcome).items() if usual.get(name) != tasks}
        return {*(difference.output for difference in case.differences), *case.failing, *decisions}

    # --- evidence -----------------------------------------------------------------------------

    def _evidence(self, case: Case, same_day_is_fine: bool | None) -> Evidence:
        attempts = case.outcome.attempts
        return Evidence(
            clean=self._masked(self._clean),
            rerun=self._masked(self._counting.select(case.outcome.outputs)),
            crash=self._masked(self._left(case)),
            differences=case.differences,
            rerun_state=case.rerun_state,
            written_after=self._written_before(case),
            swallowed_errors=self._swallowed_errors(attempts),
            stale_xcom_reads=self._reads_xcoms_otherwise(attempts),
            same_day_is_fine=same_day_is_fine,
            is_power_loss=case.scenario.crash_kind is CrashKind.POWER,
            exited_green=any(a.exit_code == 0 and a.state == "success" for a in attempts),
        )

    def _masked(self, outputs: Outputs) -> dict[str, Output]:
        return {
            name: Output(name=name, content=self._volatility.mask(name, output.content))
            for name, output in outputs.items()
        }

    def _left(self, case: Case) -> Outputs:
        state, left = case.state, case.outcome.left
        if state is None:
            return self._clean
        if left is not None:
            state = replace(state, world=replace(state.world, files=left))
        # Those of the DAG are called later, when the run has failed.
        by_callbacks = {
            name: o for name, o in case.outcome.outputs.items() if _path(name) in case.outcome.by_callbacks
        }
        return self._counting.select({**by_callbacks, **self._outputs_of(state)})

    def _written_before(self, case: Case) -> tuple[str, ...]:
        state, left = case.state, case.outcome.left
        if state is None:
            return ()
        mine = self._of_crashed(case.scenario, state)
        # What handlers and callbacks wrote came last.
        files = {} if left is None else left
        later = sorted(path for path in files if files[path] != state.world.files.get(path))
        return (
            *(name for effect in mine for name in outputs_of_effect(effect) if effect.files),
            *(f"file:{path}" for path in later),
        )

    def _of_crashed(self, scenario: Scenario, state: CrashState) -> list[Effect]:
        """The effects of the attempt that crashed."""
        effects = self._recording.effects[: state.point.effect + (scenario.crash_kind not in ERRORS)]
        return [effect for effect in effects if effect.attempt == state.point.attempt]

    def _swallowed_errors(self, attempts: Sequence[Attempt]) -> bool:
        usual = {op for attempt in self._recording.outcome.attempts for op in attempt.failed_operations}
        return any(
            attempt.state == "success" and not usual.issuperset(attempt.failed_operations)
            for attempt in attempts
        )

    def _reads_xcoms_otherwise(self, attempts: Sequence[Attempt]) -> bool:
        """Whether a rerun read an XCom that an earlier attempt had left, or no longer found one that the clean run did."""
        clean = {_instance(a): set(a.xcom_reads) for a in self._recording.outcome.attempts}
        return any(
            attempt.stale_xcom_reads
            or (attempt.state == "success" and clean.get(_instance(attempt), set()) - set(attempt.xcom_reads))
            for attempt in attempts
        )

    # --- blame --------------------------------------------------------------------------------

    def _where_it_died(self, state: CrashState) -> Location:
        point = state.point
        nearby = [self._recording.effects[point.effect], *self._following(point.attempt, point.effect)[:1]]
        return next((effect.stack[0] for effect in nearby if effect.stack), self._dag)

    def _callback(self, case: Case) -> Location | None:
        """The line of callbacks that made all that differs; None if they did not."""
        places = [case.outcome.by_callbacks.get(_path(d.output)) for d in case.differences]
        return places[0] if places and None not in places else None

    def _why_it_failed(self, failed: Attempt, effects: Sequence[Effect]) -> Location | None:
        """The one of these effects that let the file which the error names come or go; of what a database refuses, the
        statement; None if the error does not tell."""
        error = failed.error.splitlines()[-1]
        if _REFUSED_BY_DATABASE.search(error):
            return self._where_it_failed(failed)
        paths = _PATH.findall(error)
        return next((e.stack[0] for e in reversed(effects) if _makes_or_removes(e, paths)), None)

    def _where_it_failed(self, failed: Attempt) -> Location | None:
        """The innermost line of the DAG file in the exception's traceback; None if it shows none."""
        lines = re.findall(rf'File ".*{re.escape(self._dag.file)}", line (\d+)', failed.error)
        return Location(file=self._dag.file, line=int(lines[-1])) if lines else None

    def _first_effect_on(self, names: set[str]) -> Location:
        """The line that first changed one of these outputs in the clean run; the DAG's if none did."""
        for effect in self._recording.effects:
            if effect.stack and effect.attempt is not None and names & set(outputs_of_effect(effect)):
                return effect.stack[0]
        return self._dag

    def _spoiler(self, case: Case, names: set[str]) -> Location | None:
        """The first line of a cleared task that changes anything, if it was run again and the maker of these outputs was not."""
        cleared, dag_id = case.scenario.task_id, case.scenario.dag_id
        again = {task_name(attempt, dag_id) for attempt in case.outcome.attempts}
        if cleared not in again or self._writer(names) in {"", cleared, *again}:
            return None
        attempts = self._recording.outcome.attempts
        for effect in self._recording.effects:
            is_change = effect.stack and effect.attempt is not None and effect.files
            if is_change and task_name(attempts[effect.attempt or 0], dag_id) == cleared:
                return effect.stack[0]
        return self._dag

    def _writer(self, names: set[str]) -> str:
        """The task that first changed one of these outputs in the clean run; empty if none did."""
        for effect in self._recording.effects:
            if effect.attempt is not None and names & set(outputs_of_effect(effect)):
                return task_name(self._recording.outcome.attempts[effect.attempt], self._recording.run[0])
        return ""

    def _following(self, attempt: int, index: int) -> list[Effect]:
        effects = self._recording.effects[index + 1 :]
        return [effect for effect in effects if effect.attempt == attempt and effect.kind != "sync"]

    def effects_around(self, case: Case) -> tuple[str, str]:
        """The last effect that became durable and the first that did not, in words; empty without a crash."""
        state = case.state
        if state is None:
            return "", ""
        point = state.point
        last = describe_effect(self._recording.effects[point.effect])
        if case.scenario.crash_kind in ERRORS:
            mine = self._of_crashed(case.scenario, state)
            why = f": {case.outcome.raised}" if case.outcome.raised else ""
            return describe_effect(mine[-1]) if mine else "", f"{last}{why}"
        following = self._following(point.attempt, point.effect)
        if point.loss:
            return last, point.loss
        if point.is_torn:
            return f"the first part of: {last}", f"the rest of: {last}"
        return last, describe_effect(following[0]) if following else ""


def _elsewhere(died_at: Location | None, where: Location) -> str:
    """Where the worker died, in words; empty if that is the line to blame."""
    if died_at is None or (died_at.file, died_at.line) == (where.file, where.line):
        return ""
    return f"{died_at.file}:{died_at.line}"


def _before(scenario: Scenario) -> tuple[str, ...]:
    """The deaths before that of a scenario, in words."""
    first = scenario.first
    return () if first is None else (*_before(first), f"{first.crash_point} ({first.recovery})")


def _path(name: str) -> str:
    """The path of an output that is a file."""
    return name.removeprefix("file:")


def _makes_or_removes(effect: Effect, paths: Sequence[str]) -> bool:
    """Whether code of the project lets one of these files, or folders, come or go."""
    return bool(effect.stack) and any(
        path in paths and not isinstance(change, Splice) for path, change in effect.files
    )


def _instance(attempt: Attempt) -> tuple[str, str, int]:
    return attempt.run[0], attempt.task_id, attempt.map_index


def _decisions(outcome: Outcome) -> dict[str, frozenset[str]]:
    """The tasks that each branch chose or passed over, by the name of its XCom; it notes them in the order of a set."""
    return {
        name: frozenset(chain.from_iterable(json.loads(output.content).values()))
        for name, output in outcome.outputs.items()
        if name.startswith("xcom:") and name.endswith(DECISION)
    }


def _failing(outcome: Outcome) -> frozenset[str]:
    """The task instances that end failed."""
    failed = ("failed", "upstream_failed")
    return frozenset(name for name, state in outcome.task_states.items() if state in failed)


def _read_again(case: Case) -> set[str]:
    """The outputs that the crashed task read when it ran again."""
    crashed = (case.scenario.dag_id, case.scenario.task_id, case.scenario.map_index)
    again = [attempt for attempt in case.outcome.attempts if _instance(attempt) == crashed]
    return {f"file:{path}" for attempt in again for path in attempt.first_reads}


def _failed(case: Case) -> Attempt | None:
    """The attempt whose exception keeps a rerun from its end; None if it came to its end."""
    if case.rerun_state == "success":
        return None
    return next((a for a in reversed(case.outcome.attempts) if a.error and a.state == "failed"), None)


def _summary(case: Case) -> str:
    if case.rerun_state == "success":
        return summarise(case.differences)
    if (failed := _failed(case)) is not None:
        name = task_name(failed, case.scenario.dag_id)
        return f"{name} fails when it is rerun: {failed.error.splitlines()[-1]}"
    if case.outcome.run_state == "success":
        return f"{case.failing[0]} ends failed, and the run is a success all the same"
    return f"the run ends {case.outcome.run_state}"
