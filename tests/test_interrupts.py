"""An interrupt comes where a signal's handler would be called: between two steps of somebody's code."""

from __future__ import annotations

import io
import sys

import pytest

from pytest_rerunsafe.world import interrupts
from pytest_rerunsafe.world.interrupts import forget_interrupt, interrupt


class Interrupted(BaseException):
    """What the interrupt raises."""


def fail() -> None:
    raise Interrupted


class Raw(io.RawIOBase):
    """A file that interrupts whoever wrote to it."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.written += bytes(data)  # type: ignore[call-overload]
        interrupt(fail)
        return len(memoryview(data))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def raw_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of this file count as those of somebody else's code, but for `Raw.write`."""
    monkeypatch.setattr(
        interrupts, "_is_ours", lambda frame: frame is not None and frame.f_code is Raw.write.__code__
    )


def test_a_write_through_a_buffer_is_done_when_its_writer_is_interrupted() -> None:
    raw = Raw()
    file = io.BufferedWriter(raw, 16)
    with pytest.raises(Interrupted):
        file.write(b"x" * 40)
    file.write(b"y")
    with pytest.raises(Interrupted):
        file.flush()
    assert raw.written == b"x" * 40 + b"y"


def test_it_comes_before_the_next_call_of_somebodys_code() -> None:
    raw, seen = Raw(), []

    def somebody() -> None:
        raw.write(b"x")
        seen.append(1)

    with pytest.raises(Interrupted):
        somebody()
    assert (raw.written, seen) == (b"x", [])


def test_it_comes_once() -> None:
    raw = Raw()
    with pytest.raises(Interrupted):
        io.BufferedWriter(raw, 1).write(b"xx")
    assert len(raw.written) == 2


def test_somebodys_profiler_is_left_alone() -> None:
    def profiler(*_: object) -> None:
        """Looks on."""

    before = sys.getprofile()
    sys.setprofile(profiler)
    try:
        forget_interrupt()
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(before)
