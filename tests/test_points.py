"""Crash points and states of recordings made by hand: no Airflow, no processes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.explore.fold import TEAR, Fold, torn
from pytest_rerunsafe.explore.points import crash_points, explore
from pytest_rerunsafe.explore.scenarios import Trial
from pytest_rerunsafe.model import (
    Attempt,
    CrashKind,
    CrashPoint,
    CrashState,
    Effect,
    FileChange,
    Location,
    Node,
    NodeKind,
    Outcome,
    Profile,
    Recording,
    RecoveryKind,
    Scenario,
    Splice,
    WorldState,
)
from pytest_rerunsafe.trials import crash_map

NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)
EMPTY = WorldState(files={}, rows={}, clock=NOW)
RUNNING = Effect(kind="state", target="running", rows=((("task_instance", 1), ("t", "running")),), attempt=0)
SUCCESS = Effect(kind="state", target="success", rows=((("task_instance", 1), ("t", "success")),), attempt=0)


def recording(*effects: Effect) -> Recording:
    attempt = Attempt(
        run=("d", "r"), task_id="t", map_index=-1, try_number=1, started=NOW, state="success", may_retry=False
    )
    outcome = Outcome(run_state="success", task_states={"t": "success"}, attempts=(attempt,), outputs={})
    return Recording(
        initial=EMPTY,
        effects=(RUNNING, *effects, SUCCESS),
        final=EMPTY,
        run=("d", "r"),
        outcome=outcome,
        situations={},
    )


def change(kind: str, path: str, value: Node | Splice | None, line: int = 1) -> Effect:
    files: tuple[FileChange, ...] = ((path, value),)
    return Effect(
        kind=kind,
        target=path,
        files=files,
        attempt=0,
        stack=(Location(file="d.py", line=line, function="f"),),
    )


def file(content: bytes = b"") -> Node:
    return Node(kind=NodeKind.FILE, content=content)


def append(path: str, at: int, data: bytes, line: int = 2) -> Effect:
    return change("write", path, Splice(offset=at, removed=0, data=data), line)


def names(run: Recording) -> list[str]:
    return [point.name for point in crash_points(run, 0)]


def test_points_stand_after_each_effect_and_before_the_end_is_recorded() -> None:
    run = recording(change("create", "/o", file()), append("/o", 0, b"a"), append("/o", 1, b"b"))
    assert names(run) == ["t@state:running#1", "t@create:/o#1", "t@write:/o#1", "t@write:/o#2"]


def test_effects_of_the_scheduler_and_of_other_attempts_are_no_points() -> None:
    other = Effect(kind="create", target="/x", files=(("/x", file()),), attempt=1)
    schedule = Effect(kind="schedule", target="", rows=((("dag_run", 1), ("running",)),))
    assert names(recording(other, schedule)) == ["t@state:running#1"]


def attempts(*indexes: int) -> Recording:
    """A run with attempts of these map indexes, one after the other, that all do the same."""
    one = recording(append("/o", 0, b"a"))
    (attempt,) = one.outcome.attempts
    return replace(
        one,
        effects=tuple(replace(effect, attempt=i) for i in range(len(indexes)) for effect in one.effects),
        outcome=replace(one.outcome, attempts=tuple(replace(attempt, map_index=index) for index in indexes)),
    )


def test_names_of_mapped_task_instances_bear_their_index() -> None:
    found = [[point.name for point in crash_points(attempts(0, 1), i)] for i in range(2)]
    assert found == [["t[0]@state:running#1", "t[0]@write:/o#1"], ["t[1]@state:running#1", "t[1]@write:/o#1"]]


def test_numbers_go_on_from_attempt_to_attempt_of_a_task_instance() -> None:
    run = attempts(-1, 3, -1)
    found = [point.name for i in range(3) for point in crash_points(run, i)]
    assert found[:2] == ["t@state:running#1", "t@write:/o#1"]
    assert found[4:] == ["t@state:running#2", "t@write:/o#2"]
    assert [point.attempt for point in crash_points(run, 2)] == [2, 2]
    assert len(set(found)) == 6


def test_a_write_longer_than_a_buffer_tears_in_whole_buffers() -> None:
    data = b"x" * (3 * TEAR)
    run = recording(change("create", "/o", file()), append("/o", 0, data))
    assert names(run)[2:] == ["t@write:/o#1+torn", "t@write:/o#1"]
    halves = {s.point.name: s.world.files["/o"].content for s in explore(run, 0, Profile.THOROUGH).states[2:]}
    assert halves == {"t@write:/o#1+torn": b"x" * TEAR, "t@write:/o#1": data}


def test_a_write_of_one_buffer_does_not_tear() -> None:
    assert torn(append("/o", 0, b"x" * TEAR)) is None


def test_equal_states_are_one_that_bears_the_first_name() -> None:
    run = recording(
        change("create", "/o", file()),
        change("unlink", "/o", None),
        change("create", "/o", file()),
        change("utime", "/o", Node(kind=NodeKind.FILE, mtime=9.0)),
    )
    states = explore(run, 0, Profile.THOROUGH).states
    assert [(s.point.name, s.covers) for s in states] == [("t@state:running#1", 2), ("t@create:/o#1", 3)]


def test_a_row_that_only_people_read_makes_no_other_state() -> None:
    logged = Effect(kind="xcom", target="k", rows=((("log", 7), ("event",)),), attempt=0)
    assert explore(recording(logged), 0, Profile.THOROUGH).distinct == 1


def loop(count: int) -> Recording:
    lines = [append("/o", index, b"x") for index in range(count)]
    return recording(change("create", "/o", file()), *lines)


def test_of_alike_points_the_default_takes_first_second_middle_and_last() -> None:
    chosen = [s.point.name for s in explore(loop(101), 0, Profile.DEFAULT).states]
    assert chosen[2:] == ["t@write:/o#1", "t@write:/o#2", "t@write:/o#51", "t@write:/o#101"]


def test_fast_takes_the_ends_and_what_other_code_may_go_by() -> None:
    chosen = [s.point.name for s in explore(loop(101), 0, Profile.FAST).states]
    assert chosen == ["t@state:running#1", "t@create:/o#1", "t@write:/o#1", "t@write:/o#101"]


def test_thorough_takes_every_distinct_state() -> None:
    found = explore(loop(101), 0, Profile.THOROUGH)
    assert len(found.states) == found.distinct == 103


def test_points_made_by_other_lines_are_not_alike() -> None:
    run = recording(change("create", "/o", file()), *(append("/o", n, b"x", line=n) for n in range(9)))
    assert len(explore(run, 0, Profile.DEFAULT).states) == 11


# --- states against brute force ---------------------------------------------------------------

PATHS = st.sampled_from(["/a", "/b"])


@st.composite
def programs(draw: st.DrawFn) -> list[Effect]:
    """Effects that make sense: writes go into files that are there."""
    files: dict[str, bytes] = {}
    effects: list[Effect] = []
    for _ in range(draw(st.integers(0, 12))):
        path = draw(PATHS)
        if path in files and draw(st.booleans()):
            offset = draw(st.integers(0, len(files[path])))
            removed = draw(st.integers(0, len(files[path]) - offset))
            data = draw(st.sampled_from([b"", b"x", b"yy" * 3000, b"z" * 9000]))
            files[path] = files[path][:offset] + data + files[path][offset + removed :]
            effects.append(change("write", path, Splice(offset=offset, removed=removed, data=data)))
        elif path in files and draw(st.booleans()):
            del files[path]
            effects.append(change("unlink", path, None))
        else:
            files[path] = b""
            effects.append(change("create", path, file()))
    return effects


@given(programs())
def test_states_are_those_of_brute_force(effects: list[Effect]) -> None:
    run = recording(*effects)
    expected: dict[object, str] = {}
    for point in crash_points(run, 0):
        fold = Fold({}, {})
        for effect in run.effects[: point.effect]:
            fold.apply(effect)
        last = run.effects[point.effect]
        fold.apply((torn(last) or last) if point.is_torn else last)
        expected.setdefault(frozenset(fold.files.items()), point.name)
    states = explore(run, 0, Profile.THOROUGH).states
    found = {frozenset(s.world.files.items()): s.point.name for s in states}
    assert found == expected
    assert len(states) == len(expected)
    assert sum(s.covers for s in states) == len(crash_points(run, 0))


def test_a_crash_map_has_a_sign_per_state() -> None:
    def trials(attempt: int, *numbers: int) -> list[Trial]:
        made = []
        for number in numbers:
            point = CrashPoint(name=f"t@{attempt}#{number}", attempt=attempt, effect=number)
            state = CrashState(point=point, world=EMPTY, covers=1, number=number)
            for recovery in (RecoveryKind.RETRY, RecoveryKind.CLEAR_RUN):
                scenario = Scenario(
                    dag_id="d",
                    task_id="t",
                    map_index=-1,
                    crash_point=point.name,
                    crash_kind=CrashKind.KILL,
                    recovery=recovery,
                )
                made.append(Trial(scenario=scenario, world=EMPTY, state=state))
        return made

    first, second = trials(0, 0, 1, 2, 5, 99), trials(1, 0)
    scenarios = [trial.scenario for trial in first + second]
    bad, unknown = {scenarios[3]}, {scenarios[5]}
    fine = set(scenarios) - unknown
    assert crash_map([*first, *second], bad=bad, fine=fine) == ".X?--.-...-. ."
    assert crash_map([], bad=set(), fine=set()) == ""
    # What else befalls the task at a state is of that state.
    at_first = [
        replace(
            trial,
            scenario=replace(trial.scenario, crash_kind=CrashKind.ERROR),
            state=replace(trial.state) if trial.state else None,
        )
        for trial in first[:2]
    ]
    fine |= {trial.scenario for trial in at_first}
    assert crash_map([*first[:2], *at_first, *first[2:]], bad=bad, fine=fine) == ".X?--.-...-."
