"""The plugin as pytest's user sees it. A fake checker stands in for the real one: no Airflow, no forks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FAKE_CHECK = '''
"""Takes the place of the checker. A DAG file is a .py file with the word airflow in it; lines such as
`# dag orders: clean safe, crash.load unsafe` say which DAGs it holds and how their checks end.
"""
import os, re, sys, types
from datetime import datetime, timezone
from pathlib import Path

from pytest_rerunsafe.model import CheckResult, Coverage, DagInfo, Difference, Finding, LoadedFile, Obstacle
from pytest_rerunsafe.model import CrashKind, RecoveryKind, Rule, Verdict

FOLDER = Path(__file__).parent
TRACEBACK = 'Traceback (most recent call last):\\n  File "x.py", line 3\\nNameError: no such name'


def log(*words):
    with open(FOLDER / "calls.log", "a") as file:
        print(*words, file=file)


class CheckerError(Exception):
    pass


def obstacle_text(obstacle):
    return f"{obstacle.what}. {obstacle.remedy}"


class Checker:
    def __init__(self, *, settings, rootdir, prepare):
        self.settings, self.rootdir, self.prepare = settings, rootdir, prepare
        log("new")

    def find_dag_files(self, paths):
        if os.environ.get("FAKE_NO_AIRFLOW"):
            raise CheckerError("Airflow is not installed here")
        found = set()
        for path in map(Path, paths):
            found.update(path.rglob("*.py") if path.is_dir() else [path])
        return tuple(sorted(str(file) for file in found if "airflow" in file.read_text()))

    def load(self, file):
        log("load", os.path.basename(file))
        text = Path(file).read_text()
        if "# broken" in text:
            return LoadedFile(file=file, dags=(), error=TRACEBACK)
        if "# hidden" in text:
            return LoadedFile(file=file, dags=(), obstacles=(
                Obstacle(what="starts a process", where=None, remedy="Do not"),))
        return LoadedFile(file=file, dags=tuple(
            DagInfo(dag_id=match[1], file=file, line=text[:match.start()].count("\\n") + 1, tasks=(),
                    is_scheduled=False, logical_date=datetime(2024, 1, 1, tzinfo=timezone.utc))
            for match in re.finditer("^# dag (.*): (.*)$", text, re.M)))

    def _ends(self, dag):
        line = Path(dag.file).read_text().splitlines()[dag.line - 1]
        return dict(entry.split() for entry in line.partition(": ")[2].split(", "))

    def checks_of(self, dag):
        return tuple(self._ends(dag))

    def run(self, dag, check, expected=(), following=None):
        log("run", dag.dag_id, check)
        self.prepare(dag.file, dag.dag_id, log)
        verdict = Verdict(self._ends(dag)[check])
        file = os.path.relpath(dag.file, self.rootdir)
        finding = Finding(
            rule=Rule.LOST_OUTPUT, dag_id=dag.dag_id, task_id="load", map_index=-1,
            crash_point="load@write:/x#1", crash_kind=CrashKind.KILL, recovery=RecoveryKind.RETRY,
            file=file, line=dag.line, summary="x is missing",
            differences=(), replay="pytest --rerun-safety-replay=ID " + file, known=verdict is Verdict.KNOWN)
        return CheckResult(
            dag_id=dag.dag_id, file=file, check=check, verdict=verdict,
            reason=f"the reason of {check}" if verdict not in (Verdict.SAFE, Verdict.UNSAFE) else None,
            findings=(finding,) if verdict in (Verdict.UNSAFE, Verdict.KNOWN) else (),
            coverage=Coverage(crash_points=7, distinct_states=3, explored=3, recoveries=4))

    def replay(self, scenario_id, files):
        if scenario_id != "good":
            raise CheckerError(f"no scenario {scenario_id!r}; did you mean 'good'?")
        return "the story of good in " + " ".join(os.path.basename(file) for file in files)

    def close(self):
        log("close")


fake = types.ModuleType("pytest_rerunsafe.check")
fake.Checker, fake.CheckerError, fake.obstacle_text = Checker, CheckerError, obstacle_text
sys.modules["pytest_rerunsafe.check"] = fake
'''

IMPORTED = "\nraise SystemExit('a DAG file was imported into the process of pytest')\n"


class Project:
    """A project on disk, and pytest run on it."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.path = pytester.path
        pytester.makepyfile(fake_check=FAKE_CHECK)
        pytester.syspathinsert()
        path = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(self.path), *([path] if path else [])]))

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def dag(self, name: str, *dags: str, extra: str = "") -> Path:
        """A DAG file that must never be imported here."""
        lines = [f"# dag {dag}" for dag in dags]
        return self.write(name, "\n".join(["import airflow", *lines, extra, IMPORTED]))

    def run(self, *args: str) -> pytest.RunResult:
        """Run pytest: in a process of its own if there are to be workers, which know only what that does."""
        run = self.pytester.runpytest_subprocess if "-n" in args else self.pytester.runpytest_inprocess
        return run("-p", "fake_check", "--rerun-safety", *args)

    def ids(self, *args: str) -> list[str]:
        """The items that pytest would run."""
        result = self.run("--collect-only", "-q", *args)
        return [line for line in result.outlines if "::" in line]

    def calls(self) -> list[str]:
        log = self.path / "calls.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("AIRFLOW__CORE__DAGS_FOLDER", "PYTEST_ADDOPTS", "FAKE_NO_AIRFLOW"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester, monkeypatch)


def usage_error(result: pytest.RunResult) -> str:
    """The message of a run that ended with one."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR, result.outlines + result.errlines
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    return "\n".join(line.removeprefix("ERROR: ") for line in result.errlines if line)


# --- when it is not asked for -----------------------------------------------------------------


WHAT_IS_IMPORTED = """
import sys

HEAVY = {"airflow", "pyfakefs", "freezegun", "time_machine", "hypothesis", "sqlalchemy"}
OURS = {"check", "clean", "explore", "world", "airflow", "items", "compare", "report"}


def test_modules(pytestconfig):
    assert not HEAVY & {name.partition(".")[0] for name in sys.modules}
    ours = {name for name in sys.modules if name.startswith("pytest_rerunsafe.")}
    assert not OURS & {name.split(".")[1] for name in ours}
    assert ("pytest_rerunsafe.plugin" in ours) == EXPECTED
    assert not pytestconfig.pluginmanager.hasplugin("rerunsafe-checks")
"""


@pytest.mark.parametrize(("plugin", "is_there"), [("pytest_rerunsafe.plugin", True), ("no:rerunsafe", False)])
def test_a_run_without_the_flag_imports_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, plugin: str, is_there: bool
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(WHAT_IS_IMPORTED.replace("EXPECTED", str(is_there)))
    pytester.mkdir("dags").joinpath("orders.py").write_text("import airflow" + IMPORTED)
    result = pytester.runpytest_subprocess("-p", plugin, "-W", "error")
    result.assert_outcomes(passed=1)


def test_options_marker_and_hook_are_always_there(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_rerun_safety_prepare(dag, world): pass")
    helped = pytester.runpytest_inprocess("--help").stdout.str()
    for option in (
        "--rerun-safety ",
        "--rerun-safety-profile=",
        "--rerun-safety-report=",
        "--rerun-safety-replay=",
    ):
        assert option in helped
    assert "@pytest.mark.rerun_safety: " in pytester.runpytest_inprocess("--markers").stdout.str()


def test_configuration_is_not_read_without_the_flag(pytester: pytest.Pytester) -> None:
    (pytester.path / "rerun-safety.toml").write_text("nonsense = 1")
    pytester.makepyfile("def test_x(): pass")
    assert pytester.runpytest_inprocess().ret == pytest.ExitCode.OK
    told = usage_error(pytester.runpytest_inprocess("--rerun-safety"))
    assert told.startswith("rerun-safety.toml: unknown key 'nonsense'")


# --- items ------------------------------------------------------------------------------------


def test_ids_are_file_dag_and_check(project: Project) -> None:
    project.dag("dags/two.py", "orders: clean safe, rerun safe, crash.etl.load safe", "items: clean safe")
    project.dag("dags/deep/er/three.py", "more: clean safe")
    assert project.ids() == [
        "dags/deep/er/three.py::more::clean",
        "dags/two.py::orders::clean",
        "dags/two.py::orders::rerun",
        "dags/two.py::orders::crash.etl.load",
        "dags/two.py::items::clean",
    ]
    assert not [call for call in project.calls() if call.startswith("run")]


def test_each_file_is_loaded_once_and_each_check_run_once(project: Project) -> None:
    project.dag("dags/two.py", "orders: clean safe, rerun safe")
    project.run().assert_outcomes(passed=2)
    assert project.calls() == ["new", "load two.py", "run orders clean", "run orders rerun", "close"]


def test_outcomes_follow_the_verdicts(project: Project) -> None:
    ends = "a error, b unsafe, c known, d unverifiable, e skipped, f safe"
    project.dag("dags/one.py", f"orders: {ends}")
    result = project.run("-rA")
    result.assert_outcomes(failed=2, xfailed=1, skipped=2, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*_ orders::a _*",
            "error: the reason of a",
            "*_ orders::b _*",
            "unsafe: lost-output in load: x is missing",
            "*# dag orders: a error,*",
            "*pytest --rerun-safety-replay=ID dags/one.py",
        ]
    )
    result.stdout.fnmatch_lines_random(
        [
            "PASSED dags/one.py::orders::f",
            "SKIPPED [[]1[]] dags/one.py:2: unverifiable: the reason of d",
            "SKIPPED [[]1[]] dags/one.py:2: skipped: the reason of e",
            "XFAIL dags/one.py::orders::c - *known: lost-output in load: x is missing",
            "FAILED dags/one.py::orders::a - Failed: error: the reason of a",
            "FAILED dags/one.py::orders::b - Failed: unsafe: lost-output in load*",
        ]
    )
    result.stdout.no_fnmatch_line("*items.py*")


def test_known_findings_fail_with_runxfail(project: Project) -> None:
    project.dag("dags/one.py", "orders: clean known")
    project.run("--runxfail").assert_outcomes(failed=1)


def test_a_file_that_does_not_load_is_one_failing_item(project: Project) -> None:
    project.dag("dags/bad.py", extra="# broken")
    project.dag("dags/good.py", "orders: clean safe")
    assert project.ids() == ["dags/bad.py::load", "dags/good.py::orders::clean"]
    result = project.run()
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*_ load _*", "error: NameError: no such name", '*File "x.py", line 3'])
    result.stdout.fnmatch_lines(["*dags/bad.py*error*"])


def test_a_file_that_hides_its_dags_is_unverifiable(project: Project) -> None:
    project.dag("dags/bad.py", extra="# hidden")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] dags/bad.py:1: unverifiable: starts a process. Do not"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-k", "clean"], ["a.py::one::clean", "b.py::two::clean"]),
        (["-k", "two and clean"], ["b.py::two::clean"]),
        (["-m", "not rerun_safety"], []),
        (["dags/b.py::two"], ["b.py::two::clean", "b.py::two::rerun"]),
        (["dags/b.py::two::rerun", "dags/a.py::one::clean"], ["b.py::two::rerun", "a.py::one::clean"]),
        (["--deselect", "dags/b.py::two"], ["a.py::one::clean", "a.py::one::rerun"]),
        (["--ignore=dags/b.py"], ["a.py::one::clean", "a.py::one::rerun"]),
    ],
)
def test_items_can_be_chosen(project: Project, options: list[str], expected: list[str]) -> None:
    project.dag("dags/a.py", "one: clean safe, rerun safe")
    project.dag("dags/b.py", "two: clean safe, rerun safe")
    assert project.ids(*options) == [f"dags/{name}" for name in expected]


def test_an_unknown_id_is_not_found(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    assert "dags/a.py::other" in usage_error(project.run("dags/a.py::other"))


def test_exitfirst_lastfailed_and_stepwise(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe, rerun unsafe, crash.a unsafe, crash.b safe")
    project.run("-x").assert_outcomes(passed=1, failed=1)
    project.run().assert_outcomes(passed=2, failed=2)
    project.run("--lf").assert_outcomes(failed=2)
    project.run("--sw").assert_outcomes(passed=1, failed=1)
    project.run("--sw").assert_outcomes(failed=1)
    project.run("--sw", "--sw-skip").assert_outcomes(failed=2)


def test_a_failure_names_the_dag_for_annotations(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe", "two: clean unsafe")
    project.write("conftest.py", "def pytest_runtest_logstart(location): print('at', location)")
    project.run("-s").stdout.fnmatch_lines(
        ["*at ('dags/a.py', 1, 'one::clean')", "*at ('dags/a.py', 2, 'two::clean')"]
    )


def test_packages_and_files_on_the_command_line_are_not_imported(project: Project) -> None:
    for package in ("dags", "dags/sub"):
        project.dag(f"{package}/__init__.py")
    project.dag("dags/sub/a.py", "one: clean safe, rerun safe")
    project.write("dags/sub/test_b.py", "def test_b(): pass")
    project.run("dags/sub/a.py").assert_outcomes(passed=2)
    project.write("dags/__init__.py", "")
    project.write("dags/sub/__init__.py", "import sys; sys.modules['seen'] = 1")
    project.run("dags").assert_outcomes(passed=3)


def test_doctests_and_ordinary_tests_run_as_usual(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    project.write("tests/test_x.py", "def test_x(): pass")
    project.write("tests/notes.txt", ">>> 1\n1\n")
    assert project.ids("--doctest-glob=*.txt") == [
        "dags/a.py::one::clean",
        "tests/notes.txt::notes.txt",
        "tests/test_x.py::test_x",
    ]


# --- which DAG files --------------------------------------------------------------------------


def test_the_first_source_with_dag_files_wins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("tests/test_x.py", "def test_x(): pass")
    project.dag("dags/d.py", "default: c safe")
    assert project.ids("tests") == ["tests/test_x.py::test_x", "dags/d.py::default::c"]
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(project.path / "flows"))
    assert project.ids("tests") == ["tests/test_x.py::test_x", "dags/d.py::default::c"]
    project.dag("flows/f.py", "flow: c safe")
    assert project.ids("tests") == ["tests/test_x.py::test_x", "flows/f.py::flow::c"]
    project.write("rerun-safety.toml", "dags = ['mine', 'other/o.py']")
    project.dag("mine/m.py", "mine: c safe")
    project.dag("other/o.py", "other: c safe")
    project.dag("other/p.py", "not_asked_for: c safe")
    found = ["mine/m.py::mine::c", "other/o.py::other::c"]
    assert project.ids("tests") == ["tests/test_x.py::test_x", *found]
    assert project.ids("dags", "tests") == ["dags/d.py::default::c", "tests/test_x.py::test_x"]
    assert project.ids() == [*found, "tests/test_x.py::test_x"]


def test_testpaths_are_no_paths_of_the_command_line(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ntestpaths = tests\n")
    project.dag("tests/helper.py", "helper: c safe")
    project.write("tests/test_x.py", "def test_x(): pass")
    project.dag("dags/d.py", "default: c safe")
    assert project.ids() == ["tests/test_x.py::test_x", "dags/d.py::default::c"]


def test_an_added_dags_folder_brings_no_ordinary_tests(project: Project) -> None:
    project.write("tests/test_x.py", "def test_x(): pass")
    project.write("dags/test_y.py", "def test_y(): pass")
    project.dag("dags/d.py", "default: c safe")
    assert project.ids("tests") == ["tests/test_x.py::test_x", "dags/d.py::default::c"]


def test_folders_that_overlap_are_collected_once_and_wholly(project: Project) -> None:
    project.dag("dags/d.py", "default: c safe")
    project.dag("dags/sub/e.py", "sub: c safe")
    project.write("dags/tests/test_x.py", "def test_x(): pass")
    project.write("rerun-safety.toml", "dags = ['dags/sub', 'dags']")
    found = project.ids("dags/tests")
    assert sorted(found) == ["dags/d.py::default::c", "dags/sub/e.py::sub::c", "dags/tests/test_x.py::test_x"]
    project.write("rerun-safety.toml", "dags = ['dags/sub/e.py', 'dags/sub']")
    assert project.ids("dags/tests") == ["dags/tests/test_x.py::test_x", "dags/sub/e.py::sub::c"]


def test_a_dags_folder_may_lie_outside_of_the_project(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "d.py").write_text("import airflow\n# dag away: c safe" + IMPORTED)
    project.write("test_x.py", "def test_x(): pass")
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(outside))
    project.run().assert_outcomes(passed=2)


def test_a_test_is_a_dag_file_only_if_it_holds_a_dag(project: Project) -> None:
    project.write("tests/test_dags.py", "# airflow\ndef test_x(): pass")
    project.write("tests/conftest.py", "# airflow")
    project.dag("dags/d.py", "default: c safe")
    assert project.ids("tests") == ["tests/test_dags.py::test_x", "dags/d.py::default::c"]
    project.write("tests/test_dags.py", "# airflow\n# dag both: c safe\ndef test_x(): pass")
    both = ["tests/test_dags.py::test_x", "tests/test_dags.py::both::c"]
    (project.path / "calls.log").unlink()
    assert project.ids("tests") == both
    assert project.calls().count("load test_dags.py") == 1
    assert project.ids("tests/test_dags.py") == both
    assert project.ids("tests/test_dags.py::both::c") == both[1:]


def test_python_files_says_what_is_named_like_a_test(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\npython_files = check_*.py\n")
    project.write("dags/check_it.py", "# airflow\n# dag one: c safe\ndef test_x(): pass")
    project.dag("dags/test_it.py", "two: c safe")
    assert sorted(project.ids("dags/check_it.py", "dags/test_it.py")) == [
        "dags/check_it.py::one::c",
        "dags/check_it.py::test_x",
        "dags/test_it.py::two::c",
    ]


def test_the_user_is_told_where_the_dag_files_are_from(project: Project) -> None:
    project.dag("dags/d.py", "default: c safe")
    line = "rerun safety: 1 DAG file from ./dags, profile default"
    project.run().stdout.fnmatch_lines([line])
    project.run("-q").stdout.no_fnmatch_line(line)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["some_folder"],
            "--rerun-safety: no DAG file in 'some_folder'; "
            "also looked at `dags` in pyproject.toml (not set), "
            "AIRFLOW__CORE__DAGS_FOLDER (not set), ./dags (does not exist)\nA DAG file is a .py file that ",
        ),
        ([], "--rerun-safety: no DAG file; also looked at `dags` in pyproject.toml (not set), "),
        (["no_such_folder"], "file or directory not found: no_such_folder"),
    ],
)
def test_no_dag_file_at_all_is_told(project: Project, args: list[str], told: str) -> None:
    project.write("some_folder/plain.py", "")
    assert usage_error(project.run(*args)).startswith(told)


def test_an_empty_source_is_told(project: Project) -> None:
    project.write("dags/plain.py", "")
    assert "./dags (holds none)" in usage_error(project.run())


def test_configured_dags_that_do_not_exist_are_told(project: Project) -> None:
    project.write("rerun-safety.toml", "dags = ['dagz']")
    assert usage_error(project.run()).startswith("rerun-safety.toml: dags: 'dagz' does not exist in ")


def test_what_keeps_airflow_away_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.dag("dags/d.py", "default: c safe")
    monkeypatch.setenv("FAKE_NO_AIRFLOW", "1")
    assert usage_error(project.run()) == "Airflow is not installed here"


# --- settings of DAGs that are not there --------------------------------------------------------


UNKNOWN = (
    "rerun-safety.toml: settings for unknown DAGs: "
    "no DAG 'ordrs', did you mean 'orders'?; DAGs: items, orders"
)


def with_a_typo(project: Project) -> Project:
    project.write("rerun-safety.toml", "[dag.ordrs]\nskip = 'not now'\n")
    project.dag("dags/a.py", "orders: c safe")
    project.dag("dags/b.py", "items: c safe")
    return project


@pytest.mark.parametrize("args", [[], ["dags"], ["dags/b.py", "dags/a.py::orders::c"], ["--collect-only"]])
def test_settings_of_unknown_dags_are_told_if_all_dags_are_known(project: Project, args: list[str]) -> None:
    result = with_a_typo(project).run(*args)
    assert usage_error(result) == UNKNOWN
    assert not [call for call in project.calls() if call.startswith("run")]


@pytest.mark.parametrize("args", [["dags/a.py"], ["dags/a.py::orders"], ["dags", "--ignore=dags/b.py"]])
def test_a_part_of_the_dags_tells_nothing_of_the_rest(project: Project, args: list[str]) -> None:
    with_a_typo(project).run(*args).assert_outcomes(passed=1)


def test_a_broken_file_may_hold_the_unknown_dag(project: Project) -> None:
    project.dag("dags/c.py", extra="# broken")
    with_a_typo(project).run().assert_outcomes(passed=2, failed=1)


def test_settings_of_unknown_dags_are_told_under_xdist(project: Project) -> None:
    pytest.importorskip("xdist")
    result = with_a_typo(project).run("-n", "2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*ERROR*rerun-safety.toml*", "rerun-safety.toml: settings for unknown DAGs: *"]
    )
    assert not [call for call in project.calls() if call.startswith("run")]


# --- reports ----------------------------------------------------------------------------------


def many(project: Project) -> Project:
    project.dag("dags/a.py", "one: clean safe, rerun unsafe, crash.x safe", "two: clean unverifiable")
    project.dag("dags/b.py", "three: clean safe, rerun known, crash.x error")
    project.dag("dags/c.py", extra="# broken")
    return project


def report(project: Project, *args: str) -> dict[str, Any]:
    project.run("--rerun-safety-report=json:out.json", *args)
    found: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return found


def test_the_json_report_holds_every_check(project: Project) -> None:
    found = report(many(project), "--rerun-safety-profile=fast")
    assert found["profile"] == "fast"
    assert found["versions"].keys() == {"pytest_rerunsafe", "airflow", "python", "pytest"}
    assert [(dag["file"], dag["dag_id"], dag["verdict"]) for dag in found["dags"]] == [
        ("dags/a.py", "one", "unsafe"),
        ("dags/a.py", "two", "unverifiable"),
        ("dags/b.py", "three", "error"),
        ("dags/c.py", "", "error"),
    ]
    checks = [[check["check"] for check in dag["checks"]] for dag in found["dags"]]
    assert checks == [["clean", "rerun", "crash.x"], ["clean"], ["clean", "rerun", "crash.x"], ["load"]]
    assert not list(project.path.glob(".out*"))


def test_the_report_is_the_same_under_xdist(project: Project) -> None:
    pytest.importorskip("xdist")
    alone = report(many(project))
    (project.path / "out.json").unlink()
    (project.path / "calls.log").unlink()
    shared = report(project, "-n", "2")
    assert shared["dags"] == alone["dags"]
    assert len([call for call in project.calls() if call.startswith("run")]) == 7
    # The controller finds the DAG files, two workers load them: each has a checker, each checker is closed.
    assert project.calls().count("new") == project.calls().count("close") == 3


def test_a_shuffled_run_gives_the_same_report(project: Project) -> None:
    straight = report(many(project))
    project.write("conftest.py", "def pytest_collection_modifyitems(items): items.reverse()")
    assert report(project)["dags"] == straight["dags"]


@pytest.mark.parametrize("distribution", [[], ["-n", "2"]])
def test_the_terminal_summary_has_a_line_per_dag(project: Project, distribution: list[str]) -> None:
    if distribution:
        pytest.importorskip("xdist")
    result = many(project).run("--color=yes", *distribution)
    result.stdout.fnmatch_lines(
        [
            "*= rerun safety =*",
            "DAG*verdict*",
            "*[[]31mone *unsafe*",
            "*[[]33mtwo *unverifiable*",
            "*[[]31mthree *error*",
            "*[[]31mdags/c.py *error*",
        ]
    )


def test_a_session_without_checks_has_no_summary(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    project.write("tests/test_x.py", "def test_x(): pass")
    project.run("-m", "not rerun_safety").stdout.no_fnmatch_line("*= rerun safety =*")


def test_an_interrupted_session_reports_what_it_has(project: Project) -> None:
    found = report(many(project), "-x")
    assert [dag["dag_id"] for dag in found["dags"]] == ["one"]
    assert [check["check"] for check in found["dags"][0]["checks"]] == ["clean", "rerun"]


def test_results_are_in_the_junit_report(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    project.run("--junitxml=junit.xml")
    assert 'property name="rerun_safety" value="{' in (project.path / "junit.xml").read_text()


def test_collecting_writes_no_report(project: Project) -> None:
    many(project).run("--rerun-safety-report=json:out.json", "--collect-only")
    assert not (project.path / "out.json").exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (
            "--rerun-safety-report=xml:out",
            "--rerun-safety-report=xml:out: expected FORMAT:PATH; valid formats: json",
        ),
        (
            "--rerun-safety-report=json:",
            "--rerun-safety-report=json:: expected FORMAT:PATH; valid formats: json",
        ),
        ("--rerun-safety-report=out", "--rerun-safety-report=out: expected FORMAT:PATH; valid formats: json"),
        (
            "--rerun-safety-report=json:dags",
            "--rerun-safety-report=json:dags: 'dags' is a folder; name a file in it",
        ),
    ],
)
def test_a_report_that_cannot_be_is_told_at_once(project: Project, option: str, told: str) -> None:
    assert usage_error(many(project).run(option)) == told
    assert project.calls() == []


def test_a_report_in_a_missing_folder_is_told_at_once(project: Project) -> None:
    told = usage_error(many(project).run("--rerun-safety-report=json:no/out.json"))
    folder = project.path / "no"
    assert told == f"--rerun-safety-report=json:no/out.json: there is no folder '{folder}'; create it first"


def test_an_unknown_profile_is_told_with_the_valid_ones(project: Project) -> None:
    told = usage_error(many(project).run("--rerun-safety-profile=fats"))
    assert "'fats'" in told
    assert all(profile in told for profile in ("fast", "default", "thorough"))


@pytest.mark.parametrize("given", ["0", "-3", "nan", "soon", ""])
def test_a_budget_that_is_no_time_is_told(project: Project, given: str) -> None:
    told = usage_error(many(project).run(f"--rerun-safety-budget={given}"))
    assert told == f"--rerun-safety-budget={given}: expected a number of seconds above 0, such as 60"
    assert project.calls() == []


def test_a_report_that_could_not_be_written_is_told(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    project.write("out/keep", "")
    project.write(
        "conftest.py",
        "import pytest, shutil\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_sessionfinish(session): shutil.rmtree(session.config.rootpath / 'out')",
    )
    result = project.run("--rerun-safety-report=json:out/report.json")
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["cannot write *out/report.json: No such file or directory"])


# --- replay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [[], ["-n", "2"]])
def test_replay_tells_one_scenario_and_runs_no_items(project: Project, distribution: list[str]) -> None:
    if distribution:
        pytest.importorskip("xdist")
    project.dag("dags/a.py", "one: clean unsafe")
    project.write("test_x.py", "def test_x(): assert 0")
    result = project.run("--rerun-safety-replay=good", *distribution)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*= rerun safety replay =*", "the story of good in a.py"])
    assert not [call for call in project.calls() if call.startswith("run")]


def test_replay_needs_no_other_flag(project: Project) -> None:
    project.dag("dags/a.py", "one: clean unsafe")
    args = ("-p", "fake_check", "--rerun-safety-replay=good", "dags/a.py")
    result = project.pytester.runpytest_inprocess(*args)
    result.stdout.fnmatch_lines(["the story of good in a.py"])


def test_replay_of_an_unknown_scenario_is_told(project: Project) -> None:
    project.dag("dags/a.py", "one: clean unsafe")
    assert (
        usage_error(project.run("--rerun-safety-replay=goof")) == "no scenario 'goof'; did you mean 'good'?"
    )


# --- the conftest hook ------------------------------------------------------------------------


def prepares(project: Project, folder: str) -> None:
    name = folder or "root"
    project.write(
        f"{folder}/conftest.py".lstrip("/"),
        f"def pytest_rerun_safety_prepare(dag, world): world('prepare', dag, {name!r})\n",
    )


def test_prepare_is_asked_of_the_conftests_above_the_file(project: Project) -> None:
    for folder in ("", "dags", "dags/a", "dags/b"):
        prepares(project, folder)
    project.dag("dags/a/a.py", "one: clean safe")
    project.dag("dags/b/b.py", "two: clean safe")
    project.run().assert_outcomes(passed=2)
    assert [call for call in project.calls() if call.startswith("prepare")] == [
        "prepare one dags/a",
        "prepare one dags",
        "prepare one root",
        "prepare two dags/b",
        "prepare two dags",
        "prepare two root",
    ]


def test_prepare_may_live_in_a_plugin(project: Project) -> None:
    project.write(
        "inputs.py", "def pytest_rerun_safety_prepare(dag, world): world('prepare', dag, 'plugin')\n"
    )
    project.dag("dags/a.py", "one: clean safe")
    project.run("-p", "inputs").assert_outcomes(passed=1)
    assert "prepare one plugin" in project.calls()


def test_the_checker_is_made_anew_for_a_conftest_that_it_cannot_know(project: Project) -> None:
    project.dag("dags/a/a.py", "one: clean safe")
    project.dag("dags/b/b.py", "two: clean safe")
    prepares(project, "dags/b")
    prepares(project, "tests")
    project.write("tests/test_x.py", "def test_x(): pass")
    project.run().assert_outcomes(passed=3)
    # Finding the files took the first; conftest.py of b.py came later, that of the tests is no matter.
    assert project.calls() == [
        "new",
        "load a.py",
        "close",
        "new",
        "load b.py",
        "run one clean",
        "run two clean",
        "prepare two dags/b",
        "close",
    ]


def test_a_conftest_above_the_arguments_is_known_from_the_start(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    prepares(project, "")
    prepares(project, "dags")
    project.run("dags").assert_outcomes(passed=1)
    assert project.calls().count("new") == 1


# --- beside other plugins ---------------------------------------------------------------------


def test_it_lives_without_a_terminal(project: Project) -> None:
    many(project)
    project.dag("dags/d.py", "four: clean safe")
    assert [dag["dag_id"] for dag in report(project, "-p", "no:terminal")["dags"]][-1] == "four"
    assert project.run("-p", "no:terminal", "--rerun-safety-replay=good").ret == pytest.ExitCode.OK


def test_no_warning_is_ours(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe, rerun safe")
    result = project.pytester.runpytest_subprocess(
        "-p", "fake_check", "--rerun-safety", "-W", "error", "--strict-markers", "--strict-config"
    )
    result.assert_outcomes(passed=2)


def test_the_checker_is_closed_when_collection_fails(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    project.write("test_x.py", "1 / 0")
    assert project.run().ret == pytest.ExitCode.INTERRUPTED
    assert project.calls()[-1] == "close"


def test_module_import_modes_do_not_matter(project: Project) -> None:
    project.dag("dags/a.py", "one: clean safe")
    assert project.ids("--import-mode=importlib", "dags/a.py") == ["dags/a.py::one::clean"]
    assert os.path.isfile(project.path / "calls.log")
