"""What people read of one scenario that was run again: the death, each attempt with its log, the end. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from ..model import OF_INTERVALS, Attempt, CrashKind, Difference, Outcome, Scenario


def replay_text(
    scenario: Scenario,
    *,
    last_effect: str,
    next_effect: str,
    outcome: Outcome,
    differences: Sequence[Difference],
    rule: str | None,
) -> str:
    """The story of a replay from the crash to the outputs."""
    blocks = (
        _beginning(scenario, last_effect, next_effect),
        *(_attempt(attempt, scenario.recovery in OF_INTERVALS) for attempt in outcome.attempts),
        _end(outcome),
        *(_difference(difference) for difference in differences),
        [f"Verdict: unsafe, {rule}" if rule else "Verdict: as after a clean run"],
    )
    return "\n\n".join("\n".join(block) for block in blocks)


_SAVED, _NEXT = "Last change saved", "Change that would come next"
_EVENTS = {
    CrashKind.KILL: ("The worker is killed", _SAVED, "First change lost"),
    CrashKind.OOM: ("The task's process is killed", _SAVED, "First change lost"),
    CrashKind.ERROR: ("The change fails", _SAVED, "Change that failed"),
    CrashKind.ERROR_EACH_TRY: ("The change fails on every try", _SAVED, "Change that failed"),
    CrashKind.TIMEOUT: ("The execution_timeout is over", _SAVED, _NEXT),
    CrashKind.SIGTERM: ("The task gets SIGTERM", _SAVED, _NEXT),
    CrashKind.ZOMBIE: ("The worker is taken for dead, and lives on,", _SAVED, _NEXT),
    CrashKind.POWER: ("The power fails", "Last change made", "Lost, for it was not synced"),
}
"""What happens, and what the changes before and after are called."""


def _beginning(scenario: Scenario, last_effect: str, next_effect: str) -> list[str]:
    if scenario.crash_point is None and scenario.recovery in OF_INTERVALS:
        return [f"No run has crashed. Intervals: {scenario.recovery}"]
    if scenario.crash_point is None:
        return [f"The run had succeeded. Recovery: {scenario.recovery}" + _of(scenario.task_id)]
    event, saved, lost = _EVENTS[scenario.crash_kind or CrashKind.KILL]
    first = scenario.first
    lines = [f"It has died before, at {first.crash_point}: {first.recovery}."] if first else []
    lines += [f"{event} at {scenario.crash_point}."]
    lines += [f"  {saved}: {last_effect}"] if last_effect else []
    lines += [f"  {lost}: {next_effect}"] if next_effect else []
    return [*lines, f"Recovery: {scenario.recovery}{_of(scenario.task_id)}"]


def _of(task_id: str) -> str:
    return f" of {task_id}" if task_id else ""


def _attempt(attempt: Attempt, names_run: bool) -> list[str]:
    name = attempt.task_id if attempt.map_index < 0 else f"{attempt.task_id}[{attempt.map_index}]"
    name += f" of {attempt.run[1]}" if names_run else ""
    started = attempt.started.strftime("%Y-%m-%d %H:%M:%S")
    log = [f"  | {line}" for line in attempt.log.splitlines() if not line.startswith("::")]
    error = [f"  ! {line}" for line in attempt.error.splitlines()]
    return [f"{name}, try {attempt.try_number}, {started} UTC: {attempt.state}", *log, *error]


def _end(outcome: Outcome) -> list[str]:
    states = [f"  {name}: {state}" for name, state in outcome.task_states.items()]
    return [f"The run ends: {outcome.run_state}", *states]


def _difference(difference: Difference) -> list[str]:
    return [
        f"{difference.output}: {difference.summary}",
        *_side("clean run", difference.clean),
        *_side("after the rerun", difference.rerun),
    ]


def _side(title: str, excerpt: str | None) -> list[str]:
    lines = ["(not there)"] if excerpt is None else excerpt.splitlines()
    return [f"  {title}:", *(f"    {line}" for line in lines)]
