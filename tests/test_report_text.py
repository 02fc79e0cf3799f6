"""The texts of findings, checks and the terminal summary, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import combining

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
from pytest_rerunsafe.report.text import (
    SummaryLine,
    check_headline,
    check_text,
    dag_coverage,
    dag_verdict,
    finding_text,
    group_by_dag,
    summary_lines,
)


@dataclass(frozen=True)
class Text:
    title: str = "The rerun writes output a second time"
    remedy: str = (
        "Replace instead of append: write to a temporary file and move it over the old one with os.replace."
    )


TEXTS: Mapping[Rule, Text] = {rule: Text() for rule in Rule}
COMMAND = (
    "pytest --rerun-safety-replay='orders:load@write:/data/out.csv#2:kill:clear-downstream' dags/orders.py"
)
CSV = Difference(
    output="file:/data/out.csv",
    clean="...",
    rerun="...\nid-8,3000\nid-9,3250",
    summary="2 of 9 records twice",
)
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
    summary="3 of 10 records twice",
    differences=(CSV,),
    replay=COMMAND,
    last_effect="second write to /data/out.csv",
    next_effect="XCom return_value",
    others=3,
)
WITHOUT_CRASH = replace(
    FINDING, crash_point=None, crash_kind=None, recovery=None, last_effect="", next_effect="", others=0
)


def text_of(finding: Finding, source: str | None = None, width: int = 80) -> str:
    return finding_text(finding, Text(), source, width)


def result(verdict: Verdict, **fields: Any) -> CheckResult:
    given = {"dag_id": "orders", "file": "dags/orders.py", "check": "crash.load", "verdict": verdict}
    return CheckResult(**{**given, **fields})


def no_source(file: str, line: int) -> str | None:
    return None


def text_of_check(check: CheckResult, verbose: bool = False, width: int = 80) -> str:
    return check_text(check, TEXTS, no_source, verbose, width)


# --- a finding --------------------------------------------------------------------------------


def test_a_finding_tells_its_story_in_the_order_of_the_contract() -> None:
    assert text_of(FINDING, '        file.write(f"{row}")\n') == (
        "unsafe: duplicate-output in load: 3 of 10 records twice\n"
        "\n"
        "  The rerun writes output a second time.\n"
        "\n"
        "  The worker was killed in load, at dags/orders.py:31:\n"
        '      31 | file.write(f"{row}")\n'
        "  Last change saved: second write to /data/out.csv\n"
        "  First change lost: XCom return_value\n"
        "  Recovery: load is cleared with its downstream, some minutes later.\n"
        "\n"
        "  /data/out.csv: 2 of 9 records twice\n"
        "    clean run | after the rerun\n"
        "    ----------+----------------\n"
        "    ...       | ...\n"
        "              | id-8,3000\n"
        "              | id-9,3250\n"
        "\n"
        "  What to do: Replace instead of append: write to a temporary file and move it\n"
        "    over the old one with os.replace.\n"
        "\n"
        "  The same happens in 3 more cases (other crash points or recoveries).\n"
        "\n"
        "  To see it happen:\n"
        f"    {COMMAND}"
    )


def test_a_worker_that_dies_after_the_success_was_recorded_is_told_as_such() -> None:
    text = text_of(replace(FINDING, recovery=RecoveryKind.GO_ON))
    assert "  The worker was killed after load was recorded as success. Written at\n" in text
    assert "  Recovery: none, for load had succeeded: the run goes on.\n" in text


def test_a_task_that_succeeds_although_a_change_failed_is_told_as_such() -> None:
    text = text_of(replace(FINDING, recovery=RecoveryKind.GO_ON, crash_kind=CrashKind.ERROR))
    assert "  A change failed in load, at dags/orders.py:31.\n" in text


def test_where_another_line_is_to_blame_both_are_told() -> None:
    text = text_of(replace(FINDING, died_at="dags/orders.py:22"), '        with open(path, "x"):\n')
    assert "  The worker was killed in load, at dags/orders.py:22.\n  Last change saved" in text
    assert (
        'some minutes later.\n  To blame is dags/orders.py:31:\n      31 | with open(path, "x"):\n\n'
    ) in text


def test_a_finding_without_source_line_ends_its_sentence() -> None:
    assert "  The worker was killed in load, at dags/orders.py:31.\n" in text_of(FINDING)
    assert "  The worker was killed in load, at dags/orders.py:31.\n" in text_of(FINDING, "  \n")


def test_a_finding_without_a_known_place_names_none() -> None:
    assert "  The worker was killed in load.\n" in text_of(replace(FINDING, file="", line=0))
    assert "  The worker was killed in load, at dags/orders.py.\n" in text_of(replace(FINDING, line=0))


def test_unknown_effects_are_left_out() -> None:
    text = text_of(replace(FINDING, last_effect="", next_effect=""))
    assert "saved" not in text
    assert "lost" not in text


def test_a_torn_write_was_saved_only_in_part() -> None:
    text = text_of(replace(FINDING, crash_point="load@write:/data/out.csv#2+torn"))
    assert "  Saved only in part: second write to /data/out.csv\n" in text
    assert "Last change saved" not in text


def test_a_mapped_task_is_named_with_its_index() -> None:
    text = text_of(replace(FINDING, map_index=3))
    assert text.startswith("unsafe: duplicate-output in load[3]: ")
    assert "killed in load[3]," in text
    assert "Recovery: load[3] is cleared" in text
    assert "killed in load[0]," in text_of(replace(FINDING, map_index=0))


@pytest.mark.parametrize(
    ("recovery", "words"),
    [
        (RecoveryKind.RETRY, "Airflow retries load, some minutes later."),
        (RecoveryKind.CLEAR_TASK, "load alone is cleared, some minutes later."),
        (RecoveryKind.CLEAR_DOWNSTREAM, "load is cleared with its downstream, some minutes later."),
        (RecoveryKind.CLEAR_RUN, "the whole run is cleared, some minutes later."),
        (RecoveryKind.CLEAR_RUN_DAY_LATER, "the whole run is cleared, a day later."),
        (RecoveryKind.CLEAR_UPSTREAM, "load is cleared with its upstream, some minutes later."),
        (RecoveryKind.CLEAR_RUNNING, "load is cleared while it runs, which ends it, and runs again."),
        (RecoveryKind.CLEAR_INDEX, "this mapped index of load alone is cleared, some minutes later."),
    ],
)
def test_each_recovery_is_told_in_words(recovery: RecoveryKind, words: str) -> None:
    assert f"  Recovery: {words}\n" in text_of(replace(FINDING, recovery=recovery))


@pytest.mark.parametrize("recovery", list(RecoveryKind))
@pytest.mark.parametrize("crash_kind", list(CrashKind))
def test_no_recovery_or_crash_lacks_its_words(recovery: RecoveryKind, crash_kind: CrashKind) -> None:
    assert "None" not in text_of(replace(FINDING, recovery=recovery, crash_kind=crash_kind))


def test_a_known_finding_says_so_first() -> None:
    assert text_of(replace(FINDING, known=True)).startswith("known: duplicate-output in load: ")


def test_the_first_line_is_one_line_and_the_rest_of_the_summary_follows_the_rerun() -> None:
    text = text_of(replace(FINDING, rule=Rule.RERUN_FAILS, summary="FileExistsError: /data/a\n  in archive"))
    assert text.startswith("unsafe: rerun-fails in load: FileExistsError: /data/a\n\n")
    assert "some minutes later.\n\n    in archive\n\n" in text


@pytest.mark.parametrize(("others", "words"), [(1, "1 more case "), (1200, "1,200 more cases ")])
def test_folded_cases_are_counted(others: int, words: str) -> None:
    assert f"  The same happens in {words}(other crash points" in text_of(replace(FINDING, others=others))


def test_nothing_folded_is_not_mentioned() -> None:
    assert "The same happens" not in text_of(replace(FINDING, others=0))


def test_code_in_a_remedy_is_not_wrapped() -> None:
    code = "    with open(path + '.tmp', 'w') as out: json.dump(data, out, indent=2, sort_keys=True)"
    text = finding_text(FINDING, Text(remedy=f"Write it whole:\n{code}\nThen rename it."))
    assert f"  What to do: Write it whole:\n  {code}\n  Then rename it.\n" in text


# --- findings without a crash -----------------------------------------------------------------


def test_a_clear_after_success_is_no_recovery_from_a_crash() -> None:
    finding = replace(WITHOUT_CRASH, recovery=RecoveryKind.CLEAR_RUN_DAY_LATER, others=2)
    text = text_of(finding, "path = today()")
    assert (
        "  No worker died: the run had succeeded.\n"
        "  Rerun: the whole run is cleared, a day later.\n"
        "  See dags/orders.py:31:\n"
        "      31 | path = today()\n"
    ) in text
    assert "clean run | after the rerun" in text
    assert "  The same happens in 2 more cases.\n" in text


@pytest.mark.parametrize(
    ("rule", "story", "heads"),
    [
        (
            Rule.PARSE_SIDE_EFFECT,
            "No task was running: loading the DAG file did this, at dags/orders.py:31.",
            "before loading | after loading",
        ),
        (
            Rule.CLOCK_DEPENDENT,
            "No worker died: two clean runs at different times do not agree.\n  See dags/orders.py:31.",
            "clean run | clean run at another time",
        ),
        (
            Rule.NONDETERMINISTIC_OUTPUT,
            "No worker died: two clean runs on the same input do not agree.\n  See dags/orders.py:31.",
            "a clean run | another clean run",
        ),
        (
            Rule.WORKER_LOCAL_STATE,
            "No worker died: this happens in a clean run.\n  See dags/orders.py:31.",
            "expected | this run",
        ),
    ],
)
def test_a_finding_without_crash_and_rerun_tells_what_was_done(rule: Rule, story: str, heads: str) -> None:
    text = text_of(replace(WITHOUT_CRASH, rule=rule))
    assert f"\n\n  {story}\n\n" in text
    assert f"    {heads}\n" in text
    assert "killed" not in text
    assert "Recovery" not in text


def test_a_finding_of_no_task_names_none() -> None:
    finding = replace(WITHOUT_CRASH, rule=Rule.PARSE_SIDE_EFFECT, task_id="", summary="writes /data/in.json")
    assert text_of(finding).split("\n")[0] == "unsafe: parse-side-effect: writes /data/in.json"


def test_a_clean_run_without_a_known_place_names_none() -> None:
    text = text_of(replace(WITHOUT_CRASH, rule=Rule.NONDETERMINISTIC_OUTPUT, file="", line=0))
    assert "See" not in text


# --- differences ------------------------------------------------------------------------------


def table(clean: str | None, rerun: str | None, width: int = 80) -> list[str]:
    difference = Difference(output="file:/data/out.csv", clean=clean, rerun=rerun, summary="differs")
    text = text_of(replace(FINDING, differences=(difference,)), width=width)
    start = text.index("/data/out.csv: differs\n") + len("/data/out.csv: differs\n")
    return [line.removeprefix("    ") for line in text[start : text.index("\n\n", start)].split("\n")]


def test_lines_that_agree_are_left_out() -> None:
    assert table("a\nb\nc\nd", "a\nb\nx\nd")[2:] == ["...       | ...", "c         | x", "...       | ..."]


def test_missing_and_empty_are_told_apart() -> None:
    assert table(None, "")[2:] == ["(not there) | (empty)"]
    assert table("", None)[2:] == ["(empty)   | (not there)"]


def test_sides_too_wide_for_two_columns_stand_one_above_the_other() -> None:
    clean, rerun = "a" * 50, "b" * 60
    assert table(clean, rerun) == ["clean run:", f"  {clean}", "after the rerun:", f"  {rerun}"]
    assert table(clean, rerun, width=117)[2:] == [f"{clean} | {rerun}"]
    assert table(clean, rerun, width=116)[0] == "clean run:"


def test_a_line_too_wide_for_the_terminal_is_folded_with_nothing_lost() -> None:
    lines = table("a" * 100, "b")
    assert lines[1:3] == [f"  {'a' * 74}", f"    {'a' * 26}"]


def test_wide_characters_take_two_columns() -> None:
    assert table("注文", "x" * 20)[2:] == ["注文      | " + "x" * 20]


def test_blanks_that_differ_and_control_characters_are_spelled_out() -> None:
    assert table("a\tb", "a\xa0b\x1b[2J\r")[2:] == ["a\\tb      | a\\xa0b\\x1b[2J\\r"]


def test_a_long_table_is_cut_and_says_so() -> None:
    clean = "\n".join(f"old {line}" for line in range(1025))
    lines = table(clean, None)
    assert len(lines) == 2 + 20 + 1
    assert lines[-1] == "... and 1,005 more lines"
    assert table("\n".join(clean.split("\n")[:20]), None)[-1] == "old 19    |"
    assert table("\n".join(clean.split("\n")[:21]), None)[-1] == "... and 1 more line"
    stacked = table(clean + "x" * 100, "y" * 100)
    assert stacked[-1] == "... and 1,005 more lines"


def test_equal_excerpts_make_no_table() -> None:
    difference = replace(CSV, clean="...", rerun="...", summary="same records in another order")
    text = text_of(replace(FINDING, differences=(difference,)))
    assert "  /data/out.csv: same records in another order\n\n  What to do" in text


def test_outputs_are_named_in_words() -> None:
    names = ("file:/data/a", "xcom:load/return_value", "variable:offset", "table:orders")
    differences = tuple(replace(CSV, output=name) for name in names[:3])
    text = text_of(replace(FINDING, differences=(*differences, replace(CSV, output=names[3]))))
    for words in ("/data/a: 2", "XCom load/return_value: 2", "Variable offset: 2", "table:orders: 2"):
        assert f"\n  {words} of 9 records twice\n" in text


def test_of_many_differences_the_first_are_shown_more_are_named_the_rest_is_counted() -> None:
    def text(count: int) -> str:
        numbered = tuple(replace(CSV, output=f"file:/data/{number}.csv") for number in range(count))
        return text_of(replace(FINDING, differences=numbered))

    assert text(20).count("clean run | after the rerun") == 3
    assert "  /data/3.csv: 2 of 9 records twice\n  /data/4.csv: 2 of 9" in text(20)
    assert "/data/12.csv" in text(20)
    assert "/data/13.csv" not in text(20)
    assert "\n\n  7 more outputs differ.\n" in text(20)
    assert "\n\n  1 more output differs.\n" in text(14)
    assert "more output" not in text(13)


def test_no_differences_no_table() -> None:
    text = text_of(replace(FINDING, rule=Rule.RERUN_FAILS, differences=()))
    assert "clean run" not in text


contents = st.one_of(st.none(), st.text(), st.lists(st.text(max_size=90), max_size=30).map("\n".join))


@given(clean=contents, rerun=contents, width=st.integers(min_value=40, max_value=200))
def test_tables_fit_any_width_and_harm_no_terminal(clean: str | None, rerun: str | None, width: int) -> None:
    difference = Difference(output="file:/data/out.csv", clean=clean, rerun=rerun, summary="differs")
    finding = replace(FINDING, differences=(difference,), replay="pytest", summary="differs")
    lines = text_of(finding, width=width).split("\n")
    assert max(sum(not combining(char) for char in line) for line in lines[1:]) <= width
    assert all(line.isprintable() and line == line.rstrip() for line in lines)


@given(width=st.integers(min_value=1, max_value=200))
def test_the_command_stands_unbroken_on_a_line_of_its_own(width: int) -> None:
    assert text_of(FINDING, width=width).split("\n")[-1].strip() == COMMAND


# --- a check ----------------------------------------------------------------------------------

OTHER = replace(FINDING, rule=Rule.LOST_OUTPUT, summary="file is missing")
COVERAGE = Coverage(crash_points=1853, distinct_states=11, explored=11, recoveries=22)


def test_a_check_with_one_finding_reads_as_that_finding() -> None:
    assert text_of_check(result(Verdict.UNSAFE, findings=(FINDING,))) == text_of(FINDING)


def test_a_check_with_more_findings_counts_them_in_the_first_line_and_tells_all() -> None:
    check = result(Verdict.UNSAFE, findings=(FINDING, OTHER, OTHER))
    first, *rest = text_of_check(check).split("\n")
    assert first == "unsafe: duplicate-output in load: 3 of 10 records twice (+2 more findings)"
    assert rest == "\n\n".join(map(text_of, (FINDING, OTHER, OTHER))).split("\n")[1:]
    two = result(Verdict.UNSAFE, findings=(FINDING, OTHER))
    assert check_headline(two).endswith(" (+1 more finding)")


def test_new_findings_come_before_known_ones_and_those_take_one_line() -> None:
    check = result(Verdict.UNSAFE, findings=(replace(OTHER, known=True), FINDING))
    text = text_of_check(check)
    assert text.startswith("unsafe: duplicate-output in load: ")
    assert text.endswith(f"{COMMAND}\n\nknown: lost-output in load: file is missing")
    assert text_of_check(check, verbose=True).count(COMMAND) == 2


def test_a_known_check_says_so() -> None:
    check = result(Verdict.KNOWN, findings=(replace(FINDING, known=True),))
    assert text_of_check(check) == "known: duplicate-output in load: 3 of 10 records twice"


def test_source_lines_are_looked_up_by_file_and_line() -> None:
    def source_of(file: str, line: int) -> str | None:
        return f"  # {line} of {file}"

    check = result(Verdict.UNSAFE, findings=(FINDING, replace(OTHER, line=0)))
    text = check_text(check, TEXTS, source_of, False)
    assert "      31 | # 31 of dags/orders.py\n" in text
    assert "# 0 of" not in text
    first_line = result(Verdict.UNSAFE, findings=(replace(FINDING, line=1),))
    assert "       1 | # 1 of dags/orders.py\n" in check_text(first_line, TEXTS, source_of, False)


def test_each_rule_speaks_for_itself() -> None:
    texts = {**TEXTS, Rule.LOST_OUTPUT: Text(title="Output is missing", remedy="Close first.")}
    text = check_text(result(Verdict.UNSAFE, findings=(OTHER,)), texts, no_source, False)
    assert "  Output is missing.\n" in text
    assert "  What to do: Close first.\n" in text


def test_an_unsafe_check_says_what_else_could_not_be_checked() -> None:
    check = result(Verdict.UNSAFE, findings=(FINDING,), reason="a process was started")
    assert text_of_check(check).endswith(
        f"{COMMAND}\n\n  Besides, not everything could be checked: a process was started"
    )


def test_an_error_is_told_before_what_was_found() -> None:
    check = result(Verdict.ERROR, findings=(FINDING,), reason="no input")
    assert text_of_check(check) == f"error: no input\n\n{text_of(FINDING)}"


TRACEBACK = """Traceback (most recent call last):
  File "dags/broken.py", line 3, in <module>
    import pandsa
ModuleNotFoundError: No module named 'pandsa'"""


def test_an_error_leads_with_the_exception_and_shows_the_traceback_as_it_is() -> None:
    assert text_of_check(result(Verdict.ERROR, reason=TRACEBACK)) == (
        "error: ModuleNotFoundError: No module named 'pandsa'\n"
        "\n"
        "  Traceback (most recent call last):\n"
        '    File "dags/broken.py", line 3, in <module>\n'
        "      import pandsa\n"
        "  ModuleNotFoundError: No module named 'pandsa'"
    )


@pytest.mark.parametrize(
    ("reason", "headline"),
    [
        ("no input at /data/in.csv", "no input at /data/in.csv"),
        ("no input at /data/in.csv\nput it there in a hook", "no input at /data/in.csv"),
        (
            f"The file does not load:\n{TRACEBACK}",
            "The file does not load: ModuleNotFoundError: No module named 'pandsa'",
        ),
        (
            '  File "dags/a.py", line 3\n    f(\n     ^\nSyntaxError: never closed',
            "SyntaxError: never closed",
        ),
        (f"{TRACEBACK}\n\nDuring handling\n\n{TRACEBACK[:-9]}\n  more", "ModuleNotFoundError: No module"),
        ('Traceback (most recent call last):\n  File "a.py", line 1', '  File "a.py", line 1'.strip()),
    ],
)
def test_the_headline_of_an_error_is_what_says_most(reason: str, headline: str) -> None:
    assert check_headline(result(Verdict.ERROR, reason=reason)).startswith(f"error: {headline}")


def test_a_reason_of_one_line_is_not_said_twice() -> None:
    check = result(Verdict.UNVERIFIABLE, reason="a process was started")
    assert text_of_check(check) == "unverifiable: a process was started"
    assert text_of_check(replace(check, reason="a process\n")) == "unverifiable: a process"
    assert text_of_check(replace(check, reason="\nwhat\nwhere\n")) == "unverifiable: what\n\n  what\n  where"


@pytest.mark.parametrize(
    ("check", "headline"),
    [
        (result(Verdict.SKIPPED, reason="talks to SAP"), "skipped: talks to SAP"),
        (result(Verdict.ERROR), "error"),
        (result(Verdict.SAFE), "safe"),
        (
            result(Verdict.SAFE, coverage=COVERAGE),
            "safe: 1,853 crash points, 11 distinct states, 22 recoveries",
        ),
        (
            result(
                Verdict.SAFE, coverage=Coverage(crash_points=1, distinct_states=1, explored=1, recoveries=1)
            ),
            "safe: 1 crash point, 1 distinct state, 1 recovery",
        ),
        (result(Verdict.SAFE, coverage=Coverage(recoveries=7)), "safe: 7 recoveries"),
        (
            result(Verdict.SAFE, coverage=replace(COVERAGE, distinct_states=2400)),
            "safe: 1,853 crash points, 11 of 2,400 distinct states, 22 recoveries",
        ),
    ],
)
def test_a_check_without_findings_says_why_or_what_was_tried(check: CheckResult, headline: str) -> None:
    assert text_of_check(check) == check_headline(check) == headline


def test_verbose_adds_what_was_tried_and_the_notes() -> None:
    check = result(Verdict.ERROR, reason="no input", coverage=COVERAGE, notes=("times are masked", "ids too"))
    assert text_of_check(check) == "error: no input"
    assert text_of_check(check, verbose=True) == (
        "error: no input\n"
        "\n"
        "  Tried: 1,853 crash points, 11 distinct states, 22 recoveries\n"
        "  Note: times are masked\n"
        "  Note: ids too"
    )
    assert text_of_check(result(Verdict.SAFE, coverage=COVERAGE), verbose=True).count("\n") == 0
    noted = result(Verdict.SAFE, notes=("times are masked",))
    assert text_of_check(noted, verbose=True) == "safe\n\n  Note: times are masked"
    filling = result(Verdict.UNSAFE, findings=(FINDING,), reason="a " * 70, notes=("a " * 70,))
    for width in (60, 90):
        lines = text_of_check(filling, verbose=True, width=width).split("\n")
        assert all(
            len(line) in (width - 1, width) for line in lines if line.startswith(("  Besides", "  Note"))
        )
    assert text_of_check(result(Verdict.ERROR, reason="no input"), verbose=True) == "error: no input"


def test_verbose_adds_the_crash_map_and_what_its_signs_mean() -> None:
    check = result(Verdict.ERROR, reason="no input", crash_map="..X-? .")
    assert "Crash map" not in text_of_check(check)
    assert text_of_check(check, verbose=True) == (
        "error: no input\n"
        "\n"
        "  Crash map: ..X-? .\n"
        "    one sign per state: . ends well, X does not, ? not known, - not tried"
    )
    long = text_of_check(replace(check, crash_map="." * 200), verbose=True)
    assert long.count(".") == 201
    assert max(map(len, long.splitlines())) <= 80


def test_a_remedy_of_its_own_counts_for_more_than_that_of_the_rule() -> None:
    text = text_of(replace(FINDING, remedy="Let a.py:3 replace it."))
    assert "  What to do: Let a.py:3 replace it.\n" in text
    assert "Replace instead" not in text


# --- a DAG ------------------------------------------------------------------------------------


def test_the_worst_check_is_the_verdict_of_the_dag() -> None:
    for position, worst in enumerate(Verdict):
        checks = [result(verdict) for verdict in reversed(list(Verdict)[position:])]
        assert dag_verdict(checks) == (worst, None)


def test_the_reasons_of_a_dag_are_those_of_its_worst_checks_each_once() -> None:
    checks = [
        result(Verdict.SKIPPED, reason="not this"),
        result(Verdict.UNVERIFIABLE, reason="a socket"),
        result(Verdict.UNVERIFIABLE, reason="a process"),
        result(Verdict.UNVERIFIABLE, reason="a socket"),
    ]
    assert dag_verdict(checks) == (Verdict.UNVERIFIABLE, "a socket\na process")


def test_coverage_adds_up_and_is_exhaustive_only_if_all_of_it_is() -> None:
    part = Coverage(crash_points=1, distinct_states=20, explored=3, recoveries=4, exhaustive=False)
    checks = [result(Verdict.SAFE, coverage=coverage) for coverage in (COVERAGE, part)]
    assert dag_coverage(checks) == Coverage(
        crash_points=1854, distinct_states=31, explored=14, recoveries=26, exhaustive=False
    )
    assert dag_coverage(checks[:1]) == COVERAGE
    assert dag_coverage([]) == Coverage()


def test_dags_are_grouped_by_file_and_id_and_checks_stay_in_order() -> None:
    checks = [
        result(Verdict.SAFE, file=file, dag_id=dag_id, check=check)
        for check in ("clean", "backfill")
        for file, dag_id in (("b.py", "a"), ("a.py", "b"), ("a.py", "a"))
    ]
    names = [
        (group[0].file, group[0].dag_id, [check.check for check in group]) for group in group_by_dag(checks)
    ]
    order = ["clean", "backfill"]
    assert names == [("a.py", "a", order), ("a.py", "b", order), ("b.py", "a", order)]


# --- the terminal summary ---------------------------------------------------------------------

LONG_ID = "customer_lifetime_value_weekly_rollup_to_warehouse_v2_backfill"
RESULTS = (
    result(Verdict.UNSAFE, coverage=COVERAGE, duration_s=0.4),
    result(Verdict.SAFE, check="clean", duration_s=0.25),
    result(Verdict.SKIPPED, dag_id="sap_export", reason="talks to SAP"),
    result(
        Verdict.UNVERIFIABLE,
        dag_id=LONG_ID,
        duration_s=75.2,
        coverage=Coverage(crash_points=12345, distinct_states=240, explored=17, recoveries=34),
        reason="Task export starts a process (dags/clv.py:41): what it writes cannot be seen. "
        "Do the same in Python.",
    ),
    result(Verdict.ERROR, dag_id="", file="dags/zz.py", reason=TRACEBACK),
    result(Verdict.KNOWN, dag_id="legacy", reason="not told", duration_s=12.25),
)


def test_the_summary_has_a_line_per_dag_the_reasons_and_the_totals() -> None:
    assert summary_lines(RESULTS, 80) == (
        SummaryLine("DAG                    verdict       crash points     states  recoveries    time", None),
        SummaryLine(
            "customer_..._backfill  unverifiable        12,345  17 of 240          34  1m 15s", "yellow"
        ),
        SummaryLine("    Task export starts a process (dags/clv.py:41): what it writes cannot be", None),
        SummaryLine("      seen. Do the same in Python.", None),
        SummaryLine(
            "legacy                 known                    -          -           -   12.2s", "yellow"
        ),
        SummaryLine(
            "orders                 unsafe               1,853         11          22   0.65s", "red"
        ),
        SummaryLine(
            "sap_export             skipped                  -          -           -   0.00s", "yellow"
        ),
        SummaryLine("    talks to SAP", None),
        SummaryLine(
            "dags/zz.py             error                    -          -           -   0.00s", "red"
        ),
        SummaryLine("    ModuleNotFoundError: No module named 'pandsa'", None),
        SummaryLine("5 DAGs: 1 error, 1 unsafe, 1 known, 1 unverifiable, 1 skipped.", "red"),
        SummaryLine("14,198 crash points, 28 of 251 distinct states, 56 recoveries, 1m 28s.", "red"),
    )


def test_the_summary_of_one_safe_dag_is_short_and_green() -> None:
    assert summary_lines([result(Verdict.SAFE, coverage=replace(COVERAGE, crash_points=3))], 80) == (
        SummaryLine("DAG     verdict  crash points  states  recoveries   time", None),
        SummaryLine("orders  safe                3      11          22  0.00s", "green"),
        SummaryLine("1 DAG: 1 safe. 3 crash points, 11 distinct states, 22 recoveries, 0.00s.", "green"),
    )


def test_without_durations_the_summary_does_not_depend_on_time() -> None:
    slower = [replace(check, duration_s=99 * check.duration_s + 1) for check in RESULTS]
    assert summary_lines(RESULTS, 80, durations=False) == summary_lines(slower, 80, durations=False)
    only_error = summary_lines([result(Verdict.ERROR)], 80, durations=False)
    assert only_error[-1].text == "1 DAG: 1 error."
    assert "time" not in only_error[0].text


def test_no_results_no_summary() -> None:
    assert summary_lines([], 80) == ()


def test_many_reasons_are_cut_and_counted() -> None:
    def texts(count: int) -> list[str]:
        checks = [result(Verdict.UNVERIFIABLE, reason=f"reason {number}") for number in range(count)]
        return [line.text for line in summary_lines(checks, 80)][2:-1]

    assert texts(3) == ["    reason 0", "    reason 1", "    reason 2"]
    assert texts(4)[3:] == ["    and 1 more reason"]
    assert texts(1203)[3:] == ["    and 1,200 more reasons"]


def test_a_reason_of_several_lines_is_shown_whole() -> None:
    lines = summary_lines([result(Verdict.UNVERIFIABLE, reason="what\n  where\n\nwhat to do")], 80)
    assert [line.text for line in lines][2:-1] == ["    what", "    where", "    what to do"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.004, "0.00s"),
        (9.99, "9.99s"),
        (9.996, "10.0s"),
        (59.9, "59.9s"),
        (59.96, "1m 00s"),
        (119.7, "2m 00s"),
        (61000, "1,016m 40s"),
    ],
)
def test_times_are_as_exact_as_they_are_useful(seconds: float, words: str) -> None:
    assert summary_lines([result(Verdict.SAFE, duration_s=seconds)], 80)[1].text.endswith(f" {words}")


ids = st.text(alphabet="abcdefghijk_-.0", min_size=1, max_size=250)
words = st.text(alphabet=st.characters(categories=("L", "N", "P")), max_size=20)
counts = st.integers(min_value=0, max_value=999_999)
results = st.builds(
    CheckResult,
    dag_id=ids,
    file=st.just("dags/a.py"),
    check=st.just("clean"),
    verdict=st.sampled_from(Verdict),
    reason=st.one_of(st.none(), st.lists(words).map(" ".join)),
    findings=st.just(()),
    coverage=st.builds(Coverage, crash_points=counts, distinct_states=counts, recoveries=counts),
    duration_s=st.floats(min_value=0, max_value=5000),
    notes=st.just(()),
)


@given(given=st.lists(results, min_size=1, max_size=8), width=st.integers(min_value=80, max_value=200))
def test_every_summary_fits_its_width_with_its_columns_aligned(given: list[CheckResult], width: int) -> None:
    lines = [line.text for line in summary_lines(given, width)]
    assert max(map(len, lines)) <= width
    assert all(line.isprintable() for line in lines)
    end = lines[0].index("crash points") + len("crash points")
    rows = [line for line in lines[1:] if not line.startswith("    ")][: len(group_by_dag(given))]
    assert all(row[end - 1] in "0123456789-" and row[end] == " " for row in rows)


def test_a_long_id_keeps_its_beginning_and_its_end() -> None:
    lines = summary_lines([result(Verdict.SAFE, dag_id="a" * 60 + "z" * 60)], 60, durations=False)
    name = lines[1].text.split()[0]
    assert name == "a" * 7 + "..." + "z" * 7
    assert len(lines[1].text) <= 60
    assert len(summary_lines([result(Verdict.SAFE, dag_id=LONG_ID)], 10)[1].text.split()[0]) == 12


def test_the_summary_lists_what_was_masked() -> None:
    masked = tuple(f"/data/{n}.csv: time in `at`" for n in range(12))
    dag = [result(Verdict.SAFE, check="clean", masked=masked), result(Verdict.SAFE, check="rerun")]
    short = [line.text for line in summary_lines(dag) if "masked" in line.text]
    assert short == ["    masked: /data/0.csv: time in `at` (and 11 more outputs)"]
    long = [line.text for line in summary_lines(dag, verbose=True) if "masked" in line.text]
    assert long == [
        *(f"    masked: /data/{n}.csv: time in `at`" for n in range(9)),
        "    masked: /data/9.csv: time in `at` (and 2 more outputs)",
    ]
    wide = replace(dag[0], masked=("/data/" + "x" * 100 + ".csv: time in `at`",) * 2)
    assert all(len(line.text) <= 80 for line in summary_lines([wide]))


def test_the_verbose_summary_has_a_crash_map_per_task_and_one_legend() -> None:
    maps = {"crash.load": "..X.", "crash.extract": "." * 150}
    dag = [result(Verdict.UNSAFE, check=check, crash_map=signs) for check, signs in maps.items()]
    assert not any("..X" in line.text for line in summary_lines(dag))
    lines = [line.text for line in summary_lines(dag, verbose=True)]
    assert lines[2] == "    load     ..X."
    assert lines[3].startswith("    extract  ....")
    assert [line for line in lines if "one sign" in line] == ["one sign per state: . ends well, X does not"]
    assert max(map(len, lines)) <= 80
