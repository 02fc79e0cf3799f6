"""Which values of three clean runs are masked, where, and what is reported instead."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.compare.volatile import Volatility, find_volatile
from pytest_rerunsafe.model import Output, Rule

T1 = datetime(2024, 1, 15, 3, 15, 0, tzinfo=timezone.utc)
T2 = datetime(2025, 3, 20, 17, 42, 31, tzinfo=timezone.utc)
T3 = datetime(2026, 7, 1, 9, 9, 9, tzinfo=timezone.utc)
U1 = str(UUID("1b4e28ba-2fa1-41d2-883f-0016d3cca427"))
U2 = str(UUID("6fa459ea-ee8a-4ca4-894e-db77e160355e"))
U3 = str(UUID("886313e1-3b8a-4372-9b90-0c9aee199e5d"))
FILE = "file:/data/out.json"


def outputs(**files: str | bytes) -> dict[str, Output]:
    """Outputs by the base name of a file in `/data`, `_` for the dot."""
    return named({f"file:/data/{name.replace('_', '.')}": content for name, content in files.items()})


def named(contents: Mapping[str, str | bytes]) -> dict[str, Output]:
    encoded = {name: text if isinstance(text, bytes) else text.encode() for name, text in contents.items()}
    return {name: Output(name=name, content=content) for name, content in encoded.items()}


def find(name: str, clean: str, clock: str, entropy: str | None = None) -> Volatility:
    entropy = clean if entropy is None else entropy
    return find_volatile(named({name: clean}), named({name: clock}), named({name: entropy}))


def masked(name: str, clean: str, clock: str, entropy: str | None = None) -> str:
    return find(name, clean, clock, entropy).mask(name, clean.encode()).decode()


def rules(volatility: Volatility) -> list[Rule]:
    return [rule for rule, _ in volatility.problems]


# --- times ------------------------------------------------------------------------------------

TimeFormat = Callable[[datetime], str]
Rows = list[tuple[int, str]]

TIME_FORMATS: dict[str, TimeFormat] = {
    "isoformat": datetime.isoformat,
    "without zone": lambda t: t.strftime("%Y-%m-%dT%H:%M:%S"),
    "with space": lambda t: t.strftime("%Y-%m-%d %H:%M:%S.%f"),
    "zulu": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "date": lambda t: t.strftime("%Y-%m-%d"),
    "clock": lambda t: t.strftime("%H:%M:%S"),
    "compact": lambda t: t.strftime("%Y%m%dT%H%M%S"),
    "compact with underscore": lambda t: t.strftime("%Y%m%d_%H%M%S"),
    "compact date": lambda t: t.strftime("%Y%m%d"),
    "dashes": lambda t: t.strftime("%Y-%m-%d_%H-%M-%S"),
    "slashes": lambda t: t.strftime("%Y/%m/%d"),
    "month name": lambda t: t.strftime("%d %b %Y"),
    "rfc 2822": format_datetime,
    "http": lambda t: t.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "ctime": lambda t: t.strftime("%a %b %d %H:%M:%S %Y"),
    "epoch seconds": lambda t: str(int(t.timestamp())),
    "epoch fraction": lambda t: f"{t.timestamp():.3f}",
    "epoch millis": lambda t: str(int(t.timestamp() * 1000)),
    "epoch nanos": lambda t: str(int(t.timestamp()) * 10**9),
}


@pytest.mark.parametrize("form", TIME_FORMATS)
def test_a_time_is_masked_in_every_format(form: str) -> None:
    one, two = TIME_FORMATS[form](T1), TIME_FORMATS[form](T2)
    assert masked(FILE, json.dumps({"a": 1, "at": one}), json.dumps({"a": 1, "at": two})) == (
        '{"a": 1, "at": "<time>"}'
    )
    table = 'id,at\n1,"{}"\n'
    assert masked("file:/data/x.csv", table.format(one), table.format(two)) == table.format("<time>")
    assert masked("file:/data/x.tsv", f"1\t{one}\n", f"1\t{two}\n") == "1\t<time>\n"
    assert masked("file:/data/x.log", f"done at {one} ok\n", f"done at {two} ok\n") == "done at <time> ok\n"


def test_a_time_that_does_not_follow_the_clock_stays() -> None:
    clean = '{"due": "2024-02-01", "at": "2024-01-15"}'
    assert (
        masked(FILE, clean, clean.replace("2024-01-15", "2025-01-15"))
        == '{"due": "2024-02-01", "at": "<time>"}'
    )


def test_json_stays_json_when_a_number_is_masked() -> None:
    text = masked(FILE, '{"t": [1705288500.5, 2]}', '{"t": [1742492551.5, 2]}')
    assert json.loads(text) == {"t": ["<time>", 2]}


def test_the_place_is_known_in_more_records_than_the_clean_runs_had() -> None:
    def text(time: datetime, count: int) -> str:
        items = [{"n": n, "meta": {"at": time.isoformat()}} for n in range(count)]
        return json.dumps({"items": items, "day": "2024-01-15"})

    found = find(FILE, text(T1, 2), text(T2, 2))
    assert found.mask(FILE, text(T3, 5).encode()).count(b"<time>") == 5
    assert found.mask(FILE, text(T3, 5).encode()).endswith(b'"day": "2024-01-15"}')


def test_only_the_column_is_masked_in_a_csv_whose_header_is_lost() -> None:
    found = find("file:/x.csv", "due,at\n2024-02-01,2024-01-15\n", "due,at\n2024-02-01,2025-01-15\n")
    assert found.mask("file:/x.csv", b"2024-02-01,2026-01-15\n") == b"2024-02-01,<time>\n"
    assert found.places() == ("/x.csv: time in `at`",)


def test_a_quoted_cell_with_delimiters_is_one_cell() -> None:
    clean = 'a,b\n"x, ""y""\nz",2024-01-15\n'
    assert masked("file:/x.csv", clean, clean.replace("2024", "2025")) == 'a,b\n"x, ""y""\nz",<time>\n'


def test_tabs_and_semicolons_delimit_too() -> None:
    for delimiter in "\t;|":
        clean = f"2024-02-01{delimiter}2024-01-15\n"
        found = find("file:/x.csv", clean, clean.replace("2024-01", "2025-01"))
        assert found.mask("file:/x.csv", clean.encode()).decode() == f"2024-02-01{delimiter}<time>\n"


def test_json_lines_are_read_line_by_line_even_behind_a_torn_one() -> None:
    line = '{"n": 1, "at": "2024-01-15T03:15:00"}\n'
    found = find("file:/x.jsonl", line, line.replace("2024", "2025"))
    assert found.mask("file:/x.jsonl", b'{"n": 7, "at\n' + line.encode()).endswith(
        b'{"n": 1, "at": "<time>"}\n'
    )


def test_in_text_a_key_is_the_place_wherever_it_stands() -> None:
    found = find("file:/x.log", "a b started=2024-01-15 x\n", "a b started=2025-01-15 x\n")
    later = b"longer line than that started=2026-01-15 due=2024-02-01\n"
    assert found.mask("file:/x.log", later) == b"longer line than that started=<time> due=2024-02-01\n"


def test_the_end_of_a_time_is_no_key() -> None:
    clean, clock = "15 Jan 2024 03:15:00 GMT=2024-01-15\n", "15 Jan 2025 03:15:00 GMT=2025-01-15\n"
    found = find("file:/x.log", clean, clock)
    assert found.mask("file:/x.log", clean.encode()) == b"<time>=<time>\n"
    assert {mask.place for mask in found.masks["file:/x.log"].masks} == {"word 1"}


def test_an_id_is_no_key_but_a_name_with_a_digit_is() -> None:
    one, two = "3y3-aB9_kQ2mZ7pL0wRt4g", "38Kd_W1nVc5-Hj2sYq6TeA"
    clean, other = f"{one}={U1} s3_run={U1}\n", f"{two}={U2} s3_run={U2}\n"
    found = find("file:/x.log", clean, clean, other)
    assert found.mask("file:/x.log", clean.encode()) == b"<id>=<id> s3_run=<id>\n"
    assert {mask.place for mask in found.masks["file:/x.log"].masks} == {"word 1", "s3_run"}


def test_a_time_inside_a_longer_value_is_masked_alone() -> None:
    clean = '{"run": "manual__2024-01-15T03:15:00+00:00_x", "path": "/a/2024-01-15/b"}'
    assert masked(FILE, clean, clean.replace("2024", "2025")) == (
        '{"run": "manual__<time>_x", "path": "/a/<time>/b"}'
    )


def test_a_missing_torn_or_other_kind_of_value_at_the_place_is_not_masked() -> None:
    found = find(FILE, '{"at": "2024-01-15"}', '{"at": "2025-01-15"}')
    for text in (b'{"at": null}', b'{"at": ""}', b'{"at": "2024-01', b'{"at": 1705288500}', b""):
        assert found.mask(FILE, text) == text


def test_epochs_must_shift_as_one_clock_does() -> None:
    clean, shifted = '{"t": [1705288500, 1705288600]}', '{"t": [1705374900, 1705375000]}'
    assert masked(FILE, clean, shifted) == '{"t": ["<time>", "<time>"]}'
    found = find(FILE, clean, '{"t": [1705374900, 1999999999]}')
    assert rules(found) == [Rule.CLOCK_DEPENDENT]


def test_a_number_out_of_the_range_of_epochs_is_no_time() -> None:
    assert rules(find(FILE, '{"n": 9705288500}', '{"n": 9805288500}')) == [Rule.CLOCK_DEPENDENT]


# --- ids --------------------------------------------------------------------------------------

ID_PAIRS = {
    "uuid": (U1, U2),
    "uuid hex": (U1.replace("-", ""), U2.replace("-", "")),
    "short hex": ("9f86d081", "60303ae2"),
    "urlsafe": ("Xy3-aB9_kQ2mZ7pL0wRt4g", "b8Kd_W1nVc5-Hj2sYq6TeA"),
    "64 bits": ("17291729172917291729", "9001900190019001900"),
    "named": ("483920", "120447"),
}


@pytest.mark.parametrize("kind", ID_PAIRS)
def test_an_id_is_masked(kind: str) -> None:
    one, two = ID_PAIRS[kind]
    assert masked(FILE, f'{{"row_id": "{one}"}}', f'{{"row_id": "{one}"}}', f'{{"row_id": "{two}"}}') == (
        '{"row_id": "<id>"}'
    )
    clean, other = f"n,row_id\n1,{one}\n", f"n,row_id\n1,{two}\n"
    assert masked("file:/x.csv", clean, clean, other) == "n,row_id\n1,<id>\n"


def test_a_random_integer_id_is_masked_in_json_that_stays_json() -> None:
    text = masked(FILE, '{"a": 17291729172917}', '{"a": 17291729172917}', '{"a": 90019001900190}')
    assert json.loads(text) == {"a": "<id>"}


def test_a_random_integer_that_happens_to_look_like_an_epoch_is_an_id_in_every_run() -> None:
    texts = [f'{{"n": {number}}}' for number in (1705288500, 1742492551, 4202444800)]
    found = find(FILE, *texts)
    assert found.problems == ()
    assert {found.mask(FILE, text.encode()) for text in texts} == {b'{"n": "<id>"}'}


@pytest.mark.parametrize(
    ("one", "two"),
    [("0.8444218515250481", "0.7579544029403025"), ("17", "42"), ('"red"', '"blue"'), ("true", "false")],
)
def test_a_random_value_that_is_no_id_is_a_problem(one: str, two: str) -> None:
    found = find(FILE, f'{{"v": {one}}}', f'{{"v": {one}}}', f'{{"v": {two}}}')
    assert rules(found) == [Rule.NONDETERMINISTIC_OUTPUT]
    assert found.places() == ()


def test_a_random_choice_of_words_is_no_id() -> None:
    found = find(
        FILE,
        '{"v": "customer_segment_north"}',
        '{"v": "customer_segment_north"}',
        '{"v": "customer_segment_south"}',
    )
    assert rules(found) == [Rule.NONDETERMINISTIC_OUTPUT]


def test_the_order_of_fixed_ids_is_a_problem_and_not_masked() -> None:
    clean, shuffled = f"{U1}\n{U2}\n{U3}\n", f"{U2}\n{U3}\n{U1}\n"
    found = find("file:/x.txt", clean, clean, shuffled)
    assert rules(found) == [Rule.NONDETERMINISTIC_OUTPUT]
    assert found.mask("file:/x.txt", clean.encode()) == clean.encode()
    assert found.problems[0][1].summary == "same lines in another order"


def test_a_uuid_that_follows_clock_and_entropy_is_an_id() -> None:
    texts = [f'{{"v": "{value}"}}' for value in (U1, U2, U3)]
    assert find(FILE, *texts).problems == ()


def test_keys_that_are_ids_are_masked_and_what_is_below_them_is_found() -> None:
    def text(key: str, time: str) -> str:
        return f'{{"{key}": {{"at": "{time}", "n": 1}}}}'

    found = find(FILE, text(U1, "2024-01-15"), text(U1, "2025-01-15"), text(U2, "2024-01-15"))
    assert found.problems == ()
    assert found.mask(FILE, text(U3, "2026-01-15").encode()).decode() == text("<id>", "<time>")


# --- problems ---------------------------------------------------------------------------------


def test_a_value_that_follows_the_clock_and_is_no_time_depends_on_the_clock() -> None:
    found = find(FILE, '{"weekday": "Monday", "n": 1}', '{"weekday": "Thursday", "n": 1}')
    assert rules(found) == [Rule.CLOCK_DEPENDENT]
    assert found.problems[0][1].summary == '`weekday` is "Thursday" instead of "Monday"'


def test_the_number_of_records_that_follows_the_clock_is_a_problem_although_all_are_times() -> None:
    found = find("file:/x.txt", "2024-01-15\n", "2024-01-16\n2024-01-17\n")
    assert rules(found) == [Rule.CLOCK_DEPENDENT]


def test_a_file_name_with_a_time_is_one_problem() -> None:
    found = find_volatile(
        named({"file:/d/out_2024-01-15.csv": "a\n"}),
        named({"file:/d/out_2025-03-20.csv": "a\n"}),
        named({"file:/d/out_2024-01-15.csv": "a\n"}),
    )
    [(rule, difference)] = found.problems
    assert rule is Rule.CLOCK_DEPENDENT
    assert difference.output == "file:/d/out_2024-01-15.csv"
    assert difference.summary == "named out_2025-03-20.csv at another time"


def test_a_file_name_with_a_uuid_is_one_problem() -> None:
    runs = [named({f"file:/d/{value}.csv": "a\n"}) for value in (U1, U1, U2)]
    [(rule, difference)] = find_volatile(*runs).problems
    assert rule is Rule.NONDETERMINISTIC_OUTPUT
    assert difference.summary == f"named {U2}.csv with other random values"


def test_names_that_differ_in_every_run_are_reported_once() -> None:
    runs = [named({f"file:/d/{value}.csv": "a\n"}) for value in (U1, U2, U3)]
    found = [(rule, difference.output) for rule, difference in find_volatile(*runs).problems]
    assert (Rule.NONDETERMINISTIC_OUTPUT, f"file:/d/{U1}.csv") in found
    assert (Rule.CLOCK_DEPENDENT, f"file:/d/{U1}.csv") not in found


def test_a_file_that_only_another_day_writes_is_a_problem() -> None:
    clean = outputs(a_txt="x\n")
    found = find_volatile(clean, clean | outputs(weekly_txt="y\n"), clean)
    assert [(rule, d.output, d.summary) for rule, d in found.problems] == [
        (Rule.CLOCK_DEPENDENT, "file:/data/weekly.txt", "extra file at another time")
    ]


def test_a_difference_in_one_place_is_reported_once_as_nondeterministic() -> None:
    found = find(FILE, '{"v": 1}', '{"v": 2}', '{"v": 3}')
    assert rules(found) == [Rule.NONDETERMINISTIC_OUTPUT]


def test_differences_in_two_places_are_two_problems() -> None:
    found = find(FILE, '{"v": 1, "w": true}', '{"v": 1, "w": false}', '{"v": 3, "w": true}')
    assert sorted(rules(found)) == [Rule.CLOCK_DEPENDENT, Rule.NONDETERMINISTIC_OUTPUT]


def test_equal_runs_have_neither_masks_nor_problems() -> None:
    runs = outputs(a_json='{"at": "2024-01-15"}', b_bin=b"\x00\x01")
    found = find_volatile(runs, runs, runs)
    assert (found.problems, found.places()) == ((), ())
    content = runs["file:/data/a.json"].content
    assert found.mask("file:/data/a.json", content) is content


# --- unknown outputs --------------------------------------------------------------------------


def test_an_unknown_file_is_masked_as_its_siblings_are() -> None:
    found = find("file:/d/1.json", '{"at": "2024-01-15"}', '{"at": "2025-01-15"}')
    text = b'{"at": "2026-01-15"}'
    assert found.mask("file:/d/2.json", text) == b'{"at": "<time>"}'
    assert found.mask("file:/d/1.json.tmp", text) == b'{"at": "<time>"}'
    for name in ("file:/e/2.json", "file:/d/2.txt", "xcom:d/2.json"):
        assert found.mask(name, text) == text


def test_a_known_output_without_masks_is_not_masked_as_its_siblings_are() -> None:
    clean = outputs(a_json='{"at": "2024-01-15"}', b_json='{"at": "2024-01-15"}')
    clock = clean | outputs(a_json='{"at": "2025-01-15"}')
    found = find_volatile(clean, clock, clean)
    assert found.mask("file:/data/b.json", b'{"at": "2026-01-15"}') == b'{"at": "2026-01-15"}'


def test_places_are_told_per_output() -> None:
    found = find(
        FILE,
        f'{{"a": "2024-01-15", "r": [{{"id": "{U1}"}}]}}',
        f'{{"a": "2025-01-15", "r": [{{"id": "{U1}"}}]}}',
        f'{{"a": "2024-01-15", "r": [{{"id": "{U2}"}}]}}',
    )
    assert found.places() == ("/data/out.json: time in `a`, id in `r[].id`",)


def test_xcoms_and_variables_are_read_as_json() -> None:
    assert masked("xcom:t/return_value", '"2024-01-15"', '"2025-01-15"') == '"<time>"'
    assert masked("variable:last", "1705288500", "1742492551") == '"<time>"'


# --- properties -------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Any], str]] = {
    "x.json": lambda rows: json.dumps(
        [{"n": n, "w": w, "at": t, "id": u, "k": {"t": t}} for n, w, t, u in rows]
    ),
    "x.jsonl": lambda rows: "".join(
        json.dumps({"w": w, "id": u, "at": t, "n": n}) + "\n" for n, w, t, u in rows
    ),
    "x.csv": lambda rows: "n,w,at,id\n" + "".join(f'{n},"{w}",{t},{u}\n' for n, w, t, u in rows),
    "x.txt": lambda rows: "".join(f"{t} row {n} id={u} {w}\n" for n, w, t, u in rows),
}
WORDS = st.text(alphabet="abcXYZ019 _-:.;<>/", max_size=12)
ROWS = st.lists(st.tuples(st.integers(0, 10**12), WORDS), max_size=6)
TIMES = st.sampled_from([form for name, form in TIME_FORMATS.items() if name not in ("rfc 2822", "http")])


def filled(rows: Rows, time: str, value: str) -> list[tuple[int, str, str, str]]:
    return [(n, w, time, value) for n, w in rows]


@given(form=st.sampled_from(sorted(FORMS)), rows=ROWS, time=TIMES)
def test_three_runs_that_differ_in_times_and_ids_alone_are_equal_once_masked(
    form: str, rows: Rows, time: TimeFormat
) -> None:
    name = f"file:/d/{form}"
    runs = [
        FORMS[form](filled(rows, time(moment), value)).encode()
        for moment, value in ((T1, U1), (T2, U1), (T1, U2))
    ]
    found = find_volatile(*({name: Output(name=name, content=run)} for run in runs))
    assert found.problems == ()
    assert len({found.mask(name, run) for run in runs}) == 1


@given(form=st.sampled_from(sorted(FORMS)), rows=ROWS, others=ROWS, time=TIMES)
def test_masking_hides_nothing_but_times_and_ids(
    form: str, rows: Rows, others: Rows, time: TimeFormat
) -> None:
    name = f"file:/d/{form}"
    runs = [
        FORMS[form](filled(rows, time(moment), value)).encode()
        for moment, value in ((T1, U1), (T2, U1), (T1, U2))
    ]
    found = find_volatile(*({name: Output(name=name, content=run)} for run in runs))
    rerun = FORMS[form](filled(others, time(T3), U3)).encode()
    assert (found.mask(name, rerun) == found.mask(name, runs[0])) == (rows == others)


TEXTS = st.lists(
    st.sampled_from(
        [
            *(form(moment) for form in TIME_FORMATS.values() for moment in (T1, T2)),
            *(value for pair in ID_PAIRS.values() for value in pair),
            *' \n,;=:"{}[]x-_.<>/Z',
            "key",
            "<time>",
            "<id>",
            "12",
            "0.5",
        ]
    ),
    max_size=12,
).map("".join)


@given(
    name=st.sampled_from(["file:/d/x.json", "file:/d/x.jsonl", "file:/d/x.csv", "file:/d/x.txt", "xcom:t/k"]),
    clean=TEXTS,
    clock=TEXTS,
    entropy=TEXTS,
    rerun=TEXTS,
)
def test_on_any_content_masking_is_stable_and_agrees_with_the_problems(
    name: str, clean: str, clock: str, entropy: str, rerun: str
) -> None:
    runs = [{name: Output(name=name, content=text.encode())} for text in (clean, clock, entropy)]
    found = find_volatile(*runs)
    once = found.mask(name, rerun.encode())
    assert found.mask(name, once) == once
    distinct = {found.mask(name, run[name].content) for run in runs}
    assert (len(distinct) == 1) == (found.problems == ())


@given(content=st.binary(max_size=80), other=st.binary(max_size=80))
def test_bytes_are_no_trouble(content: bytes, other: bytes) -> None:
    for name in ("file:/d/x.json", "file:/d/x.csv", "file:/d/x.gz", "xcom:t/k"):
        runs = [{name: Output(name=name, content=each)} for each in (content, other, content)]
        found = find_volatile(*runs)
        assert found.mask(name, other) == found.mask(name, found.mask(name, other))


def test_nothing_is_masked_without_masks() -> None:
    assert Volatility.none().mask(FILE, b"2024-01-15") == b"2024-01-15"


def test_shifting_every_record_by_some_seconds_is_still_one_clock() -> None:
    times = [T1 + timedelta(seconds=n) for n in range(5)]
    clean = json.dumps([t.timestamp() for t in times])
    clock = json.dumps([(t + timedelta(days=400, seconds=n)).timestamp() for n, t in enumerate(times)])
    assert find(FILE, clean, clock).problems == ()
