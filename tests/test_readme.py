"""README says nothing that is not so: its commands, options, keys, rules and output are those of the plugin."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pytest_rerunsafe.compare.rules import RULES
from pytest_rerunsafe.fixtures import RerunSafety, Run
from pytest_rerunsafe.hookspecs import pytest_rerun_safety_prepare
from pytest_rerunsafe.model import Profile, RecoveryKind, Rule, Verdict
from pytest_rerunsafe.options import OPTIONS
from pytest_rerunsafe.plugin import REPORT_FORMATS
from pytest_rerunsafe.settings import DagSettings, Settings, SettingsError, read_settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHOW = (
    'python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ".[airflow]" '
    "&& .venv/bin/pytest --rerun-safety example_dags/"
)
TEST = (
    'python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ".[airflow,test]" '
    "&& .venv/bin/pytest"
)


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The indented lines outside of fenced blocks."""
    outside = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^    (\S.*)$", outside, re.MULTILINE)


def table(first_heading: str) -> list[list[str]]:
    """The rows of the table whose first heading that is, without code marks."""
    found = re.search(rf"^\| {first_heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found, f"no table {first_heading!r}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()]


def words(first_heading: str) -> list[str]:
    """The first column of a table."""
    return [row[0].strip("`") for row in table(first_heading)]


def run(command: str) -> str:
    """What a pytest command of README's prints, from the root of the project."""
    program, *arguments = shlex.split(command)
    assert program == "pytest"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_it_has_the_two_commands_that_are_promised() -> None:
    assert blocks("bash") == [f"{SHOW}\n", f"{TEST}\n"]


def test_ci_finds_the_test_command() -> None:
    pattern = re.search(r"grep -m1 -oE '([^']+)' README", (ROOT / ".ci" / "run").read_text())
    assert pattern
    assert re.findall(pattern[1], README)[:1] == [TEST]


def test_the_extras_of_the_commands_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for extra in ("airflow", "test"):
        assert re.search(rf"^{extra} = \[$", project, re.MULTILINE), extra
    assert (ROOT / "constraints.txt").is_file()


def test_it_leads_with_a_command_and_the_failure_that_it_prints() -> None:
    (shown,) = blocks("text")
    printed = run(commands()[0])
    assert shown in printed
    assert shown.splitlines()[-1].strip() in commands(), (
        "the replay under its own heading is that of the failure"
    )


def test_the_replay_shows_the_same_finding() -> None:
    (replay,) = (command for command in commands() if "--rerun-safety-replay" in command)
    printed = run(replay)
    assert "/data/chunks/chunk_1.json is done" in printed, "the log of the task"
    assert "unsafe, partial-output-accepted" in printed


def test_all_options_are_there_and_no_others() -> None:
    assert words("option") == [option.flag for option in OPTIONS]
    assert set(re.findall(r"--rerun-safety[a-z-]*", README)) <= {option.flag for option in OPTIONS}


def test_all_report_formats_are_there() -> None:
    (row,) = (row for row in table("option") if "report" in row[0])
    assert re.findall(r"`(\w+):", row[1]) == list(REPORT_FORMATS)


def test_all_profiles_are_there() -> None:
    (row,) = (row for row in table("option") if "profile" in row[0])
    assert re.findall(r"`(\w+)`", row[1]) == [str(profile) for profile in Profile]


def test_all_rules_are_there_with_their_titles() -> None:
    assert table("rule") == [[f"`{rule}`", RULES[rule].title] for rule in Rule]


def test_all_verdicts_are_there_worst_first() -> None:
    assert words("verdict") == [str(verdict) for verdict in Verdict]


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(example)
    settings = read_settings(tmp_path)
    assert settings.profile is Settings().profile, "the default is named as such"
    assert settings.for_dag("orders").skip == "talks to SAP"
    assert settings.for_dag("another").outputs == ("/data/out",)
    assert settings.for_dag("orders") != DagSettings()


@pytest.mark.parametrize("section", ["tool.rerun-safety", "tool.rerun-safety.dag.orders"])
def test_the_configuration_has_all_keys(tmp_path: Path, section: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[{section}]\nno_such_key = 1\n")
    with pytest.raises(SettingsError) as error:
        read_settings(tmp_path)
    valid = set(str(error.value).rpartition("valid keys: ")[2].split(", "))
    (example,) = blocks("toml")
    (shown,) = re.findall(rf"^\[{re.escape(section)}\].*\n((?:\w+ = .*\n)+)", example, re.MULTILINE)
    assert set(re.findall(r"^\w+", shown, re.MULTILINE)) == valid - {"dag"}


def world_methods() -> dict[str, int]:
    """The methods of the world with the number of their arguments; read, not imported, for it imports Airflow."""
    tree = ast.parse((ROOT / "pytest_rerunsafe" / "explore" / "inputs.py").read_text())
    (world,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "World")
    functions = (node for node in world.body if isinstance(node, ast.FunctionDef))
    return {node.name: len(node.args.args) - 1 for node in functions if not node.name.startswith("_")}


def test_the_conftest_gives_inputs_to_the_world() -> None:
    example, _ = blocks("python")
    names: dict[str, Any] = {}
    exec(example, names)
    world = Mock(spec_set=list(world_methods()))
    names[pytest_rerun_safety_prepare.__name__](dag=Mock(dag_id="orders"), world=world)
    assert {call[0]: len(call.args) for call in world.method_calls}.items() <= world_methods().items()
    shown = {call[0] for call in world.method_calls} | set(re.findall(r"`world\.(\w+)\(", README))
    assert shown == set(world_methods())


def test_the_tests_call_what_the_fixture_has() -> None:
    _, example = blocks("python")
    for name, kind in (("rerun_safety", RerunSafety), ("run", Run)):
        called = set(re.findall(rf"\b{name}\.(\w+)", example))
        assert called
        assert [method for method in called if not hasattr(kind, method)] == []


def test_all_recoveries_are_named() -> None:
    assert [recovery for recovery in RecoveryKind if f"`{recovery}`" not in README] == []


def test_the_versions_are_those_of_the_package() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    pythons = re.findall(r"Python :: (3\.\d+)", project)
    assert f"CPython {pythons[0]} to {pythons[-1]}" in README
    floor, above = re.findall(r"apache-airflow-core>=(3\.\d+),<3\.(\d+)", project)[0]
    assert f"Airflow {floor} to 3.{int(above) - 1}" in README


@pytest.mark.parametrize(("name", "shown"), [("speed", "pytest-rerunsafe"), ("growth", "a loop of 10")])
def test_the_benchmarks_can_rewrite_their_tables(name: str, shown: str) -> None:
    source = (ROOT / "benchmarks" / f"{name}.py").read_text()
    begin, end = re.findall(rf'"(<!-- {name}: \w+ -->)"', source)
    table = README.partition(begin)[2].partition(end)[0]
    assert shown in table
    assert f"python benchmarks/{name}.py --json" in README


def test_links_within_the_project_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target[1:] in headings if target.startswith("#") else (ROOT / target).is_file(), target


def test_the_changelog_names_all_rules_and_options() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [rule for rule in Rule if f"`{rule}`" not in changelog] == []
    assert [option.flag for option in OPTIONS if option.flag not in changelog] == []
