"""A session's verdicts as JSON, and a check's result as text that crosses processes; no file is touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from ..model import CheckResult, Coverage, CrashKind, Difference, Finding, RecoveryKind, Rule, Verdict
from .text import dag_coverage, dag_verdict, group_by_dag

SCHEMA_VERSION = 1

Json: TypeAlias = dict[str, Any]

_VERSIONS = ("pytest_rerunsafe", "airflow", "python", "pytest")
_FINDING_KEYS = (
    "rule",
    "dag_id",
    "task_id",
    "map_index",
    "crash_point",
    "crash_kind",
    "recovery",
    "file",
    "line",
    "known",
    "summary",
    "differences",
    "replay",
)
_DIFFERENCE_KEYS = ("output", "clean", "rerun")


# --- the report -------------------------------------------------------------------------------


def json_report(
    results: Iterable[CheckResult], *, versions: Mapping[str, str], profile: str, duration_s: float
) -> Json:
    """The report of a session, ready for `dumps`. The checks of a DAG keep the order given."""
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": _versions(versions),
        "profile": str(profile),
        "duration_s": _seconds(duration_s),
        "dags": [_dag(checks) for checks in group_by_dag(results)],
    }


def dumps(report: Json) -> str:
    """The report's text, keys as they stand, with a newline at its end; can always be encoded in UTF-8."""
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match.group()):04x}", text) + "\n"


_SURROGATE = re.compile("[\ud800-\udfff]")
"""Stands in file names for bytes that are no UTF-8."""


def _versions(versions: Mapping[str, str]) -> Json:
    others = sorted(versions.keys() - set(_VERSIONS))
    return {name: versions[name] for name in (*_VERSIONS, *others) if name in versions}


def _dag(checks: Sequence[CheckResult]) -> Json:
    verdict, reason = dag_verdict(checks)
    findings = (finding for check in checks for finding in check.findings)
    return {
        "dag_id": checks[0].dag_id,
        "file": checks[0].file,
        "verdict": verdict.value,
        "reason": reason,
        "checks": [_check(check) for check in checks],
        "coverage": asdict(dag_coverage(checks)),
        "findings": [_finding(finding) for finding in sorted(findings, key=_place)],
    }


def _check(check: CheckResult) -> Json:
    return {
        "check": check.check,
        "verdict": check.verdict.value,
        "reason": check.reason,
        "duration_s": _seconds(check.duration_s),
    }


def _place(finding: Finding) -> tuple[str | int, ...]:
    """What findings are sorted by: their identity first, then all that can still tell them apart."""
    return (
        finding.rule.value,
        finding.task_id,
        finding.crash_point or "",
        finding.recovery.value if finding.recovery else "",
        finding.map_index,
        finding.file,
        finding.line,
        finding.summary,
        finding.replay,
    )


def _finding(finding: Finding) -> Json:
    fields = _plain(finding)
    fields["differences"] = [
        {key: difference[key] for key in _DIFFERENCE_KEYS} for difference in fields["differences"]
    ]
    return {key: fields[key] for key in _FINDING_KEYS}


def _seconds(duration: float) -> float:
    return round(duration, 3)


# --- transport --------------------------------------------------------------------------------


def to_transport(result: CheckResult) -> str:
    """A result as one line of ASCII, for pytest's `user_properties`; `from_transport` gives it back."""
    return json.dumps(_plain(result), sort_keys=True)


def from_transport(text: str) -> CheckResult:
    """The result that `to_transport` turned into this text."""
    fields: Json = json.loads(text)
    fields["verdict"] = Verdict(fields["verdict"])
    fields["findings"] = tuple(map(_finding_from, fields["findings"]))
    fields["coverage"] = Coverage(**fields["coverage"])
    fields["notes"] = tuple(fields["notes"])
    fields["masked"] = tuple(fields["masked"])
    return CheckResult(**fields)


def _finding_from(fields: Json) -> Finding:
    return Finding(
        **{
            **fields,
            "rule": Rule(fields["rule"]),
            "crash_kind": fields["crash_kind"] and CrashKind(fields["crash_kind"]),
            "recovery": fields["recovery"] and RecoveryKind(fields["recovery"]),
            "differences": tuple(Difference(**difference) for difference in fields["differences"]),
            "before": tuple(fields["before"]),
        }
    )


def _plain(value: CheckResult | Finding) -> Json:
    """A value as JSON knows it: our words are plain strings there."""
    plain: Json = json.loads(json.dumps(asdict(value)))
    return plain
