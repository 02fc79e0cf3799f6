"""Runs attempts of tasks, as workers' processes do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ..airflow import attempts, sensors
from ..airflow.answers import Answers
from ..airflow.queries import QueuedTask
from ..airflow.scheduling import NoSuchRun
from ..model import Attempt, CrashKind, WorldState
from ..world.guard import ProcessExited
from ..world.process import capture_output
from .dag_processor import DagProcessor
from .jobs import BEGINS_S
from .journal import OpenAttempt, Watcher
from .memo import Memo
from .obstacles import misses_dag, no_run_at, waits_in_vain
from .parsed import Parsed
from .sandbox import LOG_BYTES, Sandbox
from .sources import Executed
from .waits import EXACT_POKES, Allowance, TakenBack, stretched

GIVEN_UP = "given up"
"""What becomes of an attempt whose worker was taken for dead, whatever it says of its end."""


class Attempts:
    """Attempts in a world, one after the other."""

    def __init__(self, sandbox: Sandbox, dag_processor: DagProcessor) -> None:
        self._sandbox = sandbox
        self._dag_processor = dag_processor
        self._memo = Memo(sandbox.files, sandbox.metadata, sandbox.clock)
        self.on_start: Callable[[], None] = lambda: None
        """Called at the start of each attempt."""

    def run(
        self,
        task: QueuedTask,
        load: Callable[[], Any],
        keeps_log: bool,
        counts_lines: bool,
        may_repeat: bool,
        allowance: Allowance,
        watcher: Watcher | None = None,
        parsed: Parsed | None = None,
    ) -> TakenBack | None:
        """Run one attempt of a queued task, from the start that Airflow grants to the end that it records.

        With `may_repeat` one that is known to go as one that ran before is not run again; one that is watched always is. A
        sensor that finds nothing is taken back, if it may poke no longer and has done nothing but poke. Of a file that is
        `parsed` already the process has the bag as if it had just been loaded.
        """
        self.on_start()
        may_repeat = may_repeat and watcher is None
        before, effects = self._sandbox.world(), len(self._sandbox.journal.effects)
        self._sandbox.clock.advance(BEGINS_S)
        seed = self._seed_of(task)
        self._sandbox.entropy.seed(seed)
        journal = self._sandbox.journal
        journal.current = opened = OpenAttempt(
            run=task.run,
            task_id=task.task_id,
            map_index=task.map_index,
            try_number=task.try_number,
            started=self._sandbox.clock.now,
            operator=self._sandbox.scheduler.dag(task.run[0]).get_task(task.task_id).task_type,
            watcher=watcher,
        )
        answers = Answers(
            task.id,
            self._sandbox.ask,
            on_effect=journal.metadata_changed,
            on_coming=journal.coming,
            is_stale=self._sandbox.is_stale,
            on_unanswered=self._sandbox.unanswered,
            is_opaque=lambda: opened.is_opaque,
            expect_runs=partial(self._expect_runs, task),
            on_missing_dag=partial(self._misses_dag, "it triggers the DAG"),
            check_alive=self._sandbox.check_alive,
        )
        attempt = attempts.Attempt(task, answers)
        opened.may_retry = attempt.may_retry
        journal.metadata_changed("state", "running")
        key = (seed, attempt.given)
        ended = self._memo.repeat(key, answers) if may_repeat else None
        if ended is None:
            with ExitStack() as stack:
                watch = stack.enter_context(self._memo.watching(key, answers)) if may_repeat else None
                pokes = stack.enter_context(self._poking(opened, before, allowance))
                if watcher is not None:
                    stack.enter_context(self._sandbox.telling_changes())
                ended = self._run_process(attempt, opened, load, keeps_log, counts_lines, parsed)
            if pokes.taken_back is not None:
                self._take_back(before, effects, pokes)
                return pokes.taken_back
            if pokes.is_hopeless:
                journal.blocked(waits_in_vain(task.task_id))
            cannot_repeat = opened.has_exited or opened.is_opaque or pokes.count
            if watch is not None and ended.exit_code is None and not cannot_repeat:
                self._memo.keep(watch, ended)
        if opened.is_given_up:
            state = GIVEN_UP  # the server knows its task instance by another id
        else:
            state = attempt.end(ended.exit_code or 0, lambda: self._notice_death(task, load))
            journal.metadata_changed("state", state)
        stale = tuple(name for name, is_stale in answers.reads.items() if is_stale)
        journal.attempts.append(
            replace(ended, state=state, xcom_reads=tuple(answers.reads), stale_xcom_reads=stale, seed=seed)
        )
        journal.current = None
        return None

    def _seed_of(self, task: QueuedTask) -> str:
        """Another one for each attempt of a task instance, whatever its try: a rerun draws what a clean run by its seed does."""
        place = "/".join(map(str, (self._sandbox.seed, task.run, task.task_id, task.map_index)))
        earlier = sum(done.seed.startswith(f"{place}#") for done in self._sandbox.journal.attempts)
        return f"{place}#{earlier}"

    def _notice_death(self, task: QueuedTask, load: Callable[[], Any]) -> str:
        self._sandbox.clock.advance(1)
        done = self._sandbox.scheduler.executor_is_done(task.run, task.task_id, task.map_index)
        return self._dag_processor.lost(done, load)

    # --- what it asks for ---------------------------------------------------------------------

    def _expect_runs(self, task: QueuedTask, dag_id: str, dates: Sequence[datetime]) -> None:
        """Make the runs of another DAG that a task asks for: the clock alone makes none here."""
        if dag_id == task.run[0]:
            return
        try:
            if self._sandbox.scheduler.expect_runs(dag_id, dates):
                self._sandbox.journal.scheduler_turned()
        except LookupError:
            self._misses_dag("it waits for the DAG", dag_id)
            raise
        except NoSuchRun as none:
            self._sandbox.journal.blocked(no_run_at(dag_id, none))
            raise

    def _misses_dag(self, what: str, dag_id: str) -> None:
        self._sandbox.journal.blocked(misses_dag(what, dag_id))

    # --- its process --------------------------------------------------------------------------

    def _run_process(
        self,
        attempt: attempts.Attempt,
        opened: OpenAttempt,
        load: Callable[[], Any],
        keeps_log: bool,
        counts_lines: bool,
        parsed: Parsed | None,
    ) -> Attempt:
        """What the process of an attempt leaves; the state is not known yet."""
        if parsed is not None:
            load = partial(self._loaded, parsed)
        with ExitStack() as stack:
            printed = stack.enter_context(capture_output(LOG_BYTES))
            watched = stack.enter_context(self._sandbox.sources.counted_lines()) if counts_lines else Executed
            exit_code, error = self._execute(attempt, load, opened.run[0], attempts.TaskLog(keeps_log))
            executed = watched()
        if parsed is not None and parsed.executed is not None:
            executed = executed.and_then(parsed.executed)
        return Attempt(
            run=opened.run,
            task_id=opened.task_id,
            map_index=opened.map_index,
            try_number=opened.try_number,
            started=opened.started,
            state="",
            may_retry=opened.may_retry,
            exit_code=exit_code,
            executed_lines=executed.lines,
            depends_on_hashes=executed.depends_on_hashes,
            failed_operations=tuple(opened.failed_operations),
            first_reads=opened.first_reads,
            error=self._sandbox.sources.describe(error) if error is not None else "",
            missing_input=attempts.missing_input(error),
            log=printed.getvalue() if keeps_log else "",
            is_opaque=opened.is_opaque,
            heeds=tuple(map(CrashKind, attempt.heeds)),
        )

    def _loaded(self, parsed: Parsed) -> Any:
        """The bag of a file that was parsed before, as if it had been just now."""
        self._sandbox.clock.tick(parsed.looks)
        self._sandbox.files.see_again(parsed.seen)
        return parsed.bag

    def _execute(
        self, attempt: attempts.Attempt, load: Callable[[], Any], dag_id: str, log: attempts.TaskLog
    ) -> tuple[int | None, BaseException | None]:
        """Run the task as its process would; the process's exit code if it ended by itself, and the exception."""
        exit_code: int | None = None
        error: BaseException | None = None
        try:
            with self._sandbox.process():
                error = attempt.execute(load, dag_id, log)
        except ProcessExited as exited:
            exit_code = exited.exit_code
        except attempts.NotLoaded as failed:
            exit_code, error = 1, failed
        except (SystemExit, KeyboardInterrupt) as exited_early:
            exit_code, error = 1, exited_early
        except (
            Exception
        ) as failed_anyhow:  # Airflow's task runner let it through: its process would have died of it
            exit_code, error = 1, failed_anyhow
        # Airflow's task runner takes the end of its process for a failure of the task, if it gets to see it.
        ended = self._sandbox.end_process()
        return (exit_code, error) if ended is None else (ended, None)

    # --- sensors ------------------------------------------------------------------------------

    @contextmanager
    def _poking(self, opened: OpenAttempt, before: WorldState, allowance: Allowance) -> Iterator[_Pokes]:
        """Inside, a sensor pokes as long as it may."""
        pokes = _Pokes()
        first_poke = time.monotonic() if allowance.first_poke is None else allowance.first_poke

        def sleep(seconds: float) -> None:
            wait = stretched(seconds, pokes.count, EXACT_POKES)
            pokes.count += 1
            pokes.is_hopeless = self._sandbox.clock.now >= allowance.hopeless_at
            if pokes.is_hopeless or self._sandbox.clock.now + wait > allowance.until:
                has_effects = opened.has_effects or self._sandbox.files.state != before.files
                if not has_effects:
                    pokes.taken_back = TakenBack(first_poke=first_poke, interval_s=seconds)
                    pokes.obstacles = len(self._sandbox.journal.obstacles)
                if pokes.is_hopeless or not has_effects:
                    raise _PokesNoMore
            self._sandbox.clock.advance(wait.total_seconds())
            pokes.waited += wait

        with sensors.poking(sleep, first_poke):
            yield pokes

    def _take_back(self, before: WorldState, effects: int, pokes: _Pokes) -> None:
        """Undo an attempt, but for the time that it took."""
        journal = self._sandbox.journal
        del journal.effects[effects:], journal.obstacles[pokes.obstacles :]
        journal.current = None
        self._sandbox.put_back(before)
        self._sandbox.clock.move_to(before.clock + timedelta(seconds=BEGINS_S) + pokes.waited)


class _PokesNoMore(BaseException):
    """Ends the process of a sensor that may poke no longer."""


@dataclass(slots=True)
class _Pokes:
    """What became of a sensor's attempt."""

    count: int = 0
    is_hopeless: bool = False
    taken_back: TakenBack | None = None
    waited: timedelta = timedelta()
    obstacles: int = 0
