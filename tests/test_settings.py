"""The configuration: what is read, what is refused and how the user is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.model import Profile, RecoveryKind
from pytest_rerunsafe.settings import (
    DagSettings,
    Settings,
    SettingsError,
    read_settings,
    sources,
    unknown_dags,
)

NO_ENVIRONMENT: Mapping[str, str] = {}


def pyproject(folder: Path, text: str) -> Path:
    """A project with this pyproject.toml."""
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def refusal(folder: Path, text: str) -> str:
    """What the user is told of this pyproject.toml."""
    with pytest.raises(SettingsError) as caught:
        read_settings(pyproject(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    return message


FULL = """
[tool.rerun-safety]
dags = ["dags", "more/one.py"]
profile = "thorough"
ignore = ["*.log"]
outputs = ["/data"]
unordered = ["*.tsv"]

[tool.rerun-safety.dag.orders]
logical_date = "2024-01-15"
outputs = ["/data/out"]
unordered = ["/data/out/*.csv"]
recoveries = ["retry", "clear-run"]
skip = "talks to SAP"

[tool.rerun-safety.dag."etl.daily"]
ignore = []
"""


# --- reading ----------------------------------------------------------------------------------


def test_all_keys_are_read(tmp_path: Path) -> None:
    assert read_settings(pyproject(tmp_path, FULL)) == Settings(
        dags=("dags", "more/one.py"),
        profile=Profile.THOROUGH,
        ignore=("*.log",),
        outputs=("/data",),
        unordered=("*.tsv",),
        dag={
            "orders": DagSettings(
                logical_date=datetime(2024, 1, 15, tzinfo=timezone.utc),
                outputs=("/data/out",),
                unordered=("/data/out/*.csv",),
                ignore=("*.log",),
                recoveries=(RecoveryKind.RETRY, RecoveryKind.CLEAR_RUN),
                skip="talks to SAP",
            ),
            "etl.daily": DagSettings(outputs=("/data",), unordered=("*.tsv",)),
        },
        file="pyproject.toml",
    )


def test_a_dag_without_settings_has_those_of_the_project(tmp_path: Path) -> None:
    settings = read_settings(pyproject(tmp_path, FULL))
    shared = DagSettings(outputs=("/data",), ignore=("*.log",), unordered=("*.tsv",))
    assert settings.for_dag("other") == shared
    assert settings.for_dag("orders").skip == "talks to SAP"


def test_the_own_file_has_the_same_keys_without_the_prefix(tmp_path: Path) -> None:
    own = FULL.replace("[tool.rerun-safety]", "").replace("[tool.rerun-safety.", "[")
    (tmp_path / "rerun-safety.toml").write_text(own)
    from_own = read_settings(tmp_path)
    (tmp_path / "rerun-safety.toml").unlink()
    from_pyproject = read_settings(pyproject(tmp_path, FULL))
    assert from_own.file == "rerun-safety.toml"
    assert (from_own.dag, from_own.dags, from_own.profile) == (
        from_pyproject.dag,
        from_pyproject.dags,
        from_pyproject.profile,
    )


@pytest.mark.parametrize("text", [None, "", "[tool.other]\nx = 1\n", "[tool.rerun-safety]\n"])
def test_without_configuration_all_is_default(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        pyproject(tmp_path, text)
    assert read_settings(tmp_path) == Settings()


def test_an_empty_own_file_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "rerun-safety.toml").touch()
    assert read_settings(tmp_path) == Settings(file="rerun-safety.toml")


def test_the_profile_of_the_command_line_wins(tmp_path: Path) -> None:
    assert read_settings(pyproject(tmp_path, FULL), profile="fast").profile is Profile.FAST
    assert read_settings(pyproject(tmp_path, FULL), profile=None).profile is Profile.THOROUGH


def test_a_budget_holds_for_all_dags_and_for_one(tmp_path: Path) -> None:
    text = "[tool.rerun-safety]\nbudget = 60\n[tool.rerun-safety.dag.long]\nbudget = 0.5\n"
    settings = read_settings(pyproject(tmp_path, text))
    assert (settings.for_dag("any").budget, settings.for_dag("long").budget) == (60, 0.5)
    assert Settings().for_dag("any").budget is None


def test_the_budget_of_the_command_line_wins(tmp_path: Path) -> None:
    text = "[tool.rerun-safety]\nbudget = 60\n[tool.rerun-safety.dag.long]\nbudget = 0.5\n"
    settings = read_settings(pyproject(tmp_path, text), budget=7)
    assert (settings.for_dag("any").budget, settings.for_dag("long").budget) == (7, 7)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().profile = Profile.FAST  # type: ignore[misc]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"2024-01-15"', "2024-01-15T00:00:00+00:00"),
        ('"2024-01-15T06:30:00"', "2024-01-15T06:30:00+00:00"),
        ('"2024-01-15T06:30:00Z"', "2024-01-15T06:30:00+00:00"),
        ('"2024-01-15T06:30:00+02:00"', "2024-01-15T04:30:00+00:00"),
        ("2024-01-15", "2024-01-15T00:00:00+00:00"),
        ("2024-01-15T06:30:00", "2024-01-15T06:30:00+00:00"),
        ("2024-01-15T00:30:00+02:00", "2024-01-14T22:30:00+00:00"),
    ],
)
def test_a_logical_date_is_utc_unless_it_says_otherwise(tmp_path: Path, written: str, meant: str) -> None:
    text = f"[tool.rerun-safety.dag.orders]\nlogical_date = {written}\n"
    found = read_settings(pyproject(tmp_path, text)).for_dag("orders").logical_date
    assert found is not None
    assert found.isoformat() == meant


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SECONDS = st.integers(0, 4_000_000_000)
"""Since 1970."""


@given(second=SECONDS, microsecond=st.integers(0, 999_999), zone=ZONES)
def test_a_logical_date_means_the_same_as_text_and_as_toml(
    tmp_path_factory: pytest.TempPathFactory, second: int, microsecond: int, zone: timezone
) -> None:
    moment = datetime.fromtimestamp(second, zone).replace(microsecond=microsecond)
    folder = tmp_path_factory.mktemp("project")
    for written in (moment.isoformat(), f'"{moment.isoformat()}"'):
        text = f"[tool.rerun-safety.dag.orders]\nlogical_date = {written}\n"
        assert read_settings(pyproject(folder, text)).for_dag("orders").logical_date == moment


# --- refusing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[tool.rerun-safety]\nprofil = 'fast'\n",
            "pyproject.toml: tool.rerun-safety: unknown key 'profil', did you mean 'profile'?; "
            "valid keys: budget, dag, dags, ignore, local, outputs, profile, unordered",
        ),
        (
            "[tool.rerun-safety]\nzzz = 1\n",
            "pyproject.toml: tool.rerun-safety: unknown key 'zzz'; "
            "valid keys: budget, dag, dags, ignore, local, outputs, profile, unordered",
        ),
        (
            "[tool.rerun-safety.dag.orders]\nlogicaldate = 2024-01-15\n",
            "pyproject.toml: tool.rerun-safety.dag.orders: unknown key 'logicaldate', "
            "did you mean 'logical_date'?; valid keys: budget, ignore, local, logical_date, "
            "outputs, recoveries, skip, unordered",
        ),
        (
            "[tool.rerun-safety]\ndags = 'dags'\n",
            "pyproject.toml: tool.rerun-safety.dags: expected a list of non-empty strings, got 'dags'",
        ),
        (
            "[tool.rerun-safety]\nignore = ['*.log', 3]\n",
            "pyproject.toml: tool.rerun-safety.ignore: expected a list of non-empty strings, got 3 in it",
        ),
        (
            "[tool.rerun-safety]\noutputs = ['']\n",
            "pyproject.toml: tool.rerun-safety.outputs: expected a list of non-empty strings, got '' in it",
        ),
        (
            "[tool.rerun-safety.dag.orders]\nunorderd = ['*.csv']\n",
            "pyproject.toml: tool.rerun-safety.dag.orders: unknown key 'unorderd', did you mean 'unordered'?; "
            "valid keys: budget, ignore, local, logical_date, outputs, recoveries, skip, unordered",
        ),
        (
            "[tool.rerun-safety]\nunordered = '*.csv'\n",
            "pyproject.toml: tool.rerun-safety.unordered: expected a list of non-empty strings, got '*.csv'",
        ),
        (
            "[tool.rerun-safety]\nprofile = 'fats'\n",
            "pyproject.toml: tool.rerun-safety.profile: expected fast or default or thorough, got 'fats', "
            "did you mean 'fast'?",
        ),
        (
            "[tool.rerun-safety]\nprofile = true\n",
            "pyproject.toml: tool.rerun-safety.profile: expected fast or default or thorough, got True",
        ),
        (
            "[tool.rerun-safety.dag.'a.b']\nskip = ''\n",
            'pyproject.toml: tool.rerun-safety.dag."a.b".skip: '
            "expected the reason as non-empty text, got ''",
        ),
        (
            "[tool.rerun-safety.dag.orders]\nskip = true\n",
            "pyproject.toml: tool.rerun-safety.dag.orders.skip: "
            "expected the reason as non-empty text, got True",
        ),
        (
            "[tool.rerun-safety]\ndag = 'orders'\n",
            "pyproject.toml: tool.rerun-safety.dag: expected a table, got 'orders'",
        ),
        (
            "[tool.rerun-safety.dag]\norders = 3\n",
            "pyproject.toml: tool.rerun-safety.dag.orders: expected a table, got 3",
        ),
        ("tool = 3\n", "pyproject.toml: tool: expected a table, got 3"),
        (
            "[tool]\nrerun-safety = []\n",
            "pyproject.toml: tool.rerun-safety: expected a table, got []",
        ),
    ],
)
def test_what_means_nothing_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert refusal(tmp_path, text) == told


@pytest.mark.parametrize("written", ["0", "-1", "nan", "true", "'60'", "[]"])
@pytest.mark.parametrize("section", ["tool.rerun-safety", "tool.rerun-safety.dag.orders"])
def test_a_budget_that_is_no_time_is_refused(tmp_path: Path, section: str, written: str) -> None:
    shown = written.replace("true", "True")
    told = refusal(tmp_path, f"[{section}]\nbudget = {written}\n")
    assert told == (
        f"pyproject.toml: {section}.budget: expected a number of seconds above 0, such as 60, got {shown}"
    )


@pytest.mark.parametrize("written", ['"yesterday"', "06:30:00", "20240115", "[]", '""', "true"])
def test_a_logical_date_that_is_none_is_refused(tmp_path: Path, written: str) -> None:
    told = refusal(tmp_path, f"[tool.rerun-safety.dag.orders]\nlogical_date = {written}\n")
    assert told.startswith(
        "pyproject.toml: tool.rerun-safety.dag.orders.logical_date: expected a date such as 2024-01-15"
    )
    shown = written.replace('"', "'").replace("true", "True")
    assert told.endswith(f", got {shown}")


def test_an_id_with_a_dot_and_no_quotes_is_explained(tmp_path: Path) -> None:
    told = refusal(tmp_path, "[tool.rerun-safety.dag.etl.daily]\nskip = 'no'\n")
    assert "unknown key 'daily'" in told
    assert told.endswith("""if this is the DAG 'etl.daily', put its id in quotes: dag."etl.daily\"""")


def test_two_configurations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rerun-safety.toml").touch()
    assert refusal(tmp_path, FULL) == (
        "settings stand both in rerun-safety.toml and under [tool.rerun-safety] in pyproject.toml: "
        "keep one of them"
    )


@pytest.mark.parametrize("content", [b"dags = [", b'dags = ["\xff"]'])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rerun-safety.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^rerun-safety\.toml: not valid TOML: "):
        read_settings(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "rerun-safety.toml").mkdir()
    with pytest.raises(SettingsError, match=r"^rerun-safety\.toml: cannot be read: "):
        read_settings(tmp_path)


@given(word=st.text(min_size=1))
def test_no_word_is_taken_for_a_profile(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    folder = tmp_path_factory.mktemp("project")
    spelled = "".join(f"\\U{ord(char):08X}" for char in word if not 0xD800 <= ord(char) <= 0xDFFF)
    text = f'[tool.rerun-safety]\nprofile = "{spelled}"\n'
    if word in ("fast", "default", "thorough"):
        assert read_settings(pyproject(folder, text)).profile == word
    else:
        assert "expected fast or default or thorough" in refusal(folder, text)


# --- against the project ----------------------------------------------------------------------


def test_unknown_dags_are_told_with_the_nearest() -> None:
    settings = Settings(dag={"ordrs": DagSettings(), "sap": DagSettings(), "items": DagSettings()})
    assert unknown_dags(settings, ["orders", "items"]) == (
        "pyproject.toml: settings for unknown DAGs: no DAG 'ordrs', did you mean 'orders'?; no DAG 'sap'; "
        "DAGs: items, orders"
    )
    assert unknown_dags(settings, ["ordrs", "sap", "items", "more"]) is None
    assert unknown_dags(Settings(), []) is None


def test_sources_come_in_the_order_of_the_contract(tmp_path: Path) -> None:
    for folder in ("dags", "mine", "airflows"):
        (tmp_path / folder).mkdir()
    environ = {"AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "airflows")}
    found = sources(Settings(dags=("mine",)), tmp_path, environ)
    assert [(source.title, source.paths) for source in found] == [
        ("`dags` in pyproject.toml", (str(tmp_path / "mine"),)),
        ("AIRFLOW__CORE__DAGS_FOLDER", (str(tmp_path / "airflows"),)),
        ("./dags", (str(tmp_path / "dags"),)),
    ]


def test_a_source_without_paths_says_why(tmp_path: Path) -> None:
    assert [(source.paths, source.lack) for source in sources(Settings(), tmp_path, NO_ENVIRONMENT)] == [
        ((), "not set"),
        ((), "not set"),
        ((), "does not exist"),
    ]
    environ = {"AIRFLOW__CORE__DAGS_FOLDER": "/no/such/folder"}
    assert sources(Settings(), tmp_path, environ)[1].lack == "'/no/such/folder' does not exist"


def test_airflows_folder_may_name_the_home_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "flows").mkdir()
    for written in ("~/flows", "$HOME/flows"):
        environ = {"AIRFLOW__CORE__DAGS_FOLDER": written}
        assert sources(Settings(), tmp_path, environ)[1].paths == (str(tmp_path / "flows"),)


def test_configured_dags_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^pyproject\.toml: dags: 'dagz' does not exist in "):
        sources(Settings(dags=("dagz",)), tmp_path, NO_ENVIRONMENT)


def test_an_unknown_recovery_is_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refusal(tmp_path, '[tool.rerun-safety.dag.orders]\nrecoveries = ["retry", "clear-al"]\n')
    expected = "pyproject.toml: tool.rerun-safety.dag.orders.recoveries: unknown recovery 'clear-al', did you mean 'clear-"
    assert message.startswith(expected)
    assert message.endswith(f"recoveries: {', '.join(map(str, RecoveryKind))}")


def test_local_paths_hold_for_all_dags_and_for_one(tmp_path: Path) -> None:
    text = '[tool.rerun-safety]\nlocal = ["/tmp/"]\n[tool.rerun-safety.dag.orders]\nlocal = ["/scratch"]\n'
    settings = read_settings(pyproject(tmp_path, text))
    assert settings.for_dag("orders").local == ("/scratch",)
    assert settings.for_dag("another").local == ("/tmp",)


@pytest.mark.parametrize("path", ["tmp", "/", "./tmp"])
def test_a_local_path_is_absolute(tmp_path: Path, path: str) -> None:
    message = refusal(tmp_path, f'[tool.rerun-safety]\nlocal = ["{path}"]\n')
    expected = f"expected absolute paths such as '/tmp', got {path!r} in it"
    assert message == f"pyproject.toml: tool.rerun-safety.local: {expected}"
