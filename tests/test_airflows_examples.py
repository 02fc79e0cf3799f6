"""All checks of the example DAGs that Airflow ships say what they should: nothing false, and what is not safe for its reason.

A sample of them, or all where `samples.py` says so.
`tests/test_against_dag_test.py` runs all of them, without checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from airflows_examples import CANNOT_BE_SEEN, copy_examples, write_plugins
from dag_projects import Verdicts
from pinned import is_pinned
from samples import IS_WHOLE

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.model import DagInfo, Verdict
from pytest_rerunsafe.settings import Settings

README = Path(__file__).parent.parent / "README.md"

SAFE = (
    "aggregate_regional_sales",
    "asset1_producer",
    "asset2_producer",
    "asset_alias_example_alias_consumer",
    "asset_alias_example_alias_consumer_with_no_taskflow",
    "asset_alias_example_alias_producer",
    "asset_alias_example_alias_producer_with_no_taskflow",
    "asset_s3_bucket_consumer",
    "asset_s3_bucket_consumer_with_no_taskflow",
    "asset_s3_bucket_producer",
    "asset_s3_bucket_producer_with_no_taskflow",
    "asset_with_extra_by_context",
    "asset_with_extra_by_yield",
    "clean_and_combine_player_stats",
    "compute_player_odds",
    "consumes_asset_decorator",
    "daily_inference",
    "daily_team_a_rollup",
    "example_asset_state_store_consumer",
    "example_asset_state_store_producer",
    "example_asset_with_watchers",
    "example_branch_datetime_operator",
    "example_branch_datetime_operator_2",
    "example_branch_datetime_operator_3",
    "example_branch_dop_operator_v3",
    "example_branch_labels",
    "example_display_name",
    "example_dynamic_task_mapping",
    "example_dynamic_task_mapping_with_no_taskflow_operators",
    "example_external_task_marker_parent",
    "example_measurement_correction_decorator",
    "example_measurement_correction_operator",
    "example_nested_branch_dag",
    "example_params_trigger_ui",
    "example_sensor_decorator",
    "example_setup_teardown_taskflow",
    "example_short_circuit_decorator",
    "example_short_circuit_operator",
    "example_simplest_dag",
    "example_skip_dag",
    "example_task_group_decorator",
    "example_task_group_mapping",
    "example_task_mapping_second_order",
    "example_task_state_store",
    "example_task_state_store_mapped",
    "example_time_delta_sensor_async",
    "example_weekday_branch_operator",
    "example_workday_timetable",
    "example_xcom_args",
    "ingest_region_stats",
    "ingest_regional_sales",
    "ingest_team_a_player_stats",
    "latest_only",
    "latest_only_with_trigger",
    "live_region_player_stats",
    "monthly_team_a_rollup",
    "multi_region_player_stats",
    "player_odds_quality_check_wont_ever_to_trigger",
    "read_asset_event",
    "regional_stats_breakdown",
    "scatter_live_region_to_segments",
    "segment_region_stats_early_rollup",
    "segment_region_stats_rollup",
    "summarize_live_region_stats",
    "team_b_player_stats",
    "team_c_player_stats",
    "trailing_week_inference",
    "train_weekly_model",
    "tutorial_dag",
    "tutorial_taskflow_api",
    "tutorial_taskflow_templates",
)

NOT_SAFE: Mapping[Verdict, Mapping[str, tuple[str, ...]]] = {
    Verdict.UNSAFE: {
        # They draw which branch they take. Cleared alone, the task draws another one, which Airflow does not run again, and
        # what comes after it is skipped.
        "nondeterministic-output": ("example_branch_operator", "example_branch_python_operator_decorator"),
        # Each rerun triggers another run of the other DAG, as long as no `trigger_run_id` says which.
        "duplicate-output": ("example_trigger_controller_dag",),
    },
    Verdict.UNVERIFIABLE: {
        **CANNOT_BE_SEEN,
        # It waits for a run of the other DAG, which starts a process.
        "starting the process": (*CANNOT_BE_SEEN["starting the process"], "example_external_task"),
    },
    Verdict.ERROR: {
        # It is about what a failing task looks like.
        "This is a test exception": ("example_failed_dag",),
        # A person must fill in the parameters of the run, or give one on the command line.
        "No value passed": ("example_params_ui_tutorial",),
        "has no attribute 'foo'": ("example_passing_params_via_test_command",),
        # It shows the last event of an asset that nobody has ever updated.
        "InletEventsAccessor object has no element -1": ("read_asset_event_from_classic",),
        # It waits for a group of tasks that the other DAG has not got.
        "Task group parent_dag_task_group_id not found": ("example_external_task_marker_child",),
        # It reads with a library that is not among what Airflow needs.
        "No module named 'pandas'": ("tutorial_objectstorage",),
        # This version of Airflow has not got what it calls.
        "'TaskStateStoreAccessor' object has no attribute 'aget'": ("example_task_state_store_async",),
    },
}
"""DAGs by what is said of them: the rules that one breaks, or what the reason says."""

LISTED = (*SAFE, *(dag_id for said in NOT_SAFE.values() for dag_ids in said.values() for dag_id in dag_ids))
SAMPLE = (
    "asset1_producer",
    "example_branch_dop_operator_v3",
    "example_branch_labels",
    "example_display_name",
    "example_failed_dag",
    "latest_only_with_trigger",
    "team_ml_consumer",
)
TRIED = LISTED if IS_WHOLE else SAMPLE


class Examples:
    """The example DAGs as a project of their own, and a checker for it."""

    def __init__(self, root: Path) -> None:
        copy_examples(root / "dags")
        self.checker = Checker(
            settings=Settings(dags=("dags",)), rootdir=root, prepare=lambda file, dag, world: None
        )
        files = self.checker.find_dag_files([str(root / "dags")])
        loaded = [self.checker.load(file) for file in files]
        self.errors = [each.error for each in loaded if each.error]
        self.dags: dict[str, DagInfo] = {dag.dag_id: dag for each in loaded for dag in each.dags}

    def check(self, dag_id: str) -> Verdicts:
        """All checks of a DAG, less those of tasks that a branch leaves aside, which have nothing to say."""
        dag = self.dags[dag_id]
        checks = self.checker.checks_of(dag)
        results = {check: self.checker.run(dag, check, checks) for check in checks}
        return Verdicts.of(
            {
                check: result
                for check, result in results.items()
                if result.reason != "the task did not run in the clean run"
            }
        )


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    root = tmp_path_factory.mktemp("examples").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__PLUGINS_FOLDER", str(write_plugins(root)))
        found = Examples(root)
        try:
            yield found
        finally:
            found.checker.close()


@pytest.mark.skipif(not is_pinned(), reason="other versions ship other examples")
def test_all_examples_are_listed_once(examples: Examples) -> None:
    assert examples.errors == []
    assert sorted(LISTED) == sorted(examples.dags)


@pytest.mark.parametrize("dag_id", TRIED)
def test_what_is_said_of_an_example_is_listed(examples: Examples, dag_id: str) -> None:
    if dag_id not in examples.dags and not is_pinned():
        pytest.skip("this version ships no such example")
    verdicts = examples.check(dag_id)
    expected, what = expected_of(dag_id)
    assert (verdicts.worst, verdicts.rules if verdicts.findings else set()) == (
        expected,
        {what} if expected is Verdict.UNSAFE else set(),
    ), verdicts.results
    worst = [result for result in verdicts.results.values() if result.verdict is expected]
    if expected not in (Verdict.SAFE, Verdict.UNSAFE):
        assert what in (worst[0].reason or "")


def expected_of(dag_id: str) -> tuple[Verdict, str]:
    """The verdict on an example, and what is said of it."""
    for verdict, said in NOT_SAFE.items():
        for what, dag_ids in said.items():
            if dag_id in dag_ids:
                return verdict, what
    return Verdict.SAFE, ""


def test_readme_has_the_counts() -> None:
    counts = {verdict: sum(map(len, said.values())) for verdict, said in NOT_SAFE.items()}
    sentence = (
        f"All checks of these {len(LISTED)}, in the profile `default`, find {len(SAFE)} safe; "
        f"{counts[Verdict.UNVERIFIABLE]} do what cannot be seen, {counts[Verdict.ERROR]} fail in any run, and "
        f"{counts[Verdict.UNSAFE]} are unsafe: each is listed with its reason in `tests/test_airflows_examples.py`, "
        "and `tox -e whole` compares."
    )
    assert sentence in " ".join(README.read_text().split())
