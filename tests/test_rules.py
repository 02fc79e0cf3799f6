"""Which rule the bugs of real DAGs are found to break."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pytest_rerunsafe.compare.differences import diff_outputs
from pytest_rerunsafe.compare.rules import RULES, Evidence, RuleText, classify
from pytest_rerunsafe.compare.volatile import Volatility
from pytest_rerunsafe.model import Output, Rule

CSV, OTHER, MARK, CKPT = "file:/d/out.csv", "file:/d/other.csv", "file:/d/_SUCCESS", "file:/d/ckpt.json"
ROWS = [b"%d,row %d\n" % (n, n) for n in range(1, 11)]
TABLE = b"".join(ROWS)
Contents = Mapping[str, bytes]


def outputs(contents: Contents) -> dict[str, Output]:
    return {name: Output(name=name, content=content) for name, content in contents.items()}


def evidence(clean: Contents, rerun: Contents, crash: Contents | None = None, *written: str) -> Evidence:
    """What a scenario showed that left `crash` behind after the effects `written`."""
    found = diff_outputs(outputs(clean), outputs(rerun), Volatility.none())
    return Evidence(
        clean=outputs(clean),
        rerun=outputs(rerun),
        crash=outputs(crash or {}),
        differences=found,
        written_after=written,
    )


def done(count: int) -> bytes:
    return json.dumps({"done": count}).encode()


# --- what is known before any output is looked at ---------------------------------------------

DUPLICATED = evidence({CSV: TABLE}, {CSV: TABLE + TABLE})


@pytest.mark.parametrize("state", ["failed", "stuck"])
def test_a_rerun_that_does_not_finish_fails_whatever_else_it_did(state: str) -> None:
    assert classify(replace(DUPLICATED, rerun_state=state, same_day_is_fine=True)) is Rule.RERUN_FAILS


def test_what_only_a_day_later_differs_depends_on_the_clock() -> None:
    assert classify(replace(DUPLICATED, same_day_is_fine=True, stale_xcom_reads=True)) is Rule.CLOCK_DEPENDENT


@pytest.mark.parametrize("same_day", [False, None])
def test_what_differs_the_same_day_or_was_not_tried_does_not(same_day: bool | None) -> None:
    assert classify(replace(DUPLICATED, same_day_is_fine=same_day)) is Rule.DUPLICATE_OUTPUT


def test_a_read_of_a_stale_xcom_explains_the_rest() -> None:
    assert classify(replace(DUPLICATED, stale_xcom_reads=True)) is Rule.STALE_XCOM


def test_xcoms_alone_that_are_as_the_crash_left_them_are_stale() -> None:
    xcom = "xcom:load/offset"
    assert classify(evidence({xcom: b"10"}, {xcom: b"3"}, {xcom: b"3"})) is Rule.STALE_XCOM
    assert classify(evidence({xcom: b"10"}, {xcom: b"4"}, {xcom: b"3"})) is Rule.WRONG_OUTPUT
    mixed = evidence({xcom: b"10", CSV: TABLE}, {xcom: b"3", CSV: TABLE * 2}, {xcom: b"3"})
    assert classify(mixed) is Rule.DUPLICATE_OUTPUT


# --- written only if it does not exist --------------------------------------------------------


@pytest.mark.parametrize("left", [b"", b"1,row", TABLE[:40], b"".join(ROWS[:4])])
def test_an_output_that_the_crash_left_in_part_and_the_rerun_left_so(left: bytes) -> None:
    found = evidence({CSV: TABLE}, {CSV: left}, {CSV: left}, CSV, CSV)
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


def test_a_file_per_item_of_which_the_last_is_torn() -> None:
    clean = {f"file:/d/{n}.json": b'{"n": %d}' % n for n in range(3)}
    crash = {"file:/d/0.json": clean["file:/d/0.json"], "file:/d/1.json": b""}
    found = evidence(
        clean, {**clean, "file:/d/1.json": b""}, crash, "file:/d/0.json", "file:/d/0.json", "file:/d/1.json"
    )
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


@pytest.mark.parametrize("left", [b'{"at": "2024-01-1', b'{"at": "2', b'{"at": "<time>", "n', b'{"at": "'])
def test_a_masked_output_may_be_torn_inside_a_time(left: bytes) -> None:
    name = "file:/d/1.json"
    found = evidence({name: b'{"at": "<time>", "n": 1}'}, {name: left}, {name: left}, name)
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


def test_json_with_fewer_elements_is_a_part_too() -> None:
    name = "file:/d/1.json"
    found = evidence({name: b"[1, 2, 3]"}, {name: b"[1, 2]"}, {name: b"[1, 2]"}, name)
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


def test_a_part_that_another_task_had_completed_was_not_left_by_the_crash() -> None:
    found = evidence({CSV: TABLE}, {CSV: TABLE[:40]}, {CSV: TABLE[:40]}, MARK)
    assert classify(found) is Rule.LOST_OUTPUT


# --- marker and checkpoint before the data ----------------------------------------------------


def test_a_marker_that_became_durable_before_the_data() -> None:
    left = {CSV: TABLE[:40], MARK: b""}
    found = evidence({CSV: TABLE, MARK: b""}, left, left, CSV, CSV, MARK)
    assert classify(found) is Rule.LOST_OUTPUT


def test_a_marker_that_became_durable_before_the_output_was_begun_announces_nothing() -> None:
    left = {CSV: b"", OTHER: TABLE}
    found = evidence({CSV: TABLE, OTHER: TABLE}, left, left, OTHER, OTHER, CSV)
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


def test_an_output_that_was_left_in_part_itself_announces_nothing() -> None:
    left = {CSV: b"", OTHER: TABLE[:40]}
    found = evidence({CSV: TABLE, OTHER: TABLE}, left, left, CSV, OTHER, OTHER)
    assert classify(found) is Rule.PARTIAL_OUTPUT_ACCEPTED


def test_an_xcom_announces_nothing() -> None:
    left = {CSV: b"", "xcom:load/return_value": b"10"}
    clean = {CSV: TABLE, "xcom:load/return_value": b"10"}
    assert (
        classify(evidence(clean, left, left, CSV, "xcom:load/return_value")) is Rule.PARTIAL_OUTPUT_ACCEPTED
    )


def test_a_variable_as_checkpoint_announces() -> None:
    left = {CSV: b"", "variable:done": b"10"}
    assert (
        classify(evidence({CSV: TABLE, "variable:done": b"10"}, left, left, CSV, "variable:done"))
        is Rule.LOST_OUTPUT
    )


def test_a_checkpoint_before_buffered_data_that_were_never_written() -> None:
    left = {CSV: b"", CKPT: done(10)}
    found = evidence({CSV: TABLE, CKPT: done(10)}, left, left, CSV, *[CKPT] * 20)
    assert classify(found) is Rule.LOST_OUTPUT


def test_a_checkpoint_that_the_end_of_the_run_removes() -> None:
    found = evidence({CSV: TABLE}, {CSV: b""}, {CSV: b"", CKPT: done(9)}, CSV, *[CKPT] * 18)
    assert classify(found) is Rule.LOST_OUTPUT


def test_a_checkpoint_before_buffered_data_and_the_rerun_goes_on_behind_it() -> None:
    clean = {CSV: TABLE, CKPT: done(10)}
    found = evidence(
        clean, {CSV: b"".join(ROWS[3:]), CKPT: done(10)}, {CSV: b"", CKPT: done(3)}, CSV, *[CKPT] * 6
    )
    assert classify(found) is Rule.LOST_OUTPUT


def test_a_checkpoint_ahead_of_data_whose_last_line_was_torn() -> None:
    torn = ROWS[0] + ROWS[1] + b"3,ro"
    rerun = torn + b"".join(ROWS[7:])
    found = evidence(
        {CSV: TABLE, CKPT: done(10)}, {CSV: rerun, CKPT: done(10)}, {CSV: torn, CKPT: done(7)}, CSV
    )
    assert classify(found) is Rule.LOST_OUTPUT


# --- delete, then insert; move, then process --------------------------------------------------


def test_a_delete_that_became_durable_before_the_insert() -> None:
    assert classify(evidence({CSV: TABLE}, {}, {}, CSV)) is Rule.LOST_OUTPUT


def test_a_source_that_was_moved_away_before_it_was_processed() -> None:
    source = "file:/d/done/in.csv"
    found = evidence({CSV: TABLE, source: TABLE}, {source: TABLE}, {source: TABLE}, source)
    assert classify(found) is Rule.LOST_OUTPUT


def test_some_records_lost_and_others_twice_is_a_loss() -> None:
    rerun = b"".join([*ROWS[:3], *ROWS[1:3], *ROWS[6:]])
    assert classify(evidence({CSV: TABLE}, {CSV: rerun})) is Rule.LOST_OUTPUT
    twice = {CSV: TABLE[:20], OTHER: TABLE * 2}
    assert classify(evidence({CSV: TABLE, OTHER: TABLE}, twice)) is Rule.LOST_OUTPUT


def test_a_key_that_is_missing_is_a_loss() -> None:
    assert classify(evidence({CKPT: b'{"a": 1, "b": 2}'}, {CKPT: b'{"a": 1}'})) is Rule.LOST_OUTPUT


# --- failures that nobody sees ----------------------------------------------------------------


def test_an_error_that_was_swallowed_hides_a_missing_output() -> None:
    assert classify(replace(evidence({CSV: TABLE}, {}), swallowed_errors=True)) is Rule.MASKED_FAILURE
    assert (
        classify(replace(evidence({CSV: TABLE}, {CSV: TABLE[:20]}), exited_green=True)) is Rule.MASKED_FAILURE
    )


def test_an_error_that_was_swallowed_where_nothing_is_missing_hides_nothing() -> None:
    found = replace(DUPLICATED, swallowed_errors=True, exited_green=True)
    assert classify(found) is Rule.DUPLICATE_OUTPUT


def test_a_torn_output_that_was_accepted_is_told_as_such_although_an_error_was_swallowed() -> None:
    found = evidence({CSV: TABLE}, {CSV: b""}, {CSV: b""}, CSV)
    assert classify(replace(found, swallowed_errors=True)) is Rule.PARTIAL_OUTPUT_ACCEPTED


# --- appended without a check -----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 10])
def test_records_that_were_appended_again(count: int) -> None:
    left = b"".join(ROWS[:count])
    found = evidence({CSV: TABLE}, {CSV: left + TABLE}, {CSV: left}, CSV)
    assert classify(found) is Rule.DUPLICATE_OUTPUT


@pytest.mark.parametrize("cut", [3, 9, 22, 50])
def test_records_that_were_appended_behind_a_torn_one(cut: int) -> None:
    found = evidence({CSV: TABLE}, {CSV: TABLE[:cut] + TABLE}, {CSV: TABLE[:cut]}, CSV)
    assert classify(found) is Rule.DUPLICATE_OUTPUT


@pytest.mark.parametrize("cut", [3, 8, 22, 50])
def test_records_that_were_appended_behind_a_torn_one_of_a_longer_file(cut: int) -> None:
    head = b"0,earlier run\n"
    found = evidence({CSV: head + TABLE}, {CSV: head + TABLE[:cut] + TABLE}, {CSV: head + TABLE[:cut]}, CSV)
    assert classify(found) is Rule.DUPLICATE_OUTPUT


@pytest.mark.parametrize("content", [b"done", b"\0\1\2", b"[1, 2]"])
def test_any_content_that_stands_there_twice(content: bytes) -> None:
    name = "file:/d/x.json"
    for times in (2, 3):
        assert classify(evidence({name: content}, {name: content * times})) is Rule.DUPLICATE_OUTPUT


def test_json_lists_that_were_extended_again() -> None:
    name = "variable:seen"
    assert classify(evidence({name: b"[1, 2]"}, {name: b"[1, 2, 1, 2]"})) is Rule.DUPLICATE_OUTPUT


def test_duplicates_explain_the_totals_made_of_them() -> None:
    name = "file:/d/a_total.json"
    found = evidence({CSV: TABLE, name: b'{"n": 10}'}, {CSV: TABLE * 2, name: b'{"n": 20}'})
    assert classify(found) is Rule.DUPLICATE_OUTPUT


def test_duplicates_count_for_more_than_an_xcom_that_is_missing() -> None:
    found = evidence({CSV: TABLE, "xcom:t/k": b"10"}, {CSV: TABLE * 2})
    assert classify(found) is Rule.DUPLICATE_OUTPUT


def test_the_same_content_under_a_second_name() -> None:
    clean = {"file:/d/out_try1.csv": TABLE}
    rerun = {"file:/d/out_try1.csv": TABLE, "file:/d/out_try2.csv": TABLE}
    assert classify(evidence(clean, rerun, clean, "file:/d/out_try1.csv")) is Rule.DUPLICATE_OUTPUT


# --- remains ----------------------------------------------------------------------------------


def test_the_same_content_under_a_name_that_the_dead_attempt_had_for_it_is_what_that_left() -> None:
    remains = {"file:/d/7f3a": TABLE}
    found = evidence({CSV: TABLE}, {CSV: TABLE, **remains}, remains, *remains)
    assert classify(found) is Rule.STALE_OUTPUT


@pytest.mark.parametrize(
    "name",
    ["out.csv.tmp", "tmp_out.csv", "_tmp_out.csv", "out.csv.bak", "out.csv~", ".out.csv.part", "out.old.csv"],
)
@pytest.mark.parametrize("left", [TABLE, TABLE[:40], b""])
def test_a_temporary_file_that_is_left_behind(name: str, left: bytes) -> None:
    remains = {f"file:/d/{name}": left}
    assert classify(evidence({CSV: TABLE}, {CSV: TABLE, **remains}, remains, *remains)) is Rule.STALE_OUTPUT


def test_a_partition_that_only_the_dead_attempt_wrote() -> None:
    remains = {"file:/d/day=14/out.csv": TABLE[:40]}
    assert classify(evidence({CSV: TABLE}, {CSV: TABLE, **remains}, remains, *remains)) is Rule.STALE_OUTPUT


def test_records_of_a_dead_attempt_that_the_rerun_picked_up() -> None:
    crash = {"file:/d/staging/7.csv": b"77,old\n"}
    found = evidence({CSV: TABLE}, {CSV: TABLE + b"77,old\n"}, crash, "file:/d/staging/7.csv")
    assert classify(found) is Rule.STALE_OUTPUT


def test_a_key_of_a_dead_attempt() -> None:
    crash = {CKPT: b'{"old": 1}'}
    assert (
        classify(evidence({CKPT: b'{"new": 2}'}, {CKPT: b'{"new": 2, "old": 1}'}, crash)) is Rule.STALE_OUTPUT
    )


def test_a_value_of_a_dead_attempt_that_the_rerun_kept() -> None:
    total = "file:/d/total.json"
    crash = {CSV: TABLE[:40], total: b'{"n": 5}'}
    clean = {CSV: TABLE, total: b'{"n": 10}'}
    assert classify(evidence(clean, clean | {total: b'{"n": 5}'}, crash, CSV, total)) is Rule.STALE_OUTPUT


def test_an_extra_record_of_unknown_origin_is_no_remains() -> None:
    assert (
        classify(evidence({CSV: TABLE}, {CSV: TABLE + b"77,new\n"}, {CSV: TABLE[:40]})) is Rule.WRONG_OUTPUT
    )


# --- all else ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clean", "rerun"),
    [
        (CKPT, b'{"total": 20}', b'{"total": 30}'),
        (CKPT, b'{"total": 30}', b'{"total": 3}'),
        (CKPT, b"[30, 40]", b"[3, 40]"),
        (CKPT, b"3", b"33"),
        (CKPT, b"[1, 100, 5]", b"[1100, 5]"),
        ("xcom:t/k", b"12", b"1"),
        ("file:/d/x.txt", b"count 1\n", b"count 11\n"),
        ("file:/d/x.txt", b"count 10\n", b"count 1\n"),
        (CSV, TABLE, b"".join(reversed(ROWS))),
        (CSV, TABLE, TABLE.replace(b"row 4", b"row x")),
        (CSV, TABLE, TABLE.replace(b"10,row 10", b"10,row 1")),
        ("xcom:t/k", b"10", b"20"),
        ("file:/d/x.bin", b"\0\1\2", b"\0\1\3"),
    ],
)
def test_any_other_difference_is_a_wrong_output(name: str, clean: bytes, rerun: bytes) -> None:
    assert classify(evidence({name: clean}, {name: rerun})) is Rule.WRONG_OUTPUT


def test_an_extra_file_of_unknown_origin_is_a_wrong_output() -> None:
    assert classify(evidence({CSV: TABLE}, {CSV: TABLE, OTHER: b"x\n"})) is Rule.WRONG_OUTPUT
    assert (
        classify(evidence({CSV: TABLE, MARK: b""}, {CSV: TABLE, MARK: b"", OTHER: b""})) is Rule.WRONG_OUTPUT
    )


# --- the texts --------------------------------------------------------------------------------


def test_every_rule_has_its_text() -> None:
    assert set(RULES) == set(Rule)


@pytest.mark.parametrize("text", RULES.values(), ids=map(str, RULES))
def test_a_text_says_all_that_a_reader_needs(text: RuleText) -> None:
    assert "\n" not in text.title
    assert len(text.title) <= 72
    assert not text.title.endswith(".")
    assert text.explanation.endswith(".")
    assert text.remedy.endswith(".")
    assert text.remedy.count(". ") <= 1
    assert text.unsafe != text.safe
    for example in (text.unsafe, text.safe):
        compile(example, "<example>", "exec")


def test_no_two_rules_say_the_same() -> None:
    for part in ("title", "explanation", "remedy", "unsafe"):
        assert len({getattr(text, part) for text in RULES.values()}) == len(RULES)
