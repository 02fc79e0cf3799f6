"""Which crash points are tried first, of recordings made by hand."""

from __future__ import annotations

import pytest
from test_points import append, change, file, loop, recording

from pytest_rerunsafe.explore.points import crash_points, explore
from pytest_rerunsafe.explore.promise import is_marker_write, promise
from pytest_rerunsafe.model import Effect, Profile, Recording


def in_order(run: Recording) -> list[str]:
    """The names of the points, the most promising first."""
    points = crash_points(run, 0)
    keys = promise(run, points)
    return [
        points[number].name
        for number in sorted(range(len(points)), key=lambda number: (keys[number], number))
    ]


def test_what_stands_next_to_a_rename_comes_first() -> None:
    run = recording(
        change("create", "/a.tmp", file(), 1),
        append("/a.tmp", 0, b"x", 2),
        append("/a.tmp", 1, b"x", 3),
        append("/a.tmp", 2, b"x", 4),
        change("rename", "/a", file(b"xxx"), 5),
        append("/b", 9, b"x", 6),
        append("/b", 10, b"x", 7),
    )
    assert in_order(run) == [
        "t@write:/a.tmp#3",
        "t@rename:/a#1",
        "t@state:running#1",
        "t@create:/a.tmp#1",
        "t@write:/a.tmp#1",
        "t@write:/a.tmp#2",
        "t@write:/b#1",
        "t@write:/b#2",
    ]


@pytest.mark.parametrize(
    "path", ["/d/_SUCCESS", "/d/load.done", "/d/checkpoint.json", "/d/last_offset", "/d/.lock"]
)
def test_a_marker_by_its_name_comes_before_other_files(path: str) -> None:
    run = recording(
        change("create", "/d/data", file(), 1), append("/d/data", 0, b"x"), change("create", path, file(), 3)
    )
    assert in_order(run)[:2] == ["t@write:/d/data#1", f"t@create:{path}#1"]


@pytest.mark.parametrize("path", ["/d/abandoned.csv", "/d/books", "/d/estate.csv"])
def test_part_of_a_word_makes_no_marker(path: str) -> None:
    run = recording(
        change("create", "/d/data", file(), 1), append("/d/data", 0, b"x"), change("create", path, file(), 3)
    )
    assert in_order(run)[0] == "t@state:running#1"


def test_of_alike_points_the_ends_come_first() -> None:
    run = recording(*(append("/o", n, b"x") for n in range(1, 11)))
    assert in_order(run) == [
        f"t@{name}"
        for name in (
            "state:running#1",
            "write:/o#1",
            "write:/o#10",
            "write:/o#2",
            "write:/o#5",
            "write:/o#3",
            "write:/o#4",
            "write:/o#6",
            "write:/o#7",
            "write:/o#8",
            "write:/o#9",
        )
    ]


def test_every_point_has_its_place() -> None:
    run = loop(500)
    assert sorted(in_order(run)) == sorted(point.name for point in crash_points(run, 0))


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (change("create", "/o", file()), True),
        (change("unlink", "/o", None), True),
        (append("/o", 0, b"small"), True),
        (append("/o", 0, b"x" * 10_000), False),
        (append("/o", 5, b"added"), False),
        (change("mkdir", "/d", None), False),
        (Effect(kind="variable", target="v"), True),
        (Effect(kind="state", target="running"), False),
    ],
)
def test_marker_writes(effect: Effect, expected: bool) -> None:
    assert is_marker_write(effect) is expected


def test_fast_takes_the_last_marker_write_of_alike_ones_and_what_stands_before_it() -> None:
    checkpoints = [
        effect
        for n in range(1, 20)
        for effect in (
            append("/o", n, b"x", 1),
            change("truncate", "/c", file(), 2),
            append("/c", 0, b"%d" % n, 3),
        )
    ]
    chosen = [
        s.point.name
        for s in explore(
            recording(change("create", "/o", file(b"x"), 9), *checkpoints), 0, Profile.FAST
        ).states
    ]
    assert chosen[:2] == ["t@state:running#1", "t@create:/o#1"]
    assert chosen[2:] == ["t@write:/o#19", "t@truncate:/c#19", "t@write:/c#19"]
