"""What pytest asks about DAG files, and the processes that the answers come from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .budget import Budget, Left
from .clean import load_error
from .explore.jobs import REFERENCE, ActJob, FindJob, Job, LoadJob, RecordJob
from .explore.messages import Answer, Done
from .explore.pool import NotYet, Pool
from .explore.related import related
from .explore.sources import mentions_sets
from .explore.zygote import Zygote, ZygoteError
from .model import (
    Acted,
    Action,
    CheckResult,
    DagInfo,
    Death,
    LoadedFile,
    Outcome,
    Recording,
    RunKey,
    WorldState,
)
from .settings import Settings
from .study import HASH_SEEDS, START_S, Study, checks_of, near
from .trials import reason_of


class CheckerError(Exception):
    """Nothing can be checked; the message is for the user."""


@dataclass(slots=True)
class _Ahead:
    """Something that will be asked for later."""

    file: str
    do: Callable[[], object]
    """Does it, or raises `NotYet`; then it is to be called again."""
    waits: NotYet | None = None
    is_done: bool = False

    def go_on(self) -> bool:
        """Do what can be done now; whether somebody still works on it."""
        if self.is_done or (self.waits is not None and not self.waits.is_over):
            return not self.is_done
        try:
            self.do()
        except NotYet as waits:
            self.waits = waits
            return True
        except Exception:  # whoever asks for it later is told
            pass
        self.is_done = True
        return False


class Checker:
    """Answers what pytest asks about DAG files. Forks when first used."""

    def __init__(
        self,
        *,
        settings: Settings,
        rootdir: Path,
        prepare: Callable[[str, Any, Any], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._rootdir = rootdir
        self._prepare = prepare
        self._clock = clock
        """What budgets are measured by, in seconds."""
        self._zygote: Zygote | None = None
        self._others: dict[int, Zygote] = {}
        """Interpreters by their hash seeds; none until a DAG needs them."""
        self._pool: Pool | None = None
        self._files: tuple[str, ...] = ()
        """The DAG files that were found last."""
        self._following: tuple[_Ahead, ...] = ()
        """What will be asked for next, as far as that is known."""
        self._begun: dict[tuple[str, str], _Ahead] = {}
        """What was begun of DAGs that nobody has asked for yet."""
        self._ahead_s: dict[str, float] = {}
        """What was waited while they were done, by file."""
        self._is_ahead = False
        """Whether nobody waits for what is asked now."""
        self._results: dict[tuple[str, str, str], CheckResult] = {}
        """Those that nobody has asked for yet."""
        self._studies: dict[tuple[str, str], Study] = {}
        self._projects: dict[str, tuple[LoadedFile, ...]] = {}

    def find_dag_files(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Absolute paths of the DAG files among files and folders, sorted, by Airflow's own rule."""
        answer = self._run("", [FindJob(paths=tuple(os.path.abspath(path) for path in paths))])[0]
        if not isinstance(answer, Done):
            raise CheckerError(reason_of(answer))
        found: tuple[str, ...] = answer.result
        self._files = found
        return found

    def load(self, file: str) -> LoadedFile:
        """The DAGs of a file, or why it has none. Raises `CheckerError` if Airflow cannot be used."""
        others = self._files[self._files.index(file) + 1 :] if file in self._files else ()
        self._following = tuple(
            _Ahead(other, partial(self._run, other, self._load_jobs(other))) for other in others[:1]
        )
        answer = self._run(file, self._load_jobs(file))[0]
        match answer:
            case Done(LoadedFile() as loaded):
                self._get_ready_for(loaded)
                return replace(loaded, error=load_error(loaded.error))
            case _:
                return LoadedFile(file=file, dags=(), error=reason_of(answer))

    def _get_ready_for(self, loaded: LoadedFile) -> None:
        """Let the other interpreters begin to import Airflow if the file's DAGs may need them: that takes seconds."""
        try:
            source = Path(loaded.file).read_text(encoding="utf-8", errors="replace") if loaded.dags else ""
        except OSError:
            return
        if mentions_sets(source):
            self._begin_others()

    def _load_jobs(self, file: str) -> list[Job]:
        return [LoadJob(file=file, folder=self._folder(file))]

    def checks_of(self, dag: DagInfo) -> tuple[str, ...]:
        """The names of a DAG's checks."""
        return checks_of(dag)

    def run(
        self,
        dag: DagInfo,
        check: str,
        expected: Sequence[str] = (),
        following: Sequence[tuple[DagInfo, Sequence[str]]] = (),
    ) -> CheckResult:
        """The outcome of one check.

        `expected` are checks of the DAG that will be asked for too, `following` are the DAGs whose checks will be asked
        for next, with these: all may be begun. The time that is waited is shared out by what was done in it, so that the
        first check of a DAG takes what was done ahead of it too.
        """
        began = time.perf_counter()
        self._begun.pop((dag.file, dag.dag_id), None)
        self._following = tuple(self._ahead_of(*each) for each in following)
        result = self._results.pop((dag.file, dag.dag_id, check), None)
        if result is None:
            result = self._study(dag).result(check, expected)
        return replace(result, duration_s=self._share_out(dag.file, time.perf_counter() - began))

    def _share_out(self, file: str, waited_s: float) -> float:
        """The part of what was waited that a file's checks took, with what they took ahead while others were waited for."""
        spent_s = {} if self._pool is None else self._pool.take_spent()
        whole_s = sum(spent_s.values())
        parts_s = {each: waited_s * part_s / whole_s for each, part_s in spent_s.items() if whole_s}
        took_s = waited_s - sum(part_s for each, part_s in parts_s.items() if each != file)
        for each, part_s in parts_s.items():
            self._ahead_s[each] = self._ahead_s.get(each, 0.0) + (part_s if each != file else 0.0)
        return took_s + self._ahead_s.pop(file, 0.0)

    def _ahead_of(self, dag: DagInfo, checks: Sequence[str]) -> _Ahead:
        key = (dag.file, dag.dag_id)
        if key not in self._begun:
            self._begun[key] = _Ahead(dag.file, partial(self._check_ahead, dag, checks))
        return self._begun[key]

    def _check_ahead(self, dag: DagInfo, checks: Sequence[str]) -> None:
        """Run the checks of a DAG that nobody waits for. Raises `NotYet`."""
        study = self._study(dag)
        if self._budget(dag).is_bounded:  # its time begins when somebody waits
            self._run(dag.file, study.clean_jobs())
            return
        for check in checks:
            key = (dag.file, dag.dag_id, check)
            if key not in self._results:
                self._results[key] = study.result(check, checks)

    def _go_ahead(self) -> None:
        """Go on with what will be asked for next, as far as that goes without waiting, of as many files as can be worked on."""
        assert self._pool is not None, "somebody waits for its workers"
        at_work = 1
        self._is_ahead = True
        try:
            for each in self._following:
                if at_work >= self._pool.size:
                    break
                at_work += each.go_on()
        finally:
            self._is_ahead = False

    def replay(self, scenario_id: str, files: Sequence[str]) -> str:
        """One scenario run again, told in full. Raises `CheckerError` for an id that names none."""
        dag_id = scenario_id.partition(":")[0]
        dags = {dag.dag_id: dag for file in files for dag in self.load(file).dags}
        if dag_id not in dags:
            raise CheckerError(f"--rerun-safety-replay: no DAG {dag_id!r}{near(dag_id, dags)}")
        try:
            return self._study(dags[dag_id]).replay(scenario_id)
        except LookupError as error:
            raise CheckerError(f"--rerun-safety-replay: {error.args[0]}") from None

    def outcome(self, dag: DagInfo, scenario_id: str) -> Outcome:
        """How one scenario ends. Raises `CheckerError`, also for an id that names none."""
        try:
            ended = self._study(dag).outcome(scenario_id)
        except LookupError as error:
            raise CheckerError(error.args[0]) from None
        if not isinstance(ended, Outcome):
            raise CheckerError(reason_of(ended))
        return ended

    def begin(self, dag: DagInfo, intervals: int) -> Recording:
        """A DagRun that has come to its end, of several intervals the first. Raises `CheckerError`."""
        chosen = self._settings.for_dag(dag.dag_id).logical_date
        job = RecordJob(
            dag=dag,
            folder=self._folder(dag.file),
            logical_date=chosen or dag.logical_date,
            delay_s=START_S,
            seed=REFERENCE,
            intervals=intervals,
            related=self._related(dag),
        )
        (answer,) = self._run(dag.file, [job])
        if not isinstance(answer, Done):
            raise CheckerError(reason_of(answer))
        recording: Recording = answer.result
        return recording

    def act(
        self,
        dag: DagInfo,
        run: RunKey,
        world: WorldState,
        action: Action,
        later_s: float,
        *,
        death: Death | None = None,
    ) -> Acted:
        """What comes of what a person does to a DagRun, if need be after a death in that world. Raises `CheckerError`."""
        job = ActJob(
            dag=dag,
            run=run,
            folder=self._folder(dag.file),
            world=world,
            action=action,
            later_s=later_s,
            death=death,
        )
        (answer,) = self._run(dag.file, [job])
        if not isinstance(answer, Done):
            raise CheckerError(reason_of(answer))
        acted: Acted = answer.result
        return acted

    def close(self) -> None:
        """End all processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        for zygote in self._others.values():
            zygote.close()
        self._others.clear()

    def _study(self, dag: DagInfo) -> Study:
        key = (dag.file, dag.dag_id)
        if key not in self._studies:
            self._studies[key] = Study(
                dag=dag,
                settings=self._settings,
                rootdir=self._rootdir,
                folder=self._folder(dag.file),
                related=self._related(dag),
                run=lambda jobs, left=None: self._run(dag.file, jobs, left),
                budget=self._budget(dag),
            )
        return self._studies[key]

    def _budget(self, dag: DagInfo) -> Budget:
        return Budget(self._settings.for_dag(dag.dag_id).budget, self._clock, _processes())

    def _related(self, dag: DagInfo) -> Mapping[str, str]:
        """The DAG file of each other DAG that runs along with one, by DAG id."""
        return related(dag, self._project(self._folder(dag.file))) if dag.leads_to else {}

    def _project(self, folder: str) -> tuple[LoadedFile, ...]:
        """All DAG files of a DAGs folder, whatever paths were given on the command line."""
        if folder not in self._projects:
            jobs = [LoadJob(file=file, folder=folder) for file in self.find_dag_files([folder])]
            answers = self._run("", jobs)
            loaded = (answer.result for answer in answers if isinstance(answer, Done))
            self._projects[folder] = tuple(loaded)
        return self._projects[folder]

    def _run(self, file: str, jobs: Sequence[Job], left: Left | None = None) -> list[Answer]:
        if self._pool is None:
            self._pool = Pool(self._started(), _cores(), self._other)
        if self._is_ahead:
            return self._pool.begin(file, jobs)
        return self._pool.run(
            file,
            jobs,
            others={"", *(each.file for each in self._following)},
            left=left,
            meanwhile=self._go_ahead,
        )

    def _other(self, hash_seed: int) -> Zygote:
        """The interpreter with that hash seed."""
        self._begin_others()
        return self._others[hash_seed]

    def _begin_others(self) -> None:
        for seed in () if self._others else HASH_SEEDS:
            self._others[seed] = Zygote.begin(self._rootdir, seed)

    def _started(self) -> Zygote:
        if self._zygote is None:
            try:
                self._zygote = Zygote.start(self._rootdir, self._prepare)
            except ZygoteError as error:
                raise CheckerError(_cannot_start(str(error))) from None
        return self._zygote

    def _folder(self, file: str) -> str:
        """The DAGs folder that a file stands in, whatever path was given on the command line."""
        configured = [*self._settings.dags, os.environ.get("AIRFLOW__CORE__DAGS_FOLDER", ""), "dags"]
        folders = [str(self._rootdir / folder) for folder in configured if folder]
        return next((f for f in folders if file.startswith(f.rstrip("/") + "/")), os.path.dirname(file))


def _cores() -> int:
    """Workers at a time: the cores that this process may use, shared with the other processes of pytest-xdist."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    return max(1, cores // _processes())


def _processes() -> int:
    """The processes of pytest-xdist."""
    return int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _cannot_start(trace: str) -> str:
    last = trace.strip().splitlines()[-1]
    if "No module named 'airflow'" in last:
        return "Airflow is not installed here: pip install 'pytest-rerunsafe[airflow]'"
    if (refused := last.partition("Unsupported: ")[2]) and "rerunsafe" in last:
        return refused
    return f"Airflow cannot be used: {last}\n{trace}"
