"""What a power loss leaves of files that were not synced: states of recordings made by hand, and DAGs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from dag_projects import Project, project
from test_points import append, change, file, recording

from pytest_rerunsafe.compare.rules import RULES
from pytest_rerunsafe.explore.points import crash_points, explore
from pytest_rerunsafe.model import (
    CrashKind,
    Effect,
    Node,
    NodeKind,
    Profile,
    Recording,
    RecoveryKind,
    Rule,
    Splice,
    Verdict,
)
from pytest_rerunsafe.report.text import finding_text
from pytest_rerunsafe.settings import Settings

FOLDER = Node(kind=NodeKind.DIRECTORY, mode=0o755)


def sync(path: str) -> Effect:
    return Effect(kind="sync", target=path, attempt=0)


def rename(source: str, target: str, content: bytes) -> Effect:
    return replace(change("rename", target, None), files=((source, None), (target, file(content))))


def left_at(run: Recording, point: str) -> dict[str, dict[str, bytes]]:
    """The files that a power loss at the point may leave, by the name of what is lost."""
    states = explore(run, 0, Profile.THOROUGH).after_power_loss
    return {
        state.point.name.removeprefix(f"t@{point}+"): {
            path: node.content for path, node in state.world.files.items() if node.kind is NodeKind.FILE
        }
        for state in states
        if state.point.name.startswith(f"t@{point}+")
    }


def with_files(run: Recording, **contents: bytes) -> Recording:
    """The recording, with files that were there before."""
    files = {f"/{name}": file(content) for name, content in contents.items()}
    return replace(run, initial=replace(run.initial, files=files))


DONE = "state:success"


def test_what_was_never_synced_is_gone_empty_or_zeros_although_the_task_had_succeeded() -> None:
    run = recording(change("create", "/o", file()), append("/o", 0, b"data"))
    assert left_at(run, DONE) == {"lost": {}, "names-only": {"/o": b""}, "zeros": {"/o": b"\0\0\0\0"}}


def test_a_commit_is_synced() -> None:
    commit = replace(append("/o", 0, b"page"), kind="commit")
    run = recording(change("create", "/o", file()), commit)
    assert left_at(run, DONE) == {}


def test_a_rename_may_come_before_the_data() -> None:
    run = recording(
        change("create", "/o.tmp", file()), append("/o.tmp", 0, b"new"), rename("/o.tmp", "/o", b"new")
    )
    found = left_at(with_files(run, o=b"old"), DONE)
    assert found == {
        "lost": {"/o": b"old"},
        "names-only": {"/o": b""},
        "zeros": {"/o": b"\0\0\0"},
    }


def test_with_file_and_folder_synced_nothing_is_lost() -> None:
    run = recording(
        change("mkdir", "/d", FOLDER),
        change("create", "/d/o.tmp", file()),
        append("/d/o.tmp", 0, b"new"),
        sync("/d/o.tmp"),
        rename("/d/o.tmp", "/d/o", b"new"),
        sync("/d"),
    )
    assert left_at(run, DONE) == {}


def test_a_file_that_is_synced_in_a_folder_that_is_not_has_no_name() -> None:
    run = recording(change("create", "/o", file()), append("/o", 0, b"data"), sync("/o"))
    assert left_at(run, DONE) == {"lost": {}}


def test_a_rename_that_is_not_synced_is_undone() -> None:
    run = recording(
        change("create", "/o.tmp", file()),
        append("/o.tmp", 0, b"new"),
        sync("/o.tmp"),
        sync("/"),
        rename("/o.tmp", "/o", b"new"),
    )
    assert left_at(with_files(run, o=b"old"), DONE) == {"lost": {"/o.tmp": b"new", "/o": b"old"}}


def test_a_folder_that_is_renamed_takes_its_files_along() -> None:
    moved = replace(
        change("rename", "/b", None),
        files=(("/a", None), ("/a/f", None), ("/b", FOLDER), ("/b/f", file(b"x"))),
    )
    run = recording(
        change("mkdir", "/a", FOLDER),
        change("create", "/a/f", file()),
        append("/a/f", 0, b"x"),
        sync("/a/f"),
        sync("/a"),
        moved,
    )
    assert left_at(run, DONE) == {"lost": {"/a/f": b"x"}}


def test_a_delete_may_come_before_what_it_was_read_for_or_never() -> None:
    run = recording(change("create", "/o", file()), append("/o", 0, b"in"), change("unlink", "/i", None))
    found = left_at(with_files(run, i=b"in"), DONE)
    assert found["lost"] == {"/i": b"in"}
    assert found["names-only"] == {"/o": b""}


def test_what_is_emptied_may_stay_empty() -> None:
    cut = change("truncate", "/o", Splice(offset=0, removed=3, data=b""))
    run = recording(cut, append("/o", 0, b"new"))
    found = left_at(with_files(run, o=b"old"), DONE)
    assert found == {"lost": {"/o": b"old"}, "names-only": {"/o": b""}, "zeros": {"/o": b"\0\0\0"}}


def test_a_long_content_is_torn_in_whole_blocks() -> None:
    data = b"x" * 10_000
    run = recording(change("create", "/o", file()), append("/o", 0, data))
    assert left_at(run, DONE)["zeros"] == {"/o": data[:4096] + bytes(5_904)}


def test_of_two_files_each_may_be_lost_alone() -> None:
    run = recording(
        change("create", "/o", file(), 1),
        append("/o", 0, b"data", 2),
        change("create", "/done", file(), 3),
        append("/done", 0, b"1", 4),
    )
    found = left_at(run, DONE)
    assert found["without:/o"] == {"/o": b"", "/done": b"1"}
    assert found["without:/done"] == {"/o": b"data", "/done": b""}


def test_a_sync_of_everything_leaves_nothing_to_lose() -> None:
    run = recording(change("create", "/o", file()), append("/o", 0, b"data"), sync(""))
    assert left_at(run, DONE) == {}


def test_what_others_did_before_is_not_lost() -> None:
    run = recording(append("/o", 1, b"b"))
    earlier = replace(change("create", "/mine", file()), attempt=None)
    found = left_at(with_files(replace(run, effects=(earlier, *run.effects)), o=b"a"), DONE)
    assert found == {"lost": {"/mine": b"", "/o": b"a"}, "zeros": {"/mine": b"", "/o": b"a\0"}}


def test_a_sync_is_no_place_to_crash_at() -> None:
    effects = [change("create", "/o", file()), append("/o", 0, b"x")]
    assert [p.name for p in crash_points(recording(*effects, sync("/o")), 0)] == [
        p.name for p in crash_points(recording(*effects), 0)
    ]


def test_only_thorough_asks_for_it() -> None:
    run = recording(change("create", "/o", file()))
    assert explore(run, 0, Profile.DEFAULT).after_power_loss == ()
    assert explore(run, 0, Profile.THOROUGH).after_power_loss


def test_the_number_of_states_does_not_grow_with_a_loop() -> None:
    def count(turns: int) -> int:
        lines = [append("/o", n, b"x") for n in range(turns)]
        return len(
            explore(recording(change("create", "/o", file()), *lines), 0, Profile.THOROUGH).after_power_loss
        )

    assert count(10) == count(200)


# --- DAGs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thorough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    yield from project(tmp_path_factory.mktemp("power").resolve(), Settings(profile=Profile.THOROUGH))


DAG = """
    import os
    from airflow.sdk import dag, task

    @dag(schedule=None)
    def {name}():
        @task
        def write():
            os.makedirs("/data", exist_ok=True)
            with open("/data/out.tmp", "w") as file:
                file.write("whole")
                {synced}
            os.replace("/data/out.tmp", "/data/out")
            {folder_synced}

        write()

    {name}()
"""
SYNCED = "file.flush(); os.fsync(file.fileno())"
FOLDER_SYNCED = "folder = os.open('/data', os.O_RDONLY); os.fsync(folder); os.close(folder)"


def test_synced_and_then_moved_into_a_synced_folder_is_safe(thorough: Project) -> None:
    source = DAG.format(name="synced", synced=SYNCED, folder_synced=FOLDER_SYNCED)
    assert thorough.check("synced", source).worst is Verdict.SAFE


@pytest.mark.parametrize(
    ("name", "synced", "folder_synced"),
    [("unsynced", "pass", "pass"), ("no_name", SYNCED, "pass"), ("no_data", "pass", FOLDER_SYNCED)],
)
def test_what_is_announced_before_it_is_synced_is_found(
    thorough: Project, name: str, synced: str, folder_synced: str
) -> None:
    found = thorough.check(name, DAG.format(name=name, synced=synced, folder_synced=folder_synced))
    (finding,) = found.findings
    assert (finding.rule, finding.crash_kind, finding.recovery) == (
        Rule.DURABILITY,
        CrashKind.POWER,
        RecoveryKind.GO_ON,
    )
    assert finding.summary.startswith("/data/out: ")
    assert "/data/out" in finding.next_effect
    told = " ".join(finding_text(finding, RULES[finding.rule]).split())
    assert "The power failed after write was recorded as success. Written at" in told
    assert "Lost with the power, for it was not synced: /data/out (" in told
    assert "Recovery: none, for write had succeeded: the run goes on." in told


def test_a_task_that_opens_with_o_sync_needs_no_fsync(thorough: Project) -> None:
    source = """
        import os
        from airflow.sdk import dag, task

        @dag(schedule=None)
        def o_sync():
            @task
            def write():
                os.makedirs("/data", exist_ok=True)
                fd = os.open("/data/out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_DSYNC)
                os.write(fd, b"whole")
                os.close(fd)
                folder = os.open("/data", os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)

            write()

        o_sync()
    """
    assert thorough.check("o_sync", source).worst is Verdict.SAFE


def test_what_a_kill_shows_is_told_as_that(thorough: Project) -> None:
    source = """
        import os
        from airflow.sdk import dag, task

        @dag(schedule=None)
        def both():
            @task
            def write():
                if not os.path.exists("/out"):
                    with open("/out", "w") as file:
                        file.write("whole")

            write()

        both()
    """
    (finding,) = thorough.check("both", source).findings
    assert (finding.rule, finding.crash_kind) == (Rule.PARTIAL_OUTPUT_ACCEPTED, CrashKind.KILL)


def test_a_replay_tells_what_the_power_took(thorough: Project) -> None:
    thorough.write("told", DAG.format(name="told", synced="pass", folder_synced="pass"))
    file = str(thorough.root / "dags" / "told.py")
    story = thorough.checker.replay("told:write@state:success+names-only:power:go-on", [file])
    assert "The power fails at write@state:success+names-only." in story
    assert "Lost, for it was not synced: /data/out (empty)" in story
    assert "Verdict: unsafe, durability" in story
