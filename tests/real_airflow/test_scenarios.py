"""What our engine predicts of deaths and recoveries is what a real Airflow does: states, tries, XComs, files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import deployment
import pytest
from prediction import Predictor
from scenarios import PREDICTED, Ending, Scenario, happen

DAGS = Path(__file__).parent / "dags"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the DAGs put their outputs, here and there."""
    folder = tmp_path_factory.mktemp("out").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAL_AIRFLOW_OUT", str(folder))
        yield folder


@pytest.fixture(scope="module")
def reality(tmp_path_factory: pytest.TempPathFactory, out: Path) -> Mapping[str, Sequence[Ending]]:
    """What happened in a real deployment, by DAG: before each command, and at the end."""
    (out / "deaths").mkdir()
    with deployment.start(tmp_path_factory.mktemp("home"), DAGS, {}) as started:
        return happen(started, PREDICTED, out)


@pytest.fixture(scope="module")
def predictor(out: Path) -> Iterator[Predictor]:
    made = Predictor(DAGS, out)
    yield made
    made.close()


@pytest.mark.parametrize("scenario", PREDICTED, ids=str)
def test_ends_as_predicted(
    scenario: Scenario, reality: Mapping[str, Sequence[Ending]], predictor: Predictor
) -> None:
    assert str(reality[scenario.dag_id][-1]) == str(predictor.predict(scenario))


def test_each_death_left_its_mark(reality: Mapping[str, Sequence[Ending]], out: Path) -> None:
    """Else nothing was killed, and what agrees says nothing."""
    alive = {
        "triggers_run",
        "branch_left_aside",
        "cleared_alone",
        "mapped_shrinks",
        "clear_upstream",
        "clear_one_day",
    }
    died = {mark.partition(".")[0] for mark in os.listdir(out / "deaths")}
    assert died == set(reality) - alive


def test_a_clear_of_the_dead_task_alone_leaves_what_it_took_down(
    reality: Mapping[str, Sequence[Ending]],
) -> None:
    """A second clear is needed (apache/airflow#52640): our engine gives both for the one recovery."""
    (run,) = reality["clear_task"][1].runs
    assert (run.state, run.task_states["load"]) == ("failed", "success")
    assert run.task_states["report"] == "upstream_failed"
