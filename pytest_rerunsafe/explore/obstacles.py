"""What keeps us from a verdict, in words: what was met while DAGs ran, and what to do about it."""

from __future__ import annotations

from ..model import Location, Obstacle

_PERSON = ("CreateHITLDetailPayload", "AwaitInputTask")
"""Messages that ask a person."""


def endless(most_runs: int) -> Obstacle:
    """More runs than anybody waits for."""
    return Obstacle(
        what=f"DAGs set each other off for more than {most_runs} runs",
        where=None,
        remedy="Break the circle of triggers, sensors and assets, or `skip` the DAG with a reason.",
    )


def does_not_end(dag_id: str) -> Obstacle:
    """Another DAG's run that hangs, though the one under test has ended."""
    return Obstacle(
        what=f"the run of the DAG {dag_id} that was set off does not end",
        where=None,
        remedy="Check that DAG on its own.",
    )


def waits_in_vain(task_id: str) -> Obstacle:
    """A task that waits for something which neither the inputs nor another task give."""
    return Obstacle(
        what=f"{task_id} waits for something that does not come",
        where=None,
        remedy="Put it in place in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
    )


def no_run_at(dag_id: str, date: object) -> Obstacle:
    """A run of another DAG that is waited for, and that never is."""
    return Obstacle(
        what=f"it waits for a run of the DAG {dag_id} at {date}, which has none then by its start and schedule",
        where=None,
        remedy="Let it wait for one that there is (`execution_delta`), or set the DAG's `logical_date` later.",
    )


def misses_dag(what: str, dag_id: str) -> Obstacle:
    """Another DAG that is needed, and that no file gives."""
    return Obstacle(
        what=f"{what} {dag_id}, which no file of the DAGs folder gives",
        where=None,
        remedy="Put its file there, or one with a DAG of that name in its stead; see that it loads.",
    )


def outlives_task(thread: str) -> Obstacle:
    """A thread that still runs when its process ends."""
    return Obstacle(
        what=f"the thread {thread} outlives its task",
        where=None,
        remedy="Join threads before the task ends.",
    )


def takes_too_long(what: str, cpu_s: float, where: Location | None) -> Obstacle:
    """Code that has used up its processor time."""
    return Obstacle(
        what=f"{what} did not end within {cpu_s:.0f} s of processor time",
        where=where,
        remedy="Give it smaller inputs in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason.",
    )


def unanswered(message: str, where: Location | None) -> Obstacle:
    """A message to Airflow that nobody answers here."""
    if message in _PERSON:
        return Obstacle(
            what="a person is asked, and nobody answers here",
            where=where,
            remedy="What follows is checked as if there were no answer; `skip` the DAG if that makes no sense.",
        )
    return Obstacle(
        what=f"Airflow's request {message} is not answered here",
        where=where,
        remedy="`skip` the DAG with a reason; please report what it does.",
    )


def unsupported(what: str, where: Location | None) -> Obstacle:
    """A way to use a file that our file system does not have."""
    return Obstacle(
        what=f"{what} cannot be followed",
        where=where,
        remedy="Read and write the file with `open` instead, or `skip` the DAG with a reason.",
    )
