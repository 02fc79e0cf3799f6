"""Jobs over workers: results in the order of the jobs, whatever worker did them, and in spite of those that die."""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..model import Obstacle
from .channel import Channel, Closed
from .jobs import Job
from .messages import Alive, Answer, Cut, Done, Failed, HitBound, Lost
from .zygote import Zygote, ZygoteError

SILENCE_S = 60.0
"""Wall-clock time that a worker may say nothing. Attempts are bounded by processor time; this is for those that wait."""
COMPUTES = 0.01
"""Part of that time for which a worker must have had a processor to be at work: on a busy machine it gets little."""


@dataclass(slots=True, eq=False)
class _Batch:
    """Jobs of one DAG file that are asked for together."""

    file: str
    jobs: Sequence[Job]
    answers: dict[int, Answer] = field(default_factory=dict)
    given: int = 0
    """How many of the jobs a worker has been given."""
    is_given_up: bool = False

    @property
    def is_waiting(self) -> bool:
        return self.given < len(self.jobs)

    @property
    def is_done(self) -> bool:
        return len(self.answers) == len(self.jobs)

    def in_order(self) -> list[Answer]:
        return [self.answers[index] for index in range(len(self.jobs))]


class NotYet(Exception):
    """Answers that are still being worked on."""

    def __init__(self, batch: _Batch) -> None:
        super().__init__()
        self._batch = batch

    @property
    def is_over(self) -> bool:
        """Whether nobody works on them any more."""
        return self._batch.is_done or self._batch.is_given_up


@dataclass(slots=True, eq=False)
class _Worker:
    file: str
    pid: int
    channel: Channel
    batch: _Batch | None = None
    """What it works on."""
    job: int = 0
    since: float = 0.0
    """When it was given that."""
    exit_code: int | None = None
    hash_seed: int | None = None
    """Of the interpreter that it was forked from; None: the usual one."""
    computed_s: float = 0.0
    """Processor time that it had taken when somebody last looked."""

    def has_computed(self) -> bool:
        """Whether it has been at work since the last look, where the operating system tells."""
        before, self.computed_s = self.computed_s, _processor_time_s(self.pid)
        return self.computed_s - before >= SILENCE_S * COMPUTES


class Pool:
    """Workers for jobs, each for those of one DAG file only: what that does to a process, no other file's jobs see.

    A file has one worker as long as others wait too: what one worker knows of its DAGs, another would find out again.
    """

    def __init__(self, zygote: Zygote, size: int, other: Callable[[int], Zygote] | None = None) -> None:
        self._zygote = zygote
        self._other = other
        """Gives the interpreter with a hash seed."""
        self.size = size
        """How many work at a time."""
        self._workers: list[_Worker] = []
        self._killed: list[_Worker] = []
        """Those that nobody has waited for yet."""
        self._batches: list[_Batch] = []
        """The most urgent first."""
        self._spent_s: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()

    def run(
        self,
        file: str,
        jobs: Sequence[Job],
        *,
        others: Collection[str] = (),
        left: Callable[[], float] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Answer]:
        """The answers, in the order of the jobs.

        What was begun of `others` goes on, of any other file it is given up. `left` tells how many seconds are left:
        when none are, what is not done is cut off. `meanwhile` is called whenever some worker has said something.
        """
        self._keep({file, *others})
        batch = self._begun(file, jobs) or _Batch(file, jobs)
        self._batches = [batch, *(other for other in self._batches if other is not batch)]
        while not batch.is_done:
            patience_s = SILENCE_S if left is None else min(SILENCE_S, left())
            if patience_s <= 0:
                self._cut(batch)
                break
            meanwhile()
            self._hand_out(self.size)
            self._gather(patience_s)
        self._batches.remove(batch)
        self._hand_out(self.size - 1)  # who has asked will ask again
        return batch.in_order()

    def begin(self, file: str, jobs: Sequence[Job]) -> list[Answer]:
        """As `run`, of what will be asked for later: done while somebody waits for other jobs. Raises `NotYet`."""
        batch = self._begun(file, jobs)
        if batch is None:
            batch = _Batch(file, jobs)
            self._batches.append(batch)
        if not batch.is_done:
            raise NotYet(batch)
        return batch.in_order()

    def take_spent(self) -> dict[str, float]:
        """The seconds that workers spent on jobs of each file, since this was last asked."""
        spent_s, self._spent_s = self._spent_s, {}
        return spent_s

    def _begun(self, file: str, jobs: Sequence[Job]) -> _Batch | None:
        return next((each for each in self._batches if each.file == file and each.jobs == jobs), None)

    def _keep(self, files: Collection[str]) -> None:
        """Give up whatever is done for other files."""
        for batch in self._batches:
            batch.is_given_up = batch.file not in files
        self._batches = [batch for batch in self._batches if not batch.is_given_up]
        self._reap_killed()
        for worker in [*self._workers]:
            # One of no file looks for files: those that have come since it was forked, it would not see.
            is_stale = worker.file == "" and worker.batch is None
            if is_stale or worker.file not in files or worker.batch not in (None, *self._batches):
                self._end(worker)

    def _hand_out(self, most: int) -> None:
        """Give what waits to workers that are free, to so many in all: first to those files that have the fewest."""
        while len(busy := self._busy()) < most:
            workers = Counter(worker.file for worker in busy)
            waiting = [batch for batch in self._batches if batch.is_waiting]
            if not waiting:
                return
            batch = min(waiting, key=lambda each: workers[each.file])
            seed: int | None = getattr(batch.jobs[batch.given], "hash_seed", None)
            try:
                worker = self._free_worker(batch.file, seed)
            except ZygoteError as error:
                batch.answers[batch.given] = Failed(str(error))
                batch.given += 1
            else:
                self._give(worker, batch)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.batch is not None]

    def _free_worker(self, file: str, hash_seed: int | None) -> _Worker:
        for worker in self._workers:
            if worker.file == file and worker.hash_seed == hash_seed and worker.batch is None:
                return worker
        worker = _Worker(file, *self._zygote_of(hash_seed).spawn(), hash_seed=hash_seed)
        self._workers.append(worker)
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _zygote_of(self, hash_seed: int | None) -> Zygote:
        return self._zygote if hash_seed is None or self._other is None else self._other(hash_seed)

    def _give(self, worker: _Worker, batch: _Batch) -> None:
        worker.batch, worker.job, worker.since = batch, batch.given, time.perf_counter()
        batch.given += 1
        with suppress(Closed):  # it has died: that is heard next
            worker.channel.send(batch.jobs[worker.job])

    def _cut(self, batch: _Batch) -> None:
        """End those who work on it; what they have not done, nobody does."""
        for worker in [*self._workers]:
            if worker.batch is batch:
                self._end(worker)
        batch.given = len(batch.jobs)
        batch.answers = {index: batch.answers.get(index, Cut()) for index in range(batch.given)}

    def _gather(self, patience_s: float) -> None:
        """Wait until some worker says something, or for so many seconds."""
        ready = self._selector.select(patience_s)
        if not ready and patience_s >= SILENCE_S:
            for worker in self._busy():
                if not worker.has_computed():
                    self._take(worker, Lost(_SILENT))
        for key, _ in ready:
            heard: _Worker = key.data
            heard.has_computed()  # the next look counts from here
            answer = self._hear(heard)
            if answer is not None:
                self._take(heard, answer)

    def _take(self, worker: _Worker, answer: Answer) -> None:
        if worker.batch is not None:
            took_s = time.perf_counter() - worker.since
            self._spent_s[worker.file] = self._spent_s.get(worker.file, 0.0) + took_s
            worker.batch.answers[worker.job] = answer
            worker.batch = None
        if isinstance(answer, Lost) or (isinstance(answer, Done) and answer.is_last):
            self._end(worker)

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

    def _end(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)
        worker.channel.close()
        self._kill(worker)
        self._killed.append(worker)  # it takes a while to go: nobody needs to wait for that now

    def _kill(self, worker: _Worker) -> None:
        if worker.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def _reap(self, worker: _Worker) -> int:
        if worker.exit_code is None:
            worker.exit_code = self._zygote_of(worker.hash_seed).wait(worker.pid)
        return worker.exit_code

    def _reap_killed(self) -> None:
        for worker in self._killed:
            self._reap(worker)
        self._killed.clear()

    def close(self) -> None:
        """End the workers."""
        for worker in [*self._workers]:
            self._end(worker)
        self._reap_killed()
        self._selector.close()


def _processor_time_s(pid: int) -> float:
    """Seconds that a process has computed, as proc(5) has it; 0 where there is no such file."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
