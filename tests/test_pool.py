"""Which worker does which job, and when; here jobs are functions, and any forked process can do them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest

from pytest_rerunsafe.explore import pool as module
from pytest_rerunsafe.explore.channel import Channel, Closed
from pytest_rerunsafe.explore.messages import Cut, Done, Lost
from pytest_rerunsafe.explore.pool import NotYet, Pool
from pytest_rerunsafe.explore.zygote import Zygote

FOR_EVER_S = 3600.0


class Forks:
    """Does what the zygote does, without Airflow."""

    def spawn(self) -> tuple[int, Channel]:
        ours, theirs = Channel.pair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(theirs)
        theirs.close()
        return pid, ours

    def wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _serve(channel: Channel) -> NoReturn:
    try:
        while True:
            function, *arguments = channel.receive()
            channel.send(Done((os.getpid(), function(*arguments))))
    except Closed:
        os._exit(0)
    finally:
        os._exit(1)


@pytest.fixture
def pool_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Pool]]:
    monkeypatch.setattr(module, "SILENCE_S", 20.0)
    made: list[Pool] = []

    def make(size: int) -> Pool:
        made.append(Pool(cast("Zygote", Forks()), size))
        return made[-1]

    yield make
    for each in made:
        each.close()


def results(answers: list[Any]) -> list[Any]:
    return [answer.result[1] for answer in answers]


def pids(answers: list[Any]) -> set[int]:
    return {answer.result[0] for answer in answers}


def jobs(*calls: Any) -> Any:
    return list(calls)


def touch(path: Path) -> None:
    path.touch()


def wait_for(path: Path) -> None:
    while not path.exists():
        os.sched_yield()


def test_answers_come_in_the_order_of_the_jobs(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(2)
    asked = jobs((wait_for, tmp_path / "third"), (abs, -2), (touch, tmp_path / "third"), (abs, -4))
    assert results(pool.run("a", asked)) == [None, 2, None, 4]


def begun(pool: Pool, file: str, asked: Any) -> Any:
    """The answers to what is asked ahead; none if they are not there yet."""
    try:
        return results(pool.begin(file, asked))
    except NotYet as waits:
        return None if not waits.is_over else "given up"


def test_what_is_begun_is_done_while_somebody_waits_for_other_jobs(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(2)
    first, second = jobs((wait_for, tmp_path / "begun")), jobs((touch, tmp_path / "begun"), (abs, -2))
    asked: list[Any] = []
    pool.run("a", first, others={"b"}, meanwhile=lambda: asked.append(begun(pool, "b", second)))
    assert asked[0] is None
    (tmp_path / "begun").unlink()
    assert results(pool.run("b", second)) == [None, 2]
    assert not (tmp_path / "begun").exists(), "what was done ahead is not done again"


def test_what_was_begun_can_be_asked_for_until_somebody_waits_for_it(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(2)
    first, second, asked = jobs((wait_for, tmp_path / "enough")), jobs((abs, -2)), list[Any]()

    def meanwhile() -> None:
        asked[:] = [begun(pool, "b", second), begun(pool, "b", second)]
        if all(asked):
            (tmp_path / "enough").touch()

    pool.run("a", first, others={"b"}, meanwhile=meanwhile)
    assert asked == [[2], [2]]
    spent_s = pool.take_spent()
    assert spent_s.keys() == {"a", "b"}
    assert min(spent_s.values()) > 0
    assert pool.take_spent() == {}


def test_each_file_has_one_worker_as_long_as_others_wait(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(2)
    first = jobs(*[(abs, -1)] * 3, (wait_for, tmp_path / "end"))
    second = jobs(*[(abs, -2)] * 3, (touch, tmp_path / "end"))
    ours = pool.run("a", first, others={"b"}, meanwhile=lambda: begun(pool, "b", second))
    assert len(pids(ours)) == 1
    assert len(pids(pool.run("b", second))) == 1


def test_a_worker_is_for_one_file(pool_of: Any) -> None:
    pool = pool_of(2)
    first, second = jobs((abs, -1), (abs, -2)), jobs((abs, -3), (abs, -4))
    ours = pids(pool.run("a", first, others={"b"}, meanwhile=lambda: begun(pool, "b", second)))
    theirs = pids(pool.run("b", second, others={"c"}, meanwhile=lambda: begun(pool, "c", first)))
    others = pids(pool.run("c", first))
    assert len(ours | theirs | others) == len(ours) + len(theirs) + len(others)


def test_what_was_begun_and_is_not_wanted_is_in_nobodys_way(pool_of: Any) -> None:
    pool = pool_of(2)
    endless = jobs((time.sleep, FOR_EVER_S), (time.sleep, FOR_EVER_S))
    waits: list[NotYet] = []

    def meanwhile() -> None:
        try:
            pool.begin("b", endless)
        except NotYet as not_yet:
            waits.append(not_yet)

    pool.run("a", jobs((abs, -1)), others={"b"}, meanwhile=meanwhile)
    assert not waits[0].is_over
    assert results(pool.run("c", jobs((abs, -2), (abs, -3)))) == [2, 3]
    assert waits[0].is_over


def test_what_is_not_done_when_the_time_is_up_is_cut_off(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(1)
    seconds = iter([1.0, 1.0, 0.0])
    endless = (wait_for, tmp_path / "never")
    done, busy, waiting = pool.run("a", jobs((abs, -1), endless, (abs, -3)), left=lambda: next(seconds))
    assert results([done]) == [1]
    assert busy == waiting == Cut()
    assert results(pool.run("a", jobs((abs, -4)))) == [4]


def test_without_time_nothing_is_begun(pool_of: Any, tmp_path: Path) -> None:
    pool = pool_of(2)
    assert pool.run("a", jobs((touch, tmp_path / "begun")), left=lambda: -1.0) == [Cut()]
    assert not (tmp_path / "begun").exists()


def test_the_death_of_a_worker_ahead_is_told_to_who_asks(pool_of: Any) -> None:
    pool = pool_of(2)
    deadly = jobs((os._exit, 7), (abs, -2))
    slow = jobs(*[(abs, -1)] * 20)
    pool.run("a", slow, others={"b"}, meanwhile=lambda: begun_or_lost(pool, deadly))
    lost, alive = pool.run("b", deadly)
    assert isinstance(lost, Lost)
    assert "exit code 7" in lost.obstacle.what
    assert results([alive]) == [2]


def begun_or_lost(pool: Pool, asked: Any) -> None:
    with suppress(NotYet):
        pool.begin("b", asked)


def compute(seconds: float) -> str:
    """Use up so much processor time, however long that takes."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return "computed"


def test_who_computes_is_not_taken_for_one_who_waits(
    pool_of: Callable[[int], Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 1.0)
    pool = pool_of(1)
    assert results(pool.run("a", jobs((compute, 1.5)))) == ["computed"]
    (waits,) = pool.run("a", jobs((time.sleep, FOR_EVER_S)))
    assert isinstance(waits, Lost)
    assert "waits for something that does not come" in waits.obstacle.what
