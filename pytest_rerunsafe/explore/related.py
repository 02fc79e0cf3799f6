"""Which DAGs run along with the one under test. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..model import DagInfo, LoadedFile

_ANY_DAG = "dag:*"
_ALIAS = "asset-alias:"


def related(dag: DagInfo, files: Iterable[LoadedFile]) -> Mapping[str, str]:
    """The DAG file of each other DAG that a run of this one may set off or wait for, directly or by others; by DAG id.

    Of an id that several files have, the first file's DAG counts, before all the one of the DAG's own file.
    """
    ordered = sorted(files, key=lambda loaded: (loaded.file != dag.file, loaded.file))
    known: dict[str, DagInfo] = {}
    for loaded in ordered:
        for other in loaded.dags:
            known.setdefault(other.dag_id, other)
    known[dag.dag_id] = dag
    found: dict[str, str] = {}
    waiting = [dag]
    while waiting:
        current = waiting.pop()
        for other in known.values():
            if other.dag_id not in found and _leads_to(current, other):
                found[other.dag_id] = other.file
                waiting.append(other)
    return {dag_id: file for dag_id, file in sorted(found.items()) if dag_id != dag.dag_id}


def _leads_to(one: DagInfo, other: DagInfo) -> bool:
    if one.leads_to & {f"dag:{other.dag_id}", _ANY_DAG} or one.leads_to & other.set_off_by:
        return True
    # What an alias stands for is known at run time only: any asset.
    return bool(other.set_off_by) and any(name.startswith(_ALIAS) for name in one.leads_to)
