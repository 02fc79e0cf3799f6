"""The JSON report, to the letter of its schema, and results that cross processes unchanged."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.model import (
    CheckResult,
    Coverage,
    CrashKind,
    Difference,
    Finding,
    RecoveryKind,
    Rule,
    Verdict,
)
from pytest_rerunsafe.report.json import dumps, from_transport, json_report, to_transport

FINDING = Finding(
    rule=Rule.DUPLICATE_OUTPUT,
    dag_id="orders",
    task_id="load",
    map_index=-1,
    crash_point="load@write:/data/out.csv#2",
    crash_kind=CrashKind.KILL,
    recovery=RecoveryKind.CLEAR_DOWNSTREAM,
    file="dags/orders.py",
    line=31,
    summary="3 of 10 records are written twice",
    differences=(Difference(output="file:/data/out.csv", clean="...", rerun=None, summary="3 twice"),),
    replay="pytest --rerun-safety-replay=X dags/orders.py",
    last_effect="write to /data/out.csv",
    next_effect="XCom return_value",
    others=3,
)
WITHOUT_CRASH = replace(FINDING, crash_point=None, crash_kind=None, recovery=None, differences=())
UNSAFE = CheckResult(
    dag_id="orders",
    file="dags/orders.py",
    check="crash.load",
    verdict=Verdict.UNSAFE,
    findings=(FINDING,),
    coverage=Coverage(crash_points=1853, distinct_states=11, explored=11, recoveries=22),
    duration_s=0.40049,
    notes=("times are masked",),
)
CLEAN = CheckResult(dag_id="orders", file="dags/orders.py", check="clean", verdict=Verdict.SAFE)
VERSIONS = {"python": "3.11.7", "pytest": "9.0.0", "airflow": "3.3.2", "pytest_rerunsafe": "0.1.0"}


def report(*results: CheckResult) -> dict[str, Any]:
    return json_report(results, versions=VERSIONS, profile="default", duration_s=3.10001)


# --- the report -------------------------------------------------------------------------------


def test_the_report_is_the_one_of_the_contract() -> None:
    assert dumps(report(CLEAN, UNSAFE)) == (
        """\
{
  "schema_version": 1,
  "versions": {
    "pytest_rerunsafe": "0.1.0",
    "airflow": "3.3.2",
    "python": "3.11.7",
    "pytest": "9.0.0"
  },
  "profile": "default",
  "duration_s": 3.1,
  "dags": [
    {
      "dag_id": "orders",
      "file": "dags/orders.py",
      "verdict": "unsafe",
      "reason": null,
      "checks": [
        {
          "check": "clean",
          "verdict": "safe",
          "reason": null,
          "duration_s": 0.0
        },
        {
          "check": "crash.load",
          "verdict": "unsafe",
          "reason": null,
          "duration_s": 0.4
        }
      ],
      "coverage": {
        "crash_points": 1853,
        "distinct_states": 11,
        "explored": 11,
        "recoveries": 22,
        "exhaustive": true
      },
      "findings": [
        {
          "rule": "duplicate-output",
          "dag_id": "orders",
          "task_id": "load",
          "map_index": -1,
          "crash_point": "load@write:/data/out.csv#2",
          "crash_kind": "kill",
          "recovery": "clear-downstream",
          "file": "dags/orders.py",
          "line": 31,
          "known": false,
          "summary": "3 of 10 records are written twice",
          "differences": [
            {
              "output": "file:/data/out.csv",
              "clean": "...",
              "rerun": null
            }
          ],
          "replay": "pytest --rerun-safety-replay=X dags/orders.py"
        }
      ]
    }
  ]
}
"""
    )


def test_a_finding_without_a_crash_has_nulls() -> None:
    finding = report(replace(UNSAFE, findings=(WITHOUT_CRASH,)))["dags"][0]["findings"][0]
    assert [finding[key] for key in ("crash_point", "crash_kind", "recovery")] == [None, None, None]


def test_no_results_make_an_empty_report() -> None:
    assert report()["dags"] == []


def test_versions_that_are_not_known_are_left_out_and_others_come_last() -> None:
    versions = {"xdist": "3.6", "python": "3.11.7", "os": "Linux"}
    made = json_report([], versions=versions, profile="fast", duration_s=0)
    assert list(made["versions"].items()) == [("python", "3.11.7"), ("os", "Linux"), ("xdist", "3.6")]


def test_dags_are_sorted_by_file_then_id_and_checks_keep_their_order() -> None:
    results = [
        replace(CLEAN, file=file, dag_id=dag_id, check=check)
        for check in ("rerun", "clean")
        for file, dag_id in (("b.py", "a"), ("a.py", "b"), ("a.py", "a"))
    ]
    dags = report(*results)["dags"]
    assert [(dag["file"], dag["dag_id"]) for dag in dags] == [("a.py", "a"), ("a.py", "b"), ("b.py", "a")]
    assert [[check["check"] for check in dag["checks"]] for dag in dags] == [["rerun", "clean"]] * 3


def test_a_dag_has_the_worst_verdict_with_its_reason_and_the_sum_of_what_was_tried() -> None:
    part = Coverage(crash_points=7, distinct_states=20, explored=2, recoveries=1, exhaustive=False)
    failed = replace(CLEAN, verdict=Verdict.ERROR, reason="no input", coverage=part)
    dag = report(failed, UNSAFE)["dags"][0]
    assert (dag["verdict"], dag["reason"]) == ("error", "no input")
    assert dag["checks"][0]["reason"] == "no input"
    assert dag["coverage"] == {
        "crash_points": 1860,
        "distinct_states": 31,
        "explored": 13,
        "recoveries": 23,
        "exhaustive": False,
    }


def test_findings_are_sorted_by_rule_task_crash_point_and_recovery_wherever_they_come_from() -> None:
    ordered = [
        WITHOUT_CRASH,
        replace(FINDING, crash_point="a"),
        replace(FINDING, crash_point="b", recovery=None),
        replace(FINDING, crash_point="b", recovery=RecoveryKind.CLEAR_RUN),
        replace(FINDING, crash_point="b", recovery=RecoveryKind.RETRY),
        replace(FINDING, crash_point="b", recovery=RecoveryKind.RETRY, map_index=2),
        replace(FINDING, crash_point="b", recovery=RecoveryKind.RETRY, map_index=10),
        replace(FINDING, task_id="publish", crash_point="a"),
        replace(FINDING, rule=Rule.LOST_OUTPUT, task_id="a"),
    ]
    expected = report(replace(UNSAFE, findings=tuple(ordered)))["dags"][0]["findings"]
    assert len(expected) == len(ordered)
    assert [row["map_index"] for row in expected] == [-1, -1, -1, -1, -1, 2, 10, -1, -1]
    assert [row["rule"] for row in expected][-1] == "lost-output"
    shuffled = ordered[:]
    random.Random(4).shuffle(shuffled)
    parts = [replace(UNSAFE, findings=tuple(part)) for part in (shuffled[:4], shuffled[4:])]
    assert report(*parts)["dags"][0]["findings"] == expected
    assert [row["crash_point"] for row in expected] == [finding.crash_point for finding in ordered]


def test_text_of_any_script_is_readable_and_stays_encodable() -> None:
    text = dumps(report(replace(CLEAN, reason="注文 \udc80 é")))
    assert "注文" in text
    assert "é" in text
    assert json.loads(text.encode("utf-8"))["dags"][0]["checks"][0]["reason"] == "注文 \udc80 é"


def test_a_report_is_json_to_all_who_read_it() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps(report(replace(CLEAN, duration_s=float("nan"))))


# --- any result -------------------------------------------------------------------------------

names = st.text(max_size=20)
counts = st.integers(min_value=-1, max_value=2**40)
differences = st.builds(
    Difference, output=names, clean=st.none() | names, rerun=st.none() | names, summary=names
)
findings = st.builds(
    Finding,
    rule=st.sampled_from(Rule),
    dag_id=names,
    task_id=names,
    map_index=counts,
    crash_point=st.none() | names,
    crash_kind=st.none() | st.sampled_from(CrashKind),
    recovery=st.none() | st.sampled_from(RecoveryKind),
    file=names,
    line=counts,
    summary=names,
    differences=st.lists(differences, max_size=3).map(tuple),
    replay=names,
    last_effect=names,
    next_effect=names,
    others=counts,
    known=st.booleans(),
)
coverages = st.builds(
    Coverage,
    crash_points=counts,
    distinct_states=counts,
    explored=counts,
    recoveries=counts,
    exhaustive=st.booleans(),
)
check_results = st.builds(
    CheckResult,
    dag_id=names,
    file=names,
    check=names,
    verdict=st.sampled_from(Verdict),
    reason=st.none() | names,
    findings=st.lists(findings, max_size=3).map(tuple),
    coverage=coverages,
    duration_s=st.floats(allow_nan=False, allow_infinity=False),
    notes=st.lists(names, max_size=3).map(tuple),
)


@given(result=check_results)
def test_a_result_comes_back_from_transport_as_it_was(result: CheckResult) -> None:
    back = from_transport(to_transport(result))
    assert back == result
    assert hash(back) == hash(result)
    assert type(back.verdict) is Verdict
    kinds = {type(finding.rule) for finding in back.findings}
    assert kinds <= {Rule}


@given(result=check_results)
def test_transport_is_one_line_of_ascii_and_always_the_same(result: CheckResult) -> None:
    text = to_transport(result)
    assert text.isascii()
    assert text.isprintable()
    assert text == to_transport(from_transport(text))


def test_every_field_travels() -> None:
    """A new field with a default would be lost silently if only the known ones were carried."""
    carried = json.loads(to_transport(UNSAFE))
    assert set(carried) == {field.name for field in fields(CheckResult)}
    assert set(carried["findings"][0]) == {field.name for field in fields(Finding)}
    assert set(carried["coverage"]) == {field.name for field in fields(Coverage)}


@given(results=st.lists(check_results, max_size=4), seed=st.randoms(use_true_random=False))
def test_reports_do_not_depend_on_which_dag_ended_first(
    results: list[CheckResult], seed: random.Random
) -> None:
    """Results of several processes come in any order; that of one DAG's checks is the caller's."""
    unique = list({(result.file, result.dag_id): result for result in results}.values())
    shuffled = unique[:]
    seed.shuffle(shuffled)
    assert dumps(report(*shuffled)) == dumps(report(*unique))


@given(results=st.lists(check_results, max_size=3))
def test_every_report_reads_back_as_it_was(results: list[CheckResult]) -> None:
    made = report(*results)
    text = dumps(made)
    assert json.loads(text.encode("utf-8")) == made
    assert text.endswith("}\n")
