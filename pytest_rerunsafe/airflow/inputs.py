"""Puts Variables, Connections and pools into the metadata database, and reads back what counts of a run."""

from __future__ import annotations

import json
from itertools import groupby

from airflow.models.connection import Connection
from airflow.models.pool import Pool
from airflow.models.variable import Variable

from ..model import Output, RunKey
from .metadata import MetadataStore, session


def set_variable(key: str, value: object) -> None:
    """Store a Variable; anything but text as JSON."""
    Variable.set(key, value, serialize_json=not isinstance(value, str))


def set_connection(conn_id: str, uri: str) -> None:
    """Store a Connection, instead of one of that name."""
    with session() as opened:
        for old in opened.query(Connection).filter(Connection.conn_id == conn_id):
            opened.delete(old)
        opened.flush()
        opened.add(Connection(conn_id=conn_id, uri=uri))


def set_pool(name: str, slots: int, include_deferred: bool) -> None:
    """Make a pool, or make the one of that name as wide."""
    with session() as opened:
        pool = opened.query(Pool).filter(Pool.pool == name).one_or_none() or Pool(pool=name, description="")
        pool.slots, pool.include_deferred = slots, include_deferred
        opened.add(pool)


def outputs(store: MetadataStore, run: RunKey | None) -> dict[str, Output]:
    """The XComs of a DagRun, if one is given, all Variables, and by DAG the runs that tasks have triggered; by name, sorted."""
    found: dict[str, bytes] = {}
    xcoms = 'SELECT task_id, map_index, "key", value FROM xcom WHERE dag_id = ? AND run_id = ?'
    for task_id, map_index, key, value in store.select(xcoms, run) if run else ():
        place = task_id if map_index == -1 else f"{task_id}[{map_index}]"
        found[f"xcom:{place}/{key}"] = _as_text(value)
    for key, value in store.select('SELECT "key", val FROM variable'):
        found[f"variable:{key}"] = _as_text(value)
    for dag_id, triggered in groupby(store.select(_TRIGGERED), key=lambda row: str(row[0])):
        found[f"runs:{dag_id}"] = json.dumps([_told(*row[1:]) for row in triggered]).encode()
    return {name: Output(name=name, content=found[name]) for name in sorted(found)}


_TRIGGERED = """
    SELECT dag_id, conf, logical_date, state FROM dag_run
    WHERE lower(triggered_by) = 'operator' ORDER BY dag_id, id
"""


def _told(conf: object, logical_date: object, state: object) -> dict[str, object]:
    """A run without its id and its times, which are others each time."""
    given = json.loads(conf) if isinstance(conf, str | bytes) else conf
    return {"conf": given, "logical_date": logical_date, "state": state}


def _as_text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


_TOLD_ELSEWHERE = frozenset(
    {
        "log",  # for people
        "rendered_task_instance_fields",  # for people
        "task_instance_history",  # for people
        "task_reschedule",  # dates by a clock that has moved on; the states tell who waits
        "dag",  # when it was parsed last
        "dag_version",
        "serialized_dag",  # one and the same for all runs of a study
        "dag_code",
    }
)
_LASTING = {
    "xcom": ("dag_id", "task_id", "run_id", "map_index", "key", "value"),
    "variable": ("key", "val"),
    "dag_run": ("dag_id", "run_id", "logical_date", "conf"),  # its state follows from those of its tasks
    "task_instance": ("dag_id", "task_id", "run_id", "map_index", "state", "next_method", "next_kwargs"),
}
"""Of these tables the columns that say what is so; the others say when, or by which number."""
_UNFINISHED = ("try_number", "max_tries")
"""What a task instance that has still to run will see besides."""


def situation(store: MetadataStore, dag_id: str) -> list[tuple[object, ...]]:
    """All in the metadata database that how a run goes on depends on, sorted.

    A table that is not known here counts with whole rows, dates included: too many situations are then told apart,
    never too few.
    """
    parts: list[tuple[object, ...]] = []
    for (table, _), row in store.items():
        if table in _TOLD_ELSEWHERE:
            continue
        if table not in _LASTING:
            parts.append((table, *row))
            continue
        named = dict(zip(store.columns(table), row, strict=True))
        kept = [named[column] for column in _LASTING[table] if column in named]
        if table == "task_instance" and named["state"] not in ("success", "skipped"):
            kept += [named[column] for column in _UNFINISHED]
        parts.append((table, *kept))
    return sorted(parts, key=repr)
