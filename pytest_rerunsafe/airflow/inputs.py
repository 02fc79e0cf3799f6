"""Puts Variables and Connections into the metadata database and reads the run's XComs and Variables back."""

from __future__ import annotations

import json

from airflow.models.connection import Connection
from airflow.models.variable import Variable

from ..model import Output
from .metadata import MetadataStore, session
from .scheduling import RUN_ID


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


def outputs(store: MetadataStore, dag_id: str) -> dict[str, Output]:
    """The XComs of the DAG's run and all Variables, by name, sorted."""
    found: dict[str, bytes] = {}
    xcoms = 'SELECT task_id, map_index, "key", value FROM xcom WHERE dag_id = ? AND run_id = ?'
    for task_id, map_index, key, value in store.select(xcoms, (dag_id, RUN_ID)):
        place = task_id if map_index == -1 else f"{task_id}[{map_index}]"
        found[f"xcom:{place}/{key}"] = _as_text(value)
    for key, value in store.select('SELECT "key", val FROM variable'):
        found[f"variable:{key}"] = _as_text(value)
    return {name: Output(name=name, content=found[name]) for name in sorted(found)}


def _as_text(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()
