"""The command line options: one table, and what their values mean; no check is started here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .model import Profile
from .settings import Settings, SettingsError, is_budget, read_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One command line option."""

    flag: str
    help: str
    argparse: Mapping[str, Any] = field(default_factory=dict)


OPTIONS = (
    Option(
        flag="--rerun-safety",
        help="Check that every DAG found survives crashes and reruns",
        argparse={"action": "store_true"},
    ),
    Option(
        flag="--rerun-safety-profile",
        help="How much to explore: fast, default or thorough",
        argparse={"choices": [str(profile) for profile in Profile], "metavar": "PROFILE"},
    ),
    Option(
        flag="--rerun-safety-budget",
        help="Seconds that the checks of a DAG may take; what is cut off is told and never called safe",
        argparse={"metavar": "SECONDS"},
    ),
    Option(
        flag="--rerun-safety-report",
        help="Write a report, for instance json:report.json. May be given more than once.",
        argparse={"action": "append", "default": [], "metavar": "FORMAT:PATH"},
    ),
    Option(
        flag="--rerun-safety-replay",
        help="Run one scenario again, verbosely, and nothing else",
        argparse={"metavar": "ID"},
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Make the options known to pytest."""
    group = parser.getgroup("rerun safety", "crashes and reruns of Airflow DAGs")
    for option in OPTIONS:
        group.addoption(option.flag, help=option.help, **option.argparse)


def is_asked_for(config: pytest.Config) -> bool:
    """Whether the user wants DAGs checked, or one scenario replayed."""
    return bool(config.getoption("rerun_safety")) or replay_id(config) is not None


def replay_id(config: pytest.Config) -> str | None:
    """The scenario to replay; None if all is to be checked."""
    given: str | None = config.getoption("rerun_safety_replay")
    return given


def settings_of(config: pytest.Config) -> Settings:
    """The configuration, as the command line has it. Raises pytest.UsageError."""
    try:
        return read_settings(
            config.rootpath, profile=config.getoption("rerun_safety_profile"), budget=_budget(config)
        )
    except SettingsError as error:
        raise pytest.UsageError(str(error)) from error


def _budget(config: pytest.Config) -> float | None:
    given: str | None = config.getoption("rerun_safety_budget")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not is_budget(seconds):
        raise pytest.UsageError(
            f"--rerun-safety-budget={given}: expected a number of seconds above 0, such as 60"
        )
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportTarget:
    """A report that the user wants: in which format, where."""

    format: str
    path: Path


def report_targets(config: pytest.Config, formats: Collection[str]) -> tuple[ReportTarget, ...]:
    """The reports that the user wants. Raises pytest.UsageError: now, not after the run."""
    given: list[str] = config.getoption("rerun_safety_report")
    return tuple(_report_target(text, config.invocation_params.dir, formats) for text in given)


def _report_target(text: str, folder: Path, formats: Collection[str]) -> ReportTarget:
    name, _, path = text.partition(":")
    if name not in formats or not path:
        raise pytest.UsageError(
            f"--rerun-safety-report={text}: expected FORMAT:PATH; valid formats: {', '.join(sorted(formats))}"
        )
    target = ReportTarget(format=name, path=folder / path)
    if target.path.is_dir():
        raise pytest.UsageError(f"--rerun-safety-report={text}: {path!r} is a folder; name a file in it")
    if not target.path.parent.is_dir():
        raise pytest.UsageError(
            f"--rerun-safety-report={text}: there is no folder {str(target.path.parent)!r}; create it first"
        )
    return target
