"""The configuration as values, read and validated, and where it has DAG files looked for; knows no pytest."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timezone
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from .model import Profile, RecoveryKind

PYPROJECT = "pyproject.toml"
OWN_FILE = "rerun-safety.toml"
SECTION = "tool.rerun-safety"
DAGS_FOLDER = "AIRFLOW__CORE__DAGS_FOLDER"


class SettingsError(Exception):
    """A configuration that means nothing; the message is one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagSettings:
    """What holds for one DAG, the project's values where it has none of its own."""

    logical_date: datetime | None = None
    """In UTC; None: its first interval."""
    outputs: tuple[str, ...] = ()
    """Only these count; empty: everything that the run changed."""
    ignore: tuple[str, ...] = ()
    """Globs of outputs that don't count."""
    unordered: tuple[str, ...] = ()
    """Outputs whose records may stand in any order."""
    local: tuple[str, ...] = ()
    """Files and folders that a worker has for itself: a rerun finds them as they were before the run."""
    recoveries: tuple[RecoveryKind, ...] = ()
    """Only these are tried; empty: those of the profile."""
    budget: float | None = None
    """Seconds that its checks may take; None: as long as they need."""
    skip: str | None = None
    """Why it is not checked; None: it is."""


_SHARED = ("outputs", "ignore", "unordered", "local", "budget")
"""What holds for all DAGs that do not say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of a project."""

    dags: tuple[str, ...] = ()
    """Folders and files, relative to the rootdir."""
    profile: Profile = Profile.DEFAULT
    ignore: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    unordered: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    budget: float | None = None
    """Seconds per DAG; None: as long as it takes."""
    dag: Mapping[str, DagSettings] = field(default_factory=dict)
    """By DAG id; only DAGs that have settings of their own."""
    file: str = PYPROJECT
    """The name of the file that they stand in, or would."""

    def for_dag(self, dag_id: str) -> DagSettings:
        """What holds for a DAG, whether it has settings of its own or not."""
        shared = {key: getattr(self, key) for key in _SHARED}
        return self.dag.get(dag_id, DagSettings(**shared))


# --- reading ----------------------------------------------------------------------------------

_Table: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a value stands, for messages."""

    file: str
    keys: tuple[str, ...]

    def at(self, key: str) -> _Place:
        return replace(self, keys=(*self.keys, key))

    def __str__(self) -> str:
        dotted = ".".join(key if re.fullmatch(r"[\w-]+", key) else f'"{key}"' for key in self.keys)
        return f"{self.file}: {dotted}" if dotted else self.file


_Reader: TypeAlias = Callable[[object, _Place], Any]
"""Turns a value of the file into one of ours. Raises SettingsError."""


def read_settings(rootdir: Path, *, profile: str | None = None, budget: float | None = None) -> Settings:
    """The configuration of a project; a profile and a budget from the command line win. Raises SettingsError."""
    table, place = _find_table(rootdir)
    values = _read_table(table, place, _PROJECT_KEYS)
    tables: Mapping[str, _Table] = values.pop("dag", {})
    wins = {} if budget is None else {"budget": budget}
    shared: _Table = {key: values[key] for key in _SHARED if key in values}
    dag = {dag_id: DagSettings(**{**shared, **own, **wins}) for dag_id, own in tables.items()}
    settings = Settings(**{**values, **wins}, dag=dag, file=place.file)
    return replace(settings, profile=Profile(profile)) if profile else settings


def _find_table(rootdir: Path) -> tuple[_Table, _Place]:
    own = _load(rootdir / OWN_FILE)
    tool = _table((_load(rootdir / PYPROJECT) or {}).get("tool", {}), _Place(file=PYPROJECT, keys=("tool",)))
    name = SECTION.partition(".")[2]
    if name not in tool:
        return own or {}, _Place(file=OWN_FILE if own is not None else PYPROJECT, keys=())
    if own is not None:
        raise SettingsError(
            f"settings stand both in {OWN_FILE} and under [{SECTION}] in {PYPROJECT}: keep one of them"
        )
    place = _Place(file=PYPROJECT, keys=tuple(SECTION.split(".")))
    return _table(tool[name], place), place


def _load(path: Path) -> _Table | None:
    """A TOML file; None if there is none."""
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: _Table = toml.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{path.name}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{path.name}: not valid TOML: {error}") from error
    return table


def _read_table(table: _Table, place: _Place, readers: Mapping[str, _Reader]) -> dict[str, Any]:
    for key, value in table.items():
        if key not in readers:
            raise SettingsError(_unknown_key(key, value, place, readers))
    return {key: readers[key](value, place.at(key)) for key, value in table.items()}


def _unknown_key(key: str, value: object, place: _Place, valid: Collection[str]) -> str:
    message = f"{place}: unknown key {key!r}{_nearest(key, valid)}; valid keys: {', '.join(sorted(valid))}"
    is_dotted_id = isinstance(value, dict) and len(place.keys) >= 2 and place.keys[-2] == "dag"
    if not is_dotted_id:
        return message
    dag_id = f"{place.keys[-1]}.{key}"
    return f'{message}; if this is the DAG {dag_id!r}, put its id in quotes: dag."{dag_id}"'


def _nearest(word: str, words: Iterable[str]) -> str:
    """`, did you mean 'x'?`; empty if nothing is near."""
    near = get_close_matches(word, sorted(words), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


# --- values -----------------------------------------------------------------------------------


def _wrong(value: object, place: _Place, expected: str) -> SettingsError:
    return SettingsError(f"{place}: expected {expected}, got {_shown(value)}")


def _shown(value: object) -> str:
    return str(value) if isinstance(value, (date, time)) else repr(value)


def _table(value: object, place: _Place) -> _Table:
    if not isinstance(value, dict):
        raise _wrong(value, place, "a table")
    return value


def _strings(value: object, place: _Place) -> tuple[str, ...]:
    expected = "a list of non-empty strings"
    if not isinstance(value, list):
        raise _wrong(value, place, expected)
    for entry in value:
        if not isinstance(entry, str) or not entry.strip():
            raise SettingsError(f"{_wrong(entry, place, expected)} in it")
    return tuple(value)


def _reason(value: object, place: _Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, place, "the reason as non-empty text")
    return value.strip()


def _absolute_paths(value: object, place: _Place) -> tuple[str, ...]:
    given = _strings(value, place)
    for path in given:
        if not path.startswith("/") or not path.strip("/"):
            raise SettingsError(f"{place}: expected absolute paths such as '/tmp', got {path!r} in it")
    return tuple("/" + path.strip("/") for path in given)


def _recoveries(value: object, place: _Place) -> tuple[RecoveryKind, ...]:
    words = [str(recovery) for recovery in RecoveryKind]
    given = _strings(value, place)
    for word in given:
        if word not in words:
            raise SettingsError(
                f"{place}: unknown recovery {word!r}{_nearest(word, words)}; recoveries: {', '.join(words)}"
            )
    return tuple(RecoveryKind(word) for word in given)


def _profile(value: object, place: _Place) -> Profile:
    words = [str(profile) for profile in Profile]
    if not isinstance(value, str) or value not in words:
        hint = _nearest(value, words) if isinstance(value, str) else ""
        raise SettingsError(f"{_wrong(value, place, ' or '.join(words))}{hint}")
    return Profile(value)


def _budget(value: object, place: _Place) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_budget(value):
        raise _wrong(value, place, "a number of seconds above 0, such as 60")
    return float(value)


def is_budget(seconds: float) -> bool:
    """Whether checks may be given so many seconds."""
    return seconds > 0 and not math.isnan(seconds)


def _logical_date(value: object, place: _Place) -> datetime:
    moment = _moment(value)
    if moment is None:
        raise _wrong(value, place, "a date such as 2024-01-15 or a time such as 2024-01-15T06:00:00+00:00")
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)


def _moment(value: object) -> datetime | None:
    """The point in time that a TOML value means, naive if it names no offset; None if it means none."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if not isinstance(value, str):
        return None
    try:
        # CPython 3.10 does not read the Z.
        return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", value.strip()))
    except ValueError:
        return None


def _dag_tables(value: object, place: _Place) -> Mapping[str, _Table]:
    tables = _table(value, place)
    return {
        dag_id: _read_table(_table(table, place.at(dag_id)), place.at(dag_id), _DAG_KEYS)
        for dag_id, table in tables.items()
    }


_DAG_KEYS: Mapping[str, _Reader] = {
    "budget": _budget,
    "ignore": _strings,
    "local": _absolute_paths,
    "logical_date": _logical_date,
    "outputs": _strings,
    "recoveries": _recoveries,
    "skip": _reason,
    "unordered": _strings,
}
_PROJECT_KEYS: Mapping[str, _Reader] = {
    "budget": _budget,
    "dag": _dag_tables,
    "dags": _strings,
    "ignore": _strings,
    "local": _absolute_paths,
    "outputs": _strings,
    "profile": _profile,
    "unordered": _strings,
}


# --- against the project ----------------------------------------------------------------------


def unknown_dags(settings: Settings, known: Collection[str]) -> str | None:
    """What to tell the user of settings for DAGs that the project does not have; None if there are none."""
    unknown = sorted(set(settings.dag) - set(known))
    if not unknown:
        return None
    named = "; ".join(f"no DAG {dag_id!r}{_nearest(dag_id, known)}" for dag_id in unknown)
    return f"{settings.file}: settings for unknown DAGs: {named}; DAGs: {', '.join(sorted(known)) or 'none'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place that DAG files may come from."""

    title: str
    """As a person would name it."""
    paths: tuple[str, ...]
    """Absolute paths that exist; empty: it gives nothing."""
    lack: str = ""
    """Why there are no paths."""


def sources(settings: Settings, rootdir: Path, environ: Mapping[str, str]) -> tuple[Source, ...]:
    """Where DAG files are looked for if the command line names none, best first. Raises SettingsError."""
    return (_configured(settings, rootdir), _airflow_folder(environ), _default_folder(rootdir))


def _configured(settings: Settings, rootdir: Path) -> Source:
    paths = tuple(os.path.abspath(rootdir / path) for path in settings.dags)
    for given, path in zip(settings.dags, paths, strict=True):
        if not os.path.exists(path):
            raise SettingsError(f"{settings.file}: dags: {given!r} does not exist in {rootdir}")
    return Source(title=f"`dags` in {settings.file}", paths=paths, lack="not set")


def _airflow_folder(environ: Mapping[str, str]) -> Source:
    given = environ.get(DAGS_FOLDER, "")
    path = os.path.abspath(os.path.expanduser(os.path.expandvars(given)))
    is_there = bool(given) and os.path.exists(path)
    lack = f"{given!r} does not exist" if given else "not set"
    return Source(title=DAGS_FOLDER, paths=(path,) if is_there else (), lack=lack)


def _default_folder(rootdir: Path) -> Source:
    path = rootdir / "dags"
    return Source(title="./dags", paths=(str(path),) if path.is_dir() else (), lack="does not exist")
