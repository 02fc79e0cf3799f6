"""What to do about a finding, with its place and names: the pattern that fits what was seen. Pure functions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from ..model import Difference, Location, Rule
from .rules import DECISION, Evidence, announcement

BY_SETS = "with sets in another order"
"""How the summary of a finding begins that the order of sets makes."""
_DATABASE = re.compile(r"\.(?:db|sqlite3?|db3)(?:$|[/!:#])")
_TAKEN_AWAY = ("unlink", "rename", "rmdir", "truncate")


def remedy(
    rule: Rule,
    where: Location,
    differences: Sequence[Difference],
    *,
    evidence: Evidence | None = None,
    error: str = "",
    last_kind: str = "",
    is_by_sets: bool = False,
) -> str:
    """What to do at a place; empty if no more can be said than what the rule says in general.

    `error` is the exception that ended the rerun, `last_kind` the kind of the last effect before a crash.
    """
    place = f"{where.file}:{where.line}"
    names = [difference.output for difference in differences]
    target = next((name for name in names if not name.startswith("xcom:")), names[0] if names else "")
    shown = target.removeprefix("file:") or "the output"
    match rule:
        case Rule.DUPLICATE_OUTPUT:
            return _of_duplicates(place, target, shown, evidence)
        case Rule.PARTIAL_OUTPUT_ACCEPTED:
            return (
                f"Let {place} write to {shown}.tmp and move that to {shown} with os.replace when it is complete: "
                "then a file that exists is whole."
            )
        case Rule.DAMAGED_CHECKPOINT:
            return (
                f"Let {place} write to a temporary name in the same folder and move that over the old file with "
                "os.replace: then it is the old one or the new one, never a half."
            )
        case Rule.LOST_OUTPUT:
            return _of_loss(place, target, shown, evidence, last_kind)
        case Rule.RERUN_FAILS:
            return _of_failure(place, error)
        case Rule.CLOCK_DEPENDENT:
            return (
                f"Take dates from the run: use logical_date, data_interval_start or ds of the task's context in "
                f"place of datetime.now() and date.today() where {place} makes {shown}."
            )
        case Rule.NONDETERMINISTIC_OUTPUT if evidence is not None and evidence.by_chance.endswith(DECISION):
            branch = evidence.by_chance.removeprefix("xcom:").removesuffix(DECISION)
            return (
                f"Let {branch} choose by the run, its logical_date or conf, in place of chance: Airflow does not run again "
                "what an earlier attempt passed over."
            )
        case Rule.NONDETERMINISTIC_OUTPUT:
            return _of_chance(place, shown, differences, is_by_sets)
        case Rule.STALE_OUTPUT if evidence is not None and evidence.is_by_callback:
            return (
                f"{place} is called when an attempt has failed, and nothing takes {shown} back: let the task remove it "
                "when it ends well."
            )
        case Rule.STALE_OUTPUT if target:
            return (
                f"{shown} is what an earlier attempt left: remove it, or empty its folder or partition, at the "
                f"start of each attempt, or let {place} write under a fixed name and os.replace it."
            )
        case _:
            return ""


def _of_duplicates(place: str, target: str, shown: str, evidence: Evidence | None) -> str:
    if target.startswith("runs:"):
        return (
            f"Give the run that {place} triggers a trigger_run_id made of the logical_date, with "
            "skip_when_already_exists or reset_dag_run."
        )
    if _DATABASE.search(target):
        return (
            f"Delete this interval's rows by their key and insert them in the same transaction, or upsert, "
            f"where {place} writes to {shown}."
        )
    if evidence is not None and target.startswith("file:") and target not in evidence.clean:
        return (
            f"Let {place} use one name for all attempts, made of ds or run_id: then a rerun replaces the file "
            f"instead of adding {posixpath.basename(shown)}."
        )
    if target.startswith("file:"):
        return (
            f"{place} adds to {shown}: write all of it to {shown}.tmp and move that over it with os.replace, or "
            f"derive from {shown} itself what is still to be added."
        )
    return ""


def _of_loss(place: str, target: str, shown: str, evidence: Evidence | None, last_kind: str) -> str:
    if evidence is not None and evidence.has_ended:
        return (
            f"What {place} does comes after Airflow has recorded the success, and is lost for good if the worker dies "
            "then: do it in the task itself, or in a task of its own downstream."
        )
    told = announcement(evidence, target) if evidence is not None else None
    if told is not None:
        sign = told.removeprefix("file:")
        return f"Flush and close {shown} before {sign} tells that it is there: {sign} was on disk first."
    if last_kind in _TAKEN_AWAY:
        return (
            f"{place} takes something away before what replaces it is in place: write that under a temporary name "
            "first and os.replace it, and remove a source only when its result is there."
        )
    return ""


_FAILURES = {
    "FileExistsError": (
        'Let {place} pass if it was done already: exist_ok=True for a folder, mode "w" or os.replace for a file.'
    ),
    "FileNotFoundError": (
        "Keep what is gone until its result is in place, or skip the step when the result is there: see {place}."
    ),
    "IntegrityError": (
        "Upsert (INSERT ... ON CONFLICT DO UPDATE), or delete by key and insert in one transaction, where {place} "
        "writes."
    ),
}


def _of_failure(place: str, error: str) -> str:
    last = error.strip().rpartition("\n")[2]
    if "no such table" in last:
        return (
            f"Create each table wherever it is not there, with CREATE TABLE IF NOT EXISTS: at {place} an attempt can die "
            "before it has made them all."
        )
    kind = last.partition(":")[0].rpartition(".")[2]
    return _FAILURES[kind].format(place=place) if kind in _FAILURES else ""


def _of_chance(place: str, shown: str, differences: Sequence[Difference], is_by_sets: bool) -> str:
    if is_by_sets:
        return (
            f"Sort the set, or keep a list or a dict, before {place} makes {shown} of it, and use hashlib in place "
            "of hash()."
        )
    is_renamed = any(d.clean is None or d.rerun is None or d.clean == d.output for d in differences)
    if is_renamed:
        return f"Let {place} name {shown} by run_id or ds, or by uuid5 of what it holds, in place of a random value."
    return ""
