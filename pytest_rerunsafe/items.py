"""The test items of DAG files, and the checker that they run on; what a check does is not known here."""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from .model import Acted, Action, CheckResult, DagInfo, LoadedFile, Recording, RunKey, Verdict, WorldState
from .settings import Settings

if TYPE_CHECKING:
    from typing_extensions import Self

    from .check import Checker

MARKER = "rerun_safety"
TRANSPORT = "rerun_safety"
"""The name of the user property that carries a result from the item to the report."""
LOAD = "load"
"""The one item of a DAG file that does not load."""


class Bench:
    """The checker of one pytest process, made when first needed.

    Its helper processes are forked from this one, so they know a conftest.py only if it was loaded by then.
    When one comes up that matters to a DAG file, the checker is made anew.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._checker: Checker | None = None
        self._known: frozenset[ModuleType] = frozenset()
        self._loaded: dict[str, LoadedFile] = {}
        self._expected: dict[tuple[str, str], list[str]] = {}
        self._following: dict[tuple[str, str], DagInfo] = {}

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self._settings

    @property
    def rootdir(self) -> Path:
        """The folder that paths in results are relative to."""
        return self._config.rootpath

    def find(self, paths: Sequence[str]) -> tuple[str, ...]:
        """The DAG files among files and folders, by Airflow's rule. Raises CheckerError."""
        return self._any_checker().find_dag_files(paths) if paths else ()

    def load(self, file: str) -> LoadedFile:
        """What a DAG file holds; loaded once. Raises CheckerError."""
        if file not in self._loaded:
            self._loaded[file] = self._checker_for(file).load(file)
        return self._loaded[file]

    def loaded(self, file: str) -> LoadedFile | None:
        """What a DAG file holds; None if nobody has loaded it yet."""
        return self._loaded.get(file)

    def checks_of(self, dag: DagInfo) -> tuple[str, ...]:
        """The names of a DAG's checks."""
        return self._checker_for(dag.file).checks_of(dag)

    def run(self, dag: DagInfo, check: str, expected: Sequence[str] = ()) -> CheckResult:
        """The outcome of one check; others are expected of that DAG, if it is not known of what items there are."""
        key = (dag.file, dag.dag_id)
        expected = expected or self._expected.get(key, ())
        return self._checker_for(dag.file).run(dag, check, expected, tuple(self._coming(key)))

    def _coming(self, key: tuple[str, str]) -> Iterator[tuple[DagInfo, Sequence[str]]]:
        """The DAGs whose checks will be asked for after those of one, with these."""
        passed = {key}
        while (dag := self._following.get(key)) is not None:
            key = (dag.file, dag.dag_id)
            if key in passed:
                return  # somebody has put the items into another order
            passed.add(key)
            yield dag, self._expected[key]

    def begin(self, dag: DagInfo, intervals: int) -> Recording:
        """A DagRun that has come to its end, to do things to. Raises CheckerError."""
        return self._checker_for(dag.file).begin(dag, intervals)

    def act(self, dag: DagInfo, run: RunKey, world: WorldState, action: Action, later_s: float) -> Acted:
        """What comes of what a person does to a DagRun. Raises CheckerError."""
        return self._checker_for(dag.file).act(dag, run, world, action, later_s)

    def source_line(self, file: str, line: int) -> str | None:
        """A line of the project's code."""
        return linecache.getline(str(self.rootdir / file), line) or None

    def expect(self, items: Sequence[pytest.Item]) -> None:
        """Take note of the checks that will be asked for."""
        before: tuple[str, str] | None = None
        for item in items:
            if isinstance(item, CheckItem) and isinstance(item.parent, DagCollector):
                dag = item.parent.dag
                key = (dag.file, dag.dag_id)
                self._expected.setdefault(key, []).append(item.name)
                if before is not None and before != key:
                    self._following.setdefault(before, dag)
                before = key

    def replay(self, scenario_id: str, files: Sequence[str]) -> str:
        """What there is to see of one scenario. Raises CheckerError."""
        return self._any_checker().replay(scenario_id, files)

    def close(self) -> None:
        """End the helper processes, if there are any."""
        if self._checker is not None:
            self._checker.close()
            self._checker = None

    def _checker_for(self, file: str) -> Checker:
        if self._checker is not None and not self._known.issuperset(self._conftests(file)):
            self.close()
        return self._any_checker()

    def _any_checker(self) -> Checker:
        if self._checker is None:
            from .check import Checker

            self._known = frozenset(self._conftests())
            self._checker = Checker(settings=self._settings, rootdir=self.rootdir, prepare=self._prepare)
        return self._checker

    def _conftests(self, file: str | None = None) -> Iterator[ModuleType]:
        """The conftest.py files loaded so far, or those of them at or above a file."""
        for plugin in self._config.pluginmanager.get_plugins():
            path = (
                PurePath(getattr(plugin, "__file__", None) or "") if isinstance(plugin, ModuleType) else None
            )
            if path is None or path.name != "conftest.py":
                continue
            if file is None or PurePath(file).is_relative_to(path.parent):
                yield plugin

    def _prepare(self, file: str, dag: object, world: object) -> None:
        # No `session.gethookproxy`: it asks the file system and which folders have been collected. This is
        # called in a forked process, which has another file system and may be older than the collection.
        elsewhere = set(self._conftests()).difference(self._conftests(file))
        hooks = self._config.pluginmanager
        hooks.subset_hook_caller("pytest_rerun_safety_prepare", elsewhere)(dag=dag, world=world)


# --- the tree ---------------------------------------------------------------------------------


class DagFile(pytest.File):
    """A DAG file."""

    def __init__(self, *, bench: Bench, **node: Any) -> None:
        super().__init__(**node)
        self._bench = bench

    @classmethod
    def from_parent(cls, parent: pytest.Collector, *, path: Path, bench: Bench) -> Self:  # type: ignore[override]
        """The way to make one."""
        return super().from_parent(parent, path=path, bench=bench)

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """One collector per DAG; one failing item if the file does not load."""
        from .check import CheckerError

        try:
            loaded = self._bench.load(str(self.path))
        except CheckerError as error:
            raise self.CollectError(str(error)) from error
        if loaded.error or (loaded.obstacles and not loaded.dags):
            result = _unloaded(loaded, self._bench.rootdir)
            yield CheckItem.from_parent(self, name=LOAD, run=lambda: result, line=1, bench=self._bench)
        for dag in loaded.dags:
            yield DagCollector.from_parent(self, dag=dag, bench=self._bench)


def _unloaded(loaded: LoadedFile, rootdir: Path) -> CheckResult:
    from .clean import obstacle_text

    verdict = Verdict.ERROR if loaded.error else Verdict.UNVERIFIABLE
    reason = loaded.error or "\n".join(map(obstacle_text, loaded.obstacles))
    file = PurePath(os.path.relpath(loaded.file, rootdir)).as_posix()
    return CheckResult(dag_id="", file=file, check=LOAD, verdict=verdict, reason=reason)


class DagCollector(pytest.Collector):
    """A DAG of a DAG file."""

    def __init__(self, *, dag: DagInfo, bench: Bench, **node: Any) -> None:
        super().__init__(**node)
        self.dag = dag
        self._bench = bench

    @classmethod
    def from_parent(cls, parent: DagFile, *, dag: DagInfo, bench: Bench) -> Self:  # type: ignore[override]
        """The way to make one."""
        return super().from_parent(parent, name=dag.dag_id, dag=dag, bench=bench)

    def collect(self) -> Iterator[CheckItem]:
        """One item per check."""
        for check in self._bench.checks_of(self.dag):
            run = partial(self._bench.run, self.dag, check)
            yield CheckItem.from_parent(self, name=check, run=run, line=self.dag.line, bench=self._bench)


class CheckItem(pytest.Item):
    """One check of a DAG."""

    def __init__(self, *, run: Callable[[], CheckResult], line: int, bench: Bench, **node: Any) -> None:
        super().__init__(**node)
        self._run = run
        self._line = line
        self._source_line = bench.source_line
        self.add_marker(MARKER)

    @classmethod
    def from_parent(  # type: ignore[override]
        cls,
        parent: DagFile | DagCollector,
        *,
        name: str,
        run: Callable[[], CheckResult],
        line: int,
        bench: Bench,
    ) -> Self:
        """The way to make one; `run` gives the result, `line` is where the DAG stands."""
        return super().from_parent(parent, name=name, run=run, line=line, bench=bench)

    def listchain(self) -> list[pytest.Item | pytest.Collector]:  # type: ignore[override]
        """All that is above the item, but for packages."""
        # Setting one up imports its `__init__.py`, and a project's DAG code must not run in this process.
        return [node for node in super().listchain() if not isinstance(node, pytest.Package)]  # type: ignore[misc]

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the DAG stands, and the headline of a failure."""
        return self.path, self._line - 1, self.nodeid.partition("::")[2]

    def runtest(self) -> None:
        """Run the check and end as its verdict says."""
        from .report.json import to_transport

        result = self._run()
        kept = [entry for entry in self.user_properties if entry[0] != TRANSPORT]
        self.user_properties[:] = [*kept, (TRANSPORT, to_transport(result))]
        self._end(result)

    def _end(self, result: CheckResult) -> None:
        from .report.text import check_headline

        match result.verdict:
            case Verdict.ERROR | Verdict.UNSAFE:
                self._fail(result)
            case Verdict.KNOWN if self.config.option.runxfail:
                self._fail(result)
            case Verdict.KNOWN:
                # Not `pytest.xfail()`, for its traceback would be shown and tells nothing.
                raise pytest.xfail.Exception(check_headline(result), pytrace=False)
            case Verdict.UNVERIFIABLE | Verdict.SKIPPED:
                pytest.skip(check_headline(result))
            case Verdict.SAFE:
                pass

    def _fail(self, result: CheckResult) -> NoReturn:
        from .compare.rules import RULES
        from .report.text import check_text

        is_verbose = self.config.get_verbosity() > 0
        pytest.fail(check_text(result, RULES, self._source_line, is_verbose), pytrace=False)
