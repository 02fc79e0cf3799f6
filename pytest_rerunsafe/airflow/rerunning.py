"""What people do to DagRuns that have ended, by the functions that Airflow's own buttons and commands call."""

from __future__ import annotations

from datetime import datetime

from airflow.models import backfill as backfills


class Refused(Exception):
    """Airflow does not allow it; the argument says why, in Airflow's words."""


def backfill(
    dag_id: str, first: datetime, last: datetime, *, reprocess: str, backwards: bool, at_a_time: int
) -> None:
    """Ask Airflow for a backfill of the intervals from one logical date to another. Raises `Refused`.

    `reprocess` is Airflow's word for what becomes of runs that are there: `none`, `failed`, `completed`.
    """
    try:
        backfills._create_backfill(
            dag_id=dag_id,
            from_date=first,
            to_date=last,
            max_active_runs=at_a_time,
            reverse=backwards,
            dag_run_conf=None,
            triggering_user_name=None,
            reprocess_behavior=backfills.ReprocessBehavior(reprocess),
        )
    except (
        backfills.AlreadyRunningBackfill,
        backfills.DagNonPeriodicScheduleException,
        backfills.InvalidBackfillDirection,
        backfills.InvalidReprocessBehavior,
        backfills.InvalidBackfillDate,
    ) as refused:
        raise Refused(str(refused)) from refused
