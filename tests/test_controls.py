"""Controls of the method itself: without a crash nothing differs, and a crash is where it is said to be."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.explore.jobs import REFERENCE, RecoverJob, Start
from pytest_rerunsafe.explore.messages import Done
from pytest_rerunsafe.explore.points import before, explore
from pytest_rerunsafe.model import CrashKind, DagInfo, Outcome, Profile, Recording, RecoveryKind
from pytest_rerunsafe.settings import Settings

EXAMPLES = Path(__file__).parents[1] / "example_dags"
NAMES = ("chunks_fixed", "checkpoint_fixed", "items_fixed")
DIARY = textwrap.dedent(
    """\
    from airflow.sdk import dag, task

    PARTS = ("begun", "half", "ended")

    @dag(schedule=None)
    def diary():
        @task(retries=1)
        def keep(ti=None):
            for part in PARTS:
                with open("/data/diary", "a") as pages:
                    pages.write(f"{part} by {ti.try_number}\\n")
        keep()

    diary()
    """
)


class Controlled(Checker):
    """A checker that does single jobs too."""

    def dag(self, name: str) -> DagInfo:
        """The only one of a file of the project."""
        (dag,) = self.load(str(self._rootdir / f"{name}.py")).dags
        return dag

    def outcomes(self, dag: DagInfo, recording: Recording, *starts: Start) -> tuple[Outcome, ...]:
        """How the run goes on from each start, all of it run for real, with the random numbers of the clean run."""
        job = RecoverJob(
            dag=dag,
            run=recording.run,
            folder=str(Path(dag.file).parent),
            starts=starts,
            clean={},
            seed=REFERENCE,
            keeps_log=True,  # nothing that is known is taken from elsewhere then
        )
        (answer,) = self._run(dag.file, [job])
        assert isinstance(answer, Done), answer
        found: tuple[Outcome, ...] = answer.result
        return found


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controlled]:
    root = tmp_path_factory.mktemp("controls").resolve()
    (root / "diary.py").write_text(DIARY)
    for name in NAMES:
        shutil.copy(EXAMPLES / f"{name}.py", root)
    made = Controlled(
        settings=Settings(), rootdir=root, prepare=lambda file, dag, world: world.mkdir("/data")
    )
    yield made
    made.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_run_in_which_nothing_happens_ends_as_the_clean_run(checker: Controlled, name: str) -> None:
    """From wherever it is taken up again: what is restored there is what was there."""
    dag = checker.dag(name)
    clean = checker.begin(dag, 1)
    attempts = clean.outcome.attempts
    assert attempts
    starts = [
        Start(world=before(clean, index), task_id=None, map_index=-1, crash=None, recovery=RecoveryKind.GO_ON)
        for index in range(len(attempts))
    ]
    for done, outcome in enumerate(checker.outcomes(dag, clean, *starts)):
        assert (outcome.run_state, outcome.task_states) == ("success", clean.outcome.task_states)
        assert outcome.outputs == clean.outcome.outputs
        assert [a.task_id for a in outcome.attempts] == [a.task_id for a in attempts[done:]]


def test_a_worker_dies_where_it_is_said_to_die(checker: Controlled) -> None:
    """What the first try wrote ends with the change that the crash point names; then the retry writes all."""
    dag = checker.dag("diary")
    clean = checker.begin(dag, 1)
    states = explore(clean, 0, Profile.THOROUGH).states
    starts = [
        Start(
            world=state.world,
            task_id="keep",
            map_index=-1,
            crash=CrashKind.KILL,
            recovery=RecoveryKind.RETRY,
        )
        for state in states
    ]
    outcomes = checker.outcomes(dag, clean, *starts)
    pages = {
        state.point.name.removeprefix("keep@"): outcome.outputs["file:/data/diary"].content.decode()
        for state, outcome in zip(states, outcomes, strict=True)
    }
    retried = "begun by 2\nhalf by 2\nended by 2\n"
    assert pages == {
        "state:running#1": retried,
        "create:/data/diary#1": retried,
        "write:/data/diary#1": f"begun by 1\n{retried}",
        "write:/data/diary#2": f"begun by 1\nhalf by 1\n{retried}",
        "write:/data/diary#3": f"begun by 1\nhalf by 1\nended by 1\n{retried}",
    }
