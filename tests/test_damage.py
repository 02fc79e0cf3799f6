"""Which files a crash leaves in the middle of a change, in recordings made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_points import append, change, file, recording

from pytest_rerunsafe.explore.damage import damages, digest
from pytest_rerunsafe.explore.points import explore
from pytest_rerunsafe.model import Attempt, CrashState, Effect, Node, Outcome, Profile, Recording, Splice

PATH = "/c"


def written(content: bytes, was: bytes | None = None) -> list[Effect]:
    """A file opened to be written, and written, where `was` stands."""
    if was is None:
        return [change("create", PATH, file()), append(PATH, 0, content)]
    cut = change("truncate", PATH, Splice(offset=0, removed=len(was), data=b""))
    return [cut, append(PATH, 0, content)]


def replaced(content: bytes) -> list[Effect]:
    return [change("rename", PATH, file(content))]


def states_of(run: Recording) -> dict[bytes | None, CrashState]:
    """The last state with each content of the file."""
    states = explore(run, 0, Profile.THOROUGH).states
    nodes = [state.world.files.get(PATH) for state in states]
    return {None if node is None else node.content: state for node, state in zip(nodes, states, strict=True)}


def rerun(run: Recording, read: bytes) -> Outcome:
    attempt = replace(run.outcome.attempts[0], first_reads={PATH: digest(read)})
    return Outcome(run_state="failed", task_states={}, attempts=(attempt,), outputs={})


def contents(states: tuple[CrashState, ...]) -> list[bytes | None]:
    nodes: list[Node | None] = [state.world.files.get(PATH) for state in states]
    return [None if node is None else node.content for node in nodes]


LONG, LONGER = b'{"a": "' + b"x" * 20_000 + b'"}', b'{"a": "' + b"y" * 30_000 + b'"}'


@pytest.mark.parametrize(
    ("effects", "left", "whole"),
    [
        (written(b"5"), b"", [None, b"5"]),
        ([*replaced(b"5"), *written(b"67", b"5")], b"", [b"5", b"67"]),
        ([*written(LONG), *written(LONGER, LONG)], LONGER[:8192], [LONG, LONGER]),
        ([*written(LONG[:9]), append(PATH, 9, LONG[9:])], LONG[:9], [None, LONG]),
        ([*written(b"1,a\n2,"), append(PATH, 6, b"b\n")], b"1,a\n2,", [None, b"1,a\n2,b\n"]),
        (
            [
                *replaced(b"1000"),
                change("write", PATH, Splice(offset=0, removed=3, data=b"999")),
                change("truncate", PATH, Splice(offset=3, removed=1, data=b"")),
            ],
            b"9990",
            [b"1000", b"999"],
        ),
    ],
)
def test_what_is_left_in_the_middle_of_a_change(
    effects: list[Effect], left: bytes, whole: list[bytes | None]
) -> None:
    run = recording(*effects)
    state = next(
        (s for s in explore(run, 0, Profile.THOROUGH).states[::-1] if contents((s,)) == [left]),
    )
    (damage,) = damages(run, state, rerun(run, left))
    assert (damage.path, damage.left) == (PATH, left)
    assert contents(damage.whole) == whole


@pytest.mark.parametrize(
    "effects",
    [
        [*replaced(b"1"), *replaced(b"12")],
        [*replaced(LONG), *replaced(LONGER)],
        [change("create", PATH, file()), append(PATH, 0, b"a\n"), append(PATH, 2, b"b\n")],
        [*written(b"5"), change("unlink", PATH, None)],
    ],
)
def test_what_may_stand_there_for_long_is_no_damage(effects: list[Effect]) -> None:
    run = recording(*effects)
    for content, state in states_of(run).items():
        if content:
            assert list(damages(run, state, rerun(run, content))) == []


def test_what_nobody_reads_so_is_no_damage() -> None:
    run = recording(*written(b"5"))
    state = states_of(run)[b""]
    assert list(damages(run, state, rerun(run, b"5"))) == []
    nobody = replace(rerun(run, b""), attempts=())
    assert list(damages(run, state, nobody)) == []
    other = tuple(replace(a, task_id="other") for a in rerun(run, b"").attempts)
    assert list(damages(run, state, replace(nobody, attempts=other))) == []


def test_what_the_second_attempt_reads_the_first_has_had_the_time_to_mend() -> None:
    run = recording(*written(b"5"))
    first: Attempt = replace(run.outcome.attempts[0], first_reads={})
    later = rerun(run, b"").attempts
    outcome = replace(rerun(run, b""), attempts=(first, *later))
    assert list(damages(run, states_of(run)[b""], outcome)) == []
