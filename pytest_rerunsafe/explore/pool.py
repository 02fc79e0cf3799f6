"""Jobs over workers: results in the order of the jobs, whatever worker did them, and in spite of those that die."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ..model import Obstacle
from .channel import Channel, Closed
from .jobs import Job
from .messages import Alive, Answer, Done, Failed, HitBound, Lost
from .zygote import Zygote

SILENCE_S = 60.0
"""Wall-clock time that a worker may say nothing. Attempts are bounded by processor time; this is for those that wait."""


@dataclass(slots=True)
class _Worker:
    pid: int
    channel: Channel
    job: int | None = None
    exit_code: int | None = None


class Pool:
    """Some workers for the jobs of one DAG file: what it does to a process, no other file's jobs see."""

    def __init__(self, zygote: Zygote, size: int) -> None:
        self._zygote = zygote
        self._size = size
        self._workers: list[_Worker] = []

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """The answers, in the order of the jobs."""
        answers: dict[int, Answer] = {}
        waiting = iter(range(len(jobs)))
        with selectors.DefaultSelector() as selector:
            for worker in self._enough_workers(len(jobs)):
                selector.register(worker.channel, selectors.EVENT_READ, worker)
                self._give(worker, waiting, jobs)
            while len(answers) < len(jobs):
                self._gather(selector, answers, waiting, jobs)
        return [answers[index] for index in range(len(jobs))]

    def _enough_workers(self, wanted: int) -> list[_Worker]:
        while len(self._workers) < min(self._size, wanted):
            self._workers.append(_Worker(*self._zygote.spawn()))
        return self._workers[: min(self._size, wanted)]

    def _give(self, worker: _Worker, waiting: Iterator[int], jobs: Sequence[Job]) -> None:
        worker.job = next(waiting, None)
        if worker.job is not None:
            with suppress(Closed):  # it has died: that is heard next
                worker.channel.send(jobs[worker.job])

    def _gather(
        self,
        selector: selectors.BaseSelector,
        answers: dict[int, Answer],
        waiting: Iterator[int],
        jobs: Sequence[Job],
    ) -> None:
        ready = selector.select(SILENCE_S)
        silent = (
            [key.data for key in selector.get_map().values() if key.data.job is not None] if not ready else []
        )
        for worker in silent:
            answers[worker.job] = Lost(_SILENT)
            self._replace(worker, selector, waiting, jobs)
        for key, _ in ready:
            worker = key.data
            answer = self._hear(worker)
            if answer is None:
                continue
            answers[worker.job] = answer
            if isinstance(answer, Lost) or (isinstance(answer, Done) and answer.is_last):
                self._replace(worker, selector, waiting, jobs)
            else:
                self._give(worker, waiting, jobs)

    def _hear(self, worker: _Worker) -> Answer | None:
        """A worker's answer; None if it only says that it is alive."""
        try:
            match worker.channel.receive():
                case Alive():
                    return None
                case HitBound(obstacle):
                    return Lost(obstacle)
                case Done() | Failed() as answer:
                    return answer
                case other:
                    raise AssertionError(other)
        except Closed:
            self._kill(worker)  # it may live on without a connection; one that has died keeps its exit code
            return Lost(_death(self._reap(worker)))

    def _replace(
        self,
        worker: _Worker,
        selector: selectors.BaseSelector,
        waiting: Iterator[int],
        jobs: Sequence[Job],
    ) -> None:
        selector.unregister(worker.channel)
        self._end(worker)
        worker.pid, worker.channel = self._zygote.spawn()
        worker.exit_code = None
        selector.register(worker.channel, selectors.EVENT_READ, worker)
        self._give(worker, waiting, jobs)

    def _end(self, worker: _Worker) -> None:
        worker.channel.close()
        self._kill(worker)
        self._reap(worker)

    def _kill(self, worker: _Worker) -> None:
        if worker.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def _reap(self, worker: _Worker) -> int:
        if worker.exit_code is None:
            worker.exit_code = self._zygote.wait(worker.pid)
        return worker.exit_code

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()


_SILENT = Obstacle(
    what=f"the DAG did nothing for {SILENCE_S:.0f} s: it waits for something that does not come",
    where=None,
    remedy="Put in place what it waits for in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
)


def _death(exit_code: int) -> Obstacle:
    how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return Obstacle(
        what=f"the DAG took its worker process down ({how})",
        where=None,
        remedy="Run it on its own to see where it crashes, or `skip` the DAG with a reason.",
    )
