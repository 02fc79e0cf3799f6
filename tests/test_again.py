"""Workers that die again: in the recovery, and at the same point in every try."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dag_projects import Project, project

from pytest_rerunsafe.compare.rules import RULES
from pytest_rerunsafe.model import CrashKind, Finding, Profile, Verdict
from pytest_rerunsafe.report.text import finding_text
from pytest_rerunsafe.settings import Settings


@pytest.fixture(scope="module")
def thorough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    yield from project(tmp_path_factory.mktemp("again").resolve(), Settings(profile=Profile.THOROUGH))


def without_power(findings: tuple[Finding, ...]) -> list[Finding]:
    """What kills show."""
    return [finding for finding in findings if finding.crash_kind is CrashKind.KILL]


DAG = """
    import os, shutil
    from airflow.sdk import dag, task

    @dag(schedule=None, default_args={{"retries": {retries}}})
    def {name}():
        @task
        def load():
            os.makedirs("/data/begun", exist_ok=True)
            begun = sorted(map(int, os.listdir("/data/begun")))
            deaths = len(begun)
            os.mkdir(f"/data/begun/{{begun[-1] + 1 if begun else 0}}")
            try:
                if deaths < {bears}:
                    with open("/data/out.tmp", "w") as file:
                        file.write("whole")
                    os.replace("/data/out.tmp", "/data/out")
                elif os.path.exists("/data/out.tmp"):
                    os.remove("/data/out.tmp")
            finally:
                shutil.rmtree("/data/begun")

        load()

    {name}()
"""
"""A task that gives up once it has been killed so many times; what it can notice does not count."""


def test_what_bears_one_death_and_not_a_second_in_the_recovery_is_found(thorough: Project) -> None:
    found = thorough.check("twice", DAG.format(name="twice", retries=0, bears=2))
    (finding,) = without_power(found.findings)
    assert len(finding.before) == 1
    assert finding.before[0].endswith(" (clear-downstream)")
    told = " ".join(finding_text(finding, RULES[finding.rule]).split())
    assert f"It had died before, at: {finding.before[0]}" in told
    scenario = finding.replay.partition("replay=")[2].split()[0].strip("'")
    story = thorough.checker.replay(scenario, [str(thorough.root / "dags" / "twice.py")])
    assert "It has died before, at load@" in story
    assert f"Verdict: unsafe, {finding.rule}" in story


def test_what_bears_all_but_the_same_death_in_each_try_is_found(thorough: Project) -> None:
    found = thorough.check("tries", DAG.format(name="tries", retries=2, bears=3))
    (finding,) = without_power(found.findings)
    assert [before.rpartition(" ")[2] for before in finding.before] == ["(retry)", "(retry)"]
    assert finding.recovery == "clear-downstream"


def test_what_bears_any_number_of_deaths_is_not_found(thorough: Project) -> None:
    source = DAG.format(name="bears", retries=1, bears=99)
    found = thorough.check("bears", source)
    assert without_power(found.findings) == []
    assert found["clean"].verdict is Verdict.SAFE


def test_default_tries_one_death(dags: Project) -> None:
    assert dags.check("once", DAG.format(name="once", retries=0, bears=2)).worst is Verdict.SAFE
