"""Randomness as a function of the seed."""

from __future__ import annotations

import os
import random
import secrets
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.world.entropy import Entropy


@pytest.fixture
def entropy() -> Iterator[Entropy]:
    with Entropy.start("first") as running:
        yield running


def candidate() -> str:
    """A temporary name; `tempfile.mktemp` warns, `mkstemp` makes the file."""
    return next(tempfile._get_candidate_names())  # type: ignore[attr-defined, no-any-return]


SOURCES: dict[str, Callable[[], object]] = {
    "random.random": random.random,
    "random.sample": lambda: random.sample(range(1000), 10),
    "Random()": lambda: random.Random().random(),
    "SystemRandom": lambda: random.SystemRandom().random(),
    "os.urandom": lambda: os.urandom(16),
    "secrets.token_hex": secrets.token_hex,
    "secrets.randbelow": lambda: secrets.randbelow(10**9),
    "uuid4": uuid.uuid4,
    "tempfile": candidate,
}
if hasattr(os, "getrandom"):
    SOURCES["os.getrandom"] = lambda: os.getrandom(16)


@pytest.mark.parametrize("name", SOURCES)
def test_the_seed_decides_alone(entropy: Entropy, name: str) -> None:
    draw = SOURCES[name]
    entropy.seed(1)
    first = [draw() for _ in range(3)]
    for other in SOURCES.values():
        other()
    entropy.seed(2)
    assert [draw() for _ in range(3)] != first
    entropy.seed(1)
    assert [draw() for _ in range(3)] == first
    assert len(set(map(str, first))) == 3


@given(st.one_of(st.integers(), st.text()), st.one_of(st.integers(), st.text()))
def test_different_seeds_differ_and_equal_ones_agree(one: int | str, other: int | str) -> None:
    def everything(seed: int | str) -> list[object]:
        with Entropy.start(seed):
            return [draw() for draw in SOURCES.values()]

    assert everything(one) == everything(one)
    if (type(one), one) != (type(other), other):
        assert everything(one) != everything(other)


def test_a_number_and_its_text_are_different_seeds(entropy: Entropy) -> None:
    entropy.seed(1)
    number = os.urandom(8)
    entropy.seed("1")
    assert os.urandom(8) != number


def test_uuid1_depends_on_seed_and_clock_alone(entropy: Entropy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    entropy.seed(1)
    first = [uuid.uuid1(), uuid.uuid1()]
    entropy.seed(1)
    assert [uuid.uuid1(), uuid.uuid1()] == first
    assert first[0] != first[1]
    assert f"{first[0].node:012x}" == "020000000001"
    assert uuid.getnode() == first[0].node


@pytest.mark.parametrize("name", ["uuid6", "uuid7"])
def test_the_uuid6_package_too(entropy: Entropy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make = getattr(pytest.importorskip("uuid6"), name)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    entropy.seed(1)
    first = [make(), make()]
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000_000_000)
    make()
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    entropy.seed(1)
    assert [make(), make()] == first


def test_generators_that_outlive_an_attempt_begin_anew(entropy: Entropy) -> None:
    kept = random.Random()
    entropy.seed(1)
    first = kept.random()
    kept.random()
    entropy.seed(1)
    assert kept.random() == first


def test_generators_with_a_seed_of_their_own_are_left_alone(entropy: Entropy) -> None:
    own, twin = random.Random(5), random.Random(5)
    own.random()
    twin.random()
    entropy.seed(1)
    assert own.random() == twin.random()


def test_numpy_is_seeded_if_it_is_there(entropy: Entropy, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setitem(sys.modules, "numpy.random", SimpleNamespace(seed=seeds.append))
    for seed in (1, 2, 1):
        entropy.seed(seed)
    assert seeds[0] == seeds[2] != seeds[1]
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_numpy_is_never_imported(entropy: Entropy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "numpy"]:
        monkeypatch.delitem(sys.modules, name)
    entropy.seed(1)
    assert "numpy" not in sys.modules


def test_urandom_refuses_what_the_real_one_refuses(entropy: Entropy) -> None:
    assert os.urandom(0) == b""
    with pytest.raises(ValueError, match="negative"):
        os.urandom(-1)


def test_stop_brings_the_machine_back() -> None:
    def functions() -> list[Any]:
        return [os.urandom, random._urandom, random.Random.seed, uuid._node]  # type: ignore[attr-defined]

    before = functions()
    entropy = Entropy.start(1)
    assert all(now is not then for now, then in zip(functions(), before, strict=True))
    entropy.stop()
    assert functions() == before
    assert os.urandom(16) != os.urandom(16)


def _of_numpy() -> object:
    return pytest.importorskip("numpy").random.rand()


@pytest.mark.parametrize("draw", [*SOURCES.values(), lambda: random.seed(random.random()), _of_numpy])
def test_a_draw_shows_in_the_position(entropy: Entropy, draw: Callable[[], object]) -> None:
    draw()  # of some generators the first draw changes more than the others
    before = entropy.position()
    assert entropy.position() == before
    draw()
    assert entropy.position() != before
