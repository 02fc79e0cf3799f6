"""DAG files under test: written into a project of their own, checked by a real checker with real Airflow."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from samples import IS_WHOLE

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.model import CheckResult, DagInfo, Finding, LoadedFile, Verdict
from pytest_rerunsafe.settings import Settings


class Verdicts:
    """The results of a DAG's checks: each is run when it is first asked for, all together for those of all."""

    def __init__(self, checks: Sequence[str], run: Callable[[str, Sequence[str]], CheckResult]) -> None:
        self.checks = checks
        self._run = run
        self._known: dict[str, CheckResult] = {}

    @classmethod
    def of(cls, results: Mapping[str, CheckResult]) -> Verdicts:
        """Those of checks that have been run."""
        return cls(tuple(results), lambda check, _: results[check])

    @cached_property
    def results(self) -> dict[str, CheckResult]:
        """By check."""
        return {check: self._known.get(check) or self._run(check, self.checks) for check in self.checks}

    @cached_property
    def sampled(self) -> Verdicts:
        """The same, less the check that runs several intervals where a sample will do: it takes as long as all others."""
        if IS_WHOLE:
            return self
        return Verdicts([check for check in self.checks if check != "backfill"], self._run)

    @property
    def worst(self) -> Verdict:
        """The worst verdict."""
        return min((result.verdict for result in self.results.values()), key=list(Verdict).index)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of all checks."""
        return tuple(finding for result in self.results.values() for finding in result.findings)

    @property
    def rules(self) -> set[str]:
        """The rules that were broken."""
        return {str(finding.rule) for finding in self.findings}

    def __getitem__(self, check: str) -> CheckResult:
        if "results" in vars(self):
            return self.results[check]
        assert check in self.checks, f"{check!r} is none of {self.checks}"
        if check not in self._known:
            self._known[check] = self._run(check, ())
        return self._known[check]


class Project:
    """A folder of DAG files and the checker for it; one checker for many tests, for it takes seconds to start."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.dag_settings = dict(settings.dag)
        """By DAG id; what is set before a DAG is first checked holds."""
        self.checker = Checker(
            settings=replace(settings, dag=self.dag_settings), rootdir=root, prepare=_prepare
        )

    def write(self, name: str, source: str, prepare: str = "") -> str:
        """Write a DAG file, and what puts its inputs in place (`world` is there); its path."""
        path = self.root / "dags" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        path.with_suffix(".inputs").write_text(textwrap.dedent(prepare))
        return str(path)

    def load(self, name: str, source: str) -> LoadedFile:
        """What a DAG file holds."""
        return self.checker.load(self.write(name, source))

    def check(self, name: str, source: str, prepare: str = "", dag_id: str | None = None) -> Verdicts:
        """All checks of the only DAG of a file, or of the one named."""
        loaded = self.checker.load(self.write(name, source, prepare))
        assert not loaded.error, loaded.error
        dags = [dag for dag in loaded.dags if dag_id in (None, dag.dag_id)]
        assert len(dags) == 1, f"{len(dags)} DAGs in {name}"
        return self.check_dag(dags[0])

    def check_among(self, folder: str, files: Mapping[str, str], dag_id: str, prepare: str = "") -> Verdicts:
        """All checks of a DAG of `files`, which make up a DAGs folder of their own."""
        place = self.root / folder
        place.mkdir()
        for name, source in files.items():
            (place / f"{name}.py").write_text(textwrap.dedent(source))
            (place / f"{name}.inputs").write_text(textwrap.dedent(prepare))
        loaded = [self.checker.load(str(place / f"{name}.py")) for name in files]
        (dag,) = (dag for file in loaded for dag in file.dags if dag.dag_id == dag_id)
        return self.check_dag(dag)

    def check_dag(self, dag: DagInfo) -> Verdicts:
        """All checks of a DAG."""
        return Verdicts(self.checker.checks_of(dag), partial(self.checker.run, dag))


def project(root: Path, settings: Settings | None = None) -> Iterator[Project]:
    """A project with its checker, for a fixture to yield from."""
    made = Project(root, settings or Settings())
    try:
        yield made
    finally:
        made.checker.close()


def _prepare(file: str, dag: object, world: object) -> None:
    exec(Path(file).with_suffix(".inputs").read_text(), {"world": world, "dag": dag})
