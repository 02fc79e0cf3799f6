"""The pytest plugin: its hooks, nothing else; what they need is imported when the checks are asked for."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from . import __version__, hookspecs
from .fixtures import _rerun_safety_bench, rerun_safety  # noqa: F401  (pytest finds them here)
from .options import ReportTarget, add_options, is_asked_for, replay_id, report_targets, settings_of
from .settings import Settings, SettingsError, Source, sources, unknown_dags

if TYPE_CHECKING:
    from .items import Bench
    from .model import CheckResult

REPORT_FORMATS = ("json",)


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rerun_safety: a check that a DAG survives crashes and reruns.")
    if not is_asked_for(config):
        return
    settings = settings_of(config)
    targets = report_targets(config, REPORT_FORMATS)
    if replay_id(config) is not None:
        _stay_in_process(config)
    config.pluginmanager.register(DagChecks(config, settings), "rerunsafe-checks")
    if not _is_worker(config):
        config.pluginmanager.register(Verdicts(config, settings, targets), "rerunsafe-verdicts")


def _stay_in_process(config: pytest.Config) -> None:
    """What pytest-xdist reads later; nothing if it is not there."""
    config.option.dist = "no"
    config.option.tx = []


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


# --- which DAG files --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The DAG files to check; plain values only, for it goes to the workers of pytest-xdist."""

    files: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    """What pytest must collect besides its own arguments to come by them."""
    project: tuple[str, ...] = ()
    """All DAG files of the project, if they are known and matter."""
    title: str = ""
    """Where they come from."""


def find_dag_files(config: pytest.Config, settings: Settings, bench: Bench) -> Found:
    """The DAG files of the first source that has any. Raises pytest.UsageError if none has."""
    from .check import CheckerError

    given = _given_paths(config)
    if given is None:
        return Found()
    named = Source(title="PATH", paths=given, lack="not given")
    try:
        fallbacks = sources(settings, config.rootpath, os.environ)
        files = _dag_files(named, config, bench)
        source, project = named, tuple[str, ...]()
        if settings.dag or not files:
            source, project = _project_files(fallbacks, config, bench)
    except (SettingsError, CheckerError) as error:
        raise pytest.UsageError(str(error)) from error
    if not files and not project:
        raise pytest.UsageError(*_nothing_found(config, (named, *fallbacks)))
    source, files = (named, files) if files else (source, project)
    return Found(files=files, args=_missing_args(config, source, files), project=project, title=source.title)


def _given_paths(config: pytest.Config) -> tuple[str, ...] | None:
    """The paths on the command line; None if one does not exist, of which pytest tells the user itself."""
    paths = _paths(config, config.getoption("file_or_dir"))
    there = tuple(path for path in paths if os.path.exists(path))
    return there if len(there) == len(paths) or config.option.pyargs else None


def _paths(config: pytest.Config, args: Sequence[str]) -> tuple[str, ...]:
    """Arguments as absolute paths, without the names of tests."""
    folder = config.invocation_params.dir
    return tuple(os.path.abspath(folder / arg.partition("::")[0]) for arg in args)


def _project_files(
    fallbacks: Sequence[Source], config: pytest.Config, bench: Bench
) -> tuple[Source, tuple[str, ...]]:
    """The first source that has DAG files, with these; the last one if none has."""
    files: tuple[str, ...] = ()
    for source in fallbacks:
        files = _dag_files(source, config, bench)
        if files:
            break
    return source, files


def _dag_files(source: Source, config: pytest.Config, bench: Bench) -> tuple[str, ...]:
    """The DAG files of a source. Airflow's rule takes tests of DAGs for such: they must really hold a DAG."""
    files = bench.find(source.paths)
    return tuple(file for file in files if not _is_test_named(file, config) or bench.load(file).dags)


def _is_test_named(file: str, config: pytest.Config) -> bool:
    path = PurePath(file)
    return path.name == "conftest.py" or any(path.match(glob) for glob in config.getini("python_files"))


def _missing_args(config: pytest.Config, source: Source, files: Sequence[str]) -> tuple[str, ...]:
    """What pytest's arguments lack; none overlaps another, for pytest 8 collects only one of two that do."""
    own = _paths(config, config.args)
    missing: list[str] = []
    for root in sorted(source.paths):
        if _is_under(root, (*own, *missing)):
            continue
        if any(_is_under(path, [root]) for path in own):
            missing += [file for file in files if _is_under(file, [root]) and not _is_under(file, own)]
        else:
            missing.append(root)
    return tuple(missing)


def _is_under(path: str, roots: Sequence[str]) -> bool:
    return any(PurePath(path).is_relative_to(root) for root in roots)


def _nothing_found(config: pytest.Config, candidates: Sequence[Source]) -> tuple[str, str]:
    named, *fallbacks = candidates
    shown = ", ".join(repr(os.path.relpath(path, config.invocation_params.dir)) for path in named.paths)
    looked = [f"{source.title} ({'holds none' if source.paths else source.lack})" for source in fallbacks]
    return (
        f"--rerun-safety: no DAG file{f' in {shown}' if shown else ''}; also looked at {', '.join(looked)}",
        "A DAG file is a .py file that has the words 'airflow' and 'dag' in it and that no .airflowignore "
        "excludes; name one, or a folder of them, or set `dags` under [tool.rerun-safety] in pyproject.toml",
    )


# --- collecting and running -------------------------------------------------------------------


class DagChecks:
    """Makes DAG files test items; in pytest-xdist's controller it only finds them, for all workers."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        from .items import Bench

        self._config = config
        self._settings = settings
        self._bench = Bench(config, settings)
        self._found = Found()
        self._asked: tuple[str, ...] = ()

    def pytest_sessionstart(self) -> None:
        given: Mapping[str, Any] | None = getattr(self._config, "workerinput", {}).get("rerun_safety")
        self._found = Found(**given) if given is not None else self._find()
        self._asked = _paths(self._config, self._config.args)
        self._config.args.extend(self._found.args)

    def _find(self) -> Found:
        return find_dag_files(self._config, self._settings, self._bench)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self) -> None:
        # The workers have checkers of their own.
        self._bench.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["rerun_safety"] = asdict(self._found)

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
        from .items import DagFile

        nodes = yield
        ordinary = nodes if self._is_asked(file_path) else []
        if str(file_path) not in self._found.files:
            return ordinary
        return [*ordinary, DagFile.from_parent(parent, path=file_path, bench=self._bench)]

    def _is_asked(self, path: Path) -> bool:
        """Whether the user wants the ordinary tests there: not in a DAGs folder that only we have added."""
        return bool(self._config.option.pyargs) or _is_under(str(path), self._asked)

    @pytest.hookimpl(wrapper=True)
    def pytest_pycollect_makemodule(
        self, module_path: Path
    ) -> Generator[None, pytest.Module | None, pytest.Module | None]:
        # To pytest a file named on the command line is a test module, which it would import.
        module = yield
        file = str(module_path)
        is_only_dag = file in self._found.files and not _is_test_named(file, self._config)
        return None if is_only_dag else module

    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        loaded = [self._bench.loaded(file) for file in self._found.project]
        if not loaded or any(file is None or file.error for file in loaded):
            return
        known = {dag.dag_id for file in loaded if file is not None for dag in file.dags}
        message = unknown_dags(self._settings, known)
        if message is not None:
            self._complain(session, message)
            items.clear()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not _is_worker(self._config):  # a worker of pytest-xdist collects all items and runs some
            self._bench.expect(session.items)

    def pytest_report_collectionfinish(self) -> str | None:
        if self._config.get_verbosity() < 0 or not self._found.files:
            return None
        count = len(self._found.files)
        files = f"{count} DAG file{'' if count == 1 else 's'} from {self._found.title}"
        return f"rerun safety: {files}, profile {self._settings.profile}"

    def _complain(self, session: pytest.Session, message: str) -> None:
        if not _is_worker(self._config):
            raise pytest.UsageError(message)
        # A usage error would only take the worker down; this reaches the user.
        report = pytest.CollectReport(
            nodeid=self._settings.file, outcome="failed", longrepr=message, result=[]
        )
        session.ihook.pytest_collectreport(report=report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        scenario_id = replay_id(self._config)
        if scenario_id is None or self._config.option.collectonly:
            return None
        self._show(self._replay(scenario_id))
        return True

    def _replay(self, scenario_id: str) -> str:
        from .check import CheckerError

        try:
            return self._bench.replay(scenario_id, self._found.files)
        except CheckerError as error:
            raise pytest.UsageError(str(error)) from error

    def _show(self, text: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.section("rerun safety replay")
            reporter.write_line(text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        from .items import CheckItem

        report = yield
        if isinstance(item, CheckItem) and report.skipped and isinstance(report.longrepr, tuple):
            path, line, _ = item.reportinfo()
            report.longrepr = (str(path), line + 1, report.longrepr[2])
        if isinstance(item, CheckItem) and report.failed:
            _keep_first_line(report.longrepr)
        return report

    def pytest_sessionfinish(self) -> None:
        # After this pytest-xdist may end its workers at any moment.
        self._bench.close()

    def pytest_unconfigure(self) -> None:
        # Where the session never started.
        self._bench.close()


def _keep_first_line(longrepr: object) -> None:
    """Let the short summary show the headline: on CI pytest would show the whole text again."""
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = str(crash.message).partition("\n")[0]


# --- telling ----------------------------------------------------------------------------------


class _Reporter(Protocol):
    """What we use of pytest's terminal reporter."""

    def section(self, title: str) -> None: ...
    def write_line(self, line: str, **markup: bool) -> None: ...


class Verdicts:
    """Gathers the results of the items, wherever they ran, and tells them."""

    def __init__(self, config: pytest.Config, settings: Settings, targets: Sequence[ReportTarget]) -> None:
        self._config = config
        self._profile = str(settings.profile)
        self._targets = targets
        self._by_item: dict[str, CheckResult] = {}
        self._messages: list[str] = []
        self._start = time.perf_counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        from .items import TRANSPORT
        from .report.json import from_transport

        for name, text in report.user_properties:
            if name == TRANSPORT:
                self._by_item[report.nodeid] = from_transport(str(text))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        is_run = not self._config.option.collectonly and replay_id(self._config) is None
        if not is_run or session.exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        self._messages = [
            message for target in self._targets if (message := _write(target.path, self._render()))
        ]
        if self._messages:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _render(self) -> str:
        from .report.json import dumps, json_report

        duration_s = time.perf_counter() - self._start
        return dumps(
            json_report(self._results(), versions=_versions(), profile=self._profile, duration_s=duration_s)
        )

    def _results(self) -> list[CheckResult]:
        """In an order that the distribution over workers does not change."""
        return sorted(self._by_item.values(), key=_order)

    def pytest_terminal_summary(self, terminalreporter: _Reporter) -> None:
        from .report.text import summary_lines

        width = self._config.get_terminal_writer().fullwidth
        lines = summary_lines(self._results(), width, verbose=self._config.get_verbosity() > 0)
        if lines or self._messages:
            terminalreporter.section("rerun safety")
        for text, colour in lines:
            terminalreporter.write_line(text, **({colour: True} if colour else {}))
        for message in self._messages:
            terminalreporter.write_line(message, red=True)


_CHECKS = ("load", "clean", "rerun")


def _order(result: CheckResult) -> tuple[str, str, int, str]:
    first = _CHECKS.index(result.check) if result.check in _CHECKS else len(_CHECKS)
    return result.file, result.dag_id, first, result.check


def _versions() -> dict[str, str]:
    return {
        "pytest_rerunsafe": __version__,
        "airflow": _version_of("apache-airflow-core") or _version_of("apache-airflow"),
        "python": platform.python_version(),
        "pytest": pytest.__version__,
    }


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _write(path: Path, text: str) -> str:
    """Write all or nothing, for somebody may be reading. Gives what went wrong; empty if nothing did."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    finally:
        draft.unlink(missing_ok=True)
    return ""
