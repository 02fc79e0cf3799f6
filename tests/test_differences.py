"""How differences between two outputs are told."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.compare.differences import LINE_LIMIT, WIDTH_LIMIT, describe, diff_outputs, summarise
from pytest_rerunsafe.compare.formats import (
    Format,
    compare_records,
    format_of,
    header_of,
    record_pair,
    records,
)
from pytest_rerunsafe.compare.volatile import Volatility, find_volatile
from pytest_rerunsafe.model import Difference, Output

CSV, TXT, JSON, JSONL, BIN = (f"file:/data/out.{suffix}" for suffix in ("csv", "txt", "json", "jsonl", "bin"))
HEADER = b"id,name\n"
ROWS = [b"%d,n%d\n" % (n, n) for n in range(1, 11)]
TABLE = HEADER + b"".join(ROWS)


def table(*numbers: int) -> bytes:
    return HEADER + b"".join(ROWS[number - 1] for number in numbers)


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()


ALL = [*range(1, 11)]
DICT: dict[str, Any] = {"total": 20, "by": {"a": 1, "b": 2}, "rows": [{"n": n} for n in range(10)]}


@pytest.mark.parametrize(
    ("name", "clean", "rerun", "summary"),
    [
        (CSV, TABLE, None, "file is missing"),
        ("xcom:t/k", b"1", None, "XCom is missing"),
        ("variable:v", b"1", None, "Variable is missing"),
        (CSV, None, TABLE, "extra file"),
        (CSV, TABLE, b"", "file is empty"),
        (CSV, TABLE, table(*ALL, 3, 4, 5), "3 of 10 records twice"),
        (CSV, TABLE, table(*ALL, *ALL), "all 10 records twice"),
        (CSV, TABLE, TABLE + TABLE, "all 10 records twice"),
        (CSV, TABLE, table(*ALL, 3, 3), "1 of 10 records 3 times"),
        (CSV, TABLE, table(*ALL, 3, 3, 4), "2 of 10 records more than once"),
        (CSV, TABLE, table(1, 2, 3), "records 4 to 10 missing"),
        (CSV, TABLE, table(1, 2, 3, 5, 6, 7, 8, 9, 10), "record 4 missing"),
        (CSV, TABLE, table(1, 3, 5, 6, 7, 8, 9, 10), "2 of 10 records missing"),
        (CSV, TABLE, HEADER, "all 10 records missing"),
        (CSV, TABLE, table(1, 2, 3, 3), "records 4 to 10 missing, 1 of 10 records twice"),
        (CSV, TABLE, TABLE + b"11,x\n12,y\n", "2 extra records"),
        (CSV, TABLE, table(*reversed(ALL)), "same records in another order"),
        (CSV, TABLE, TABLE.replace(b"n4", b"x4"), "record 4 differs"),
        (CSV, TABLE, TABLE.replace(b"n", b"x").replace(b"xame", b"name"), "all 10 records differ"),
        (CSV, TABLE, b"".join(ROWS), "header is missing"),
        (CSV, TABLE, TABLE.replace(b"\n", b"\r\n"), "same data, written differently"),
        (CSV, TABLE, TABLE[:30], f"cut off after 30 of {len(TABLE)} bytes"),
        (CSV, b'k,v\n1,"a\nb"\n2,c\n', b'k,v\n1,"a\nb"\n', "record 2 missing"),
        (TXT, b"a\nb\nc\n", b"a\n", "lines 2 to 3 missing"),
        (TXT, b"a\nb\nc\n", b"a\nb\nc\na\n", "1 of 3 lines twice"),
        (TXT, b"x\n", b"x\nx\n", "the only line twice"),
        (TXT, b"x" * 300, b"x" * 120, "cut off after 120 of 300 bytes"),
        (TXT, b"done", b"donedone", "the whole content twice"),
        (TXT, b"", b"a\nb\n", "2 extra lines"),
        (JSONL, b'{"a": 1}\n{"a": 2}\n', b'{"a": 1}\n{"a": 2}\n{"a": 2}\n', "1 of 2 records twice"),
        (JSON, dumps(DICT), dumps(DICT | {"total": 30}), "`total` is 30 instead of 20"),
        (JSON, dumps(DICT), dumps(DICT | {"by": {"a": 1, "b": 3}}), "`by.b` is 3 instead of 2"),
        (JSON, dumps(DICT), dumps(DICT | {"total": 1, "by": {}}), "`by.a` is missing, and 2 more"),
        (JSON, dumps(DICT), dumps(DICT | {"x": 1}), "extra `x`"),
        (JSON, dumps(DICT), dumps(DICT | {"rows": DICT["rows"] * 2}), "all 10 records twice in `rows`"),
        (
            JSON,
            dumps(DICT),
            dumps(DICT | {"rows": [{"n": n} for n in range(3)]}),
            "records 4 to 10 missing in `rows`",
        ),
        (JSON, dumps([1, {"k": [5, 6]}]), dumps([1, {"k": [5, 7]}]), "`[1].k[1]` is 7 instead of 6"),
        (JSON, dumps(DICT), dumps(DICT)[:20], f"cut off after 20 of {len(dumps(DICT))} bytes"),
        (JSON, dumps(DICT), dumps(DICT) * 2, "the whole content twice"),
        (JSON, b"[1]", b"[true]", "`[0]` is true instead of 1"),
        ("xcom:t/k", b"20", b"30", "value is 30 instead of 20"),
        ("xcom:t/k", b"12", b"1", "value is 1 instead of 12"),
        ("xcom:t/k", b"10", b"null", "value is null instead of 10"),
        (JSON, rb'{"\ud800": 1}', rb'{"\ud800": 2}', "`?` is 2 instead of 1"),
        (JSON, b'{"a\\nb": 1}', b"{}", "`a b` is missing"),
        (JSON, b"[]", b"{}", "value is {} instead of []"),
        (JSON, dumps({"a": [1], "b": 1}), dumps({"a": [1], "b": 2}), "`b` is 2 instead of 1"),
        (BIN, b"\0" * 300, b"\0" * 120, "cut off after 120 of 300 bytes"),
        (BIN, b"\0ab", b"\0ab\0ab", "the whole content twice"),
        (BIN, b"\0abc", b"\0axyz", "differs from byte 3 on, 5 bytes instead of 4"),
        (BIN, b"\0abc", b"\0abd", "differs from byte 4 on"),
        (BIN, b"\0abc", b"", "file is empty"),
    ],
)
def test_a_difference_is_told_as_a_person_would(
    name: str, clean: bytes | None, rerun: bytes | None, summary: str
) -> None:
    assert describe(name, clean, rerun).summary == summary


def outputs(**contents: bytes) -> dict[str, Output]:
    return {
        f"file:/{key}.csv": Output(name=f"file:/{key}.csv", content=value) for key, value in contents.items()
    }


def test_differences_come_sorted_by_name_and_equal_outputs_not_at_all() -> None:
    clean, rerun = outputs(c=b"1\n", b=b"2\n", a=b"3\n"), outputs(d=b"1\n", c=b"2\n", b=b"2\n")
    found = diff_outputs(clean, rerun, Volatility.none())
    assert [(each.output, each.summary) for each in found] == [
        ("file:/a.csv", "file is missing"),
        ("file:/c.csv", "the only record differs"),
        ("file:/d.csv", "extra file"),
    ]
    assert (found[0].clean, found[0].rerun, found[2].clean, found[2].rerun) == ("3", None, None, "1")


def test_volatile_values_are_no_difference_and_don_t_show() -> None:
    clean, clock = outputs(a=b"n,at\n1,2024-01-15\n"), outputs(a=b"n,at\n1,2025-01-15\n")
    volatility = find_volatile(clean, clock, clean)
    assert diff_outputs(clean, outputs(a=b"n,at\n1,2026-01-15\n"), volatility) == ()
    [found] = diff_outputs(clean, outputs(a=b"n,at\n2,2026-01-15\n"), volatility)
    assert (found.clean, found.rerun) == ("...\n1,<time>", "...\n2,<time>")


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (JSON, b'{"a": 1, "b": [1, 2]}', b'{\n  "b": [1, 2],\n  "a": 1\n}\n'),
        (JSONL, b'{"a": 1, "b": 2}\n{"c": 3}\n', b'{"b": 2, "a": 1}\n{"c":3}\n'),
        ("xcom:t/k", b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}'),
    ],
)
def test_json_that_is_written_differently_is_the_same(name: str, one: bytes, other: bytes) -> None:
    sides = ({name: Output(name=name, content=content)} for content in (one, other))
    clean, rerun = sides
    assert diff_outputs(clean, rerun, Volatility.none()) == ()
    assert find_volatile(clean, clean, rerun).problems == ()


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (JSON, b"[1, 2]", b"[2, 1]"),
        (JSON, b'{"a": 1}', b'{"a": 1.0}'),
        (JSONL, b'{"a": 1}\n{"a": 2}\n', b'{"a": 2}\n{"a": 1}\n'),
        (CSV, TABLE, table(*reversed(ALL))),
    ],
)
def test_another_order_is_a_difference_unless_it_does_not_count(name: str, one: bytes, other: bytes) -> None:
    clean, rerun = ({name: Output(name=name, content=content)} for content in (one, other))
    assert len(diff_outputs(clean, rerun, Volatility.none())) == 1
    found = diff_outputs(clean, rerun, Volatility.none(), is_unordered=lambda other: other == name)
    assert len(found) == (other == b'{"a": 1.0}')
    assert len(find_volatile(clean, clean, rerun).problems) == 1
    assert len(find_volatile(clean, clean, rerun, is_unordered=lambda other: True).problems) == len(found)


def test_of_records_in_any_order_only_those_that_differ_are_shown() -> None:
    clean, rerun = outputs(a=TABLE), outputs(a=table(*reversed(ALL)) + b"11,n11\n")
    [found] = diff_outputs(clean, rerun, Volatility.none(), is_unordered=lambda name: True)
    assert (found.summary, found.clean, found.rerun) == ("1 extra record", "...", "...\n11,n11\n...")


def test_equal_contents_are_not_even_masked() -> None:
    class Unused:
        def mask(self, name: str, content: bytes) -> bytes:
            raise AssertionError(name)

    assert diff_outputs(outputs(a=TABLE), outputs(a=TABLE), Unused()) == ()


# --- excerpts ---------------------------------------------------------------------------------


def test_an_excerpt_shows_only_what_differs() -> None:
    found = describe(CSV, TABLE, TABLE.replace(b"n4", b"x4").replace(b"n7", b"x7"))
    assert found.clean == "...\n4,n4\n...\n7,n7\n..."
    assert found.rerun == "...\n4,x4\n...\n7,x7\n..."


def test_an_excerpt_of_repeated_records_shows_them_on_the_side_that_has_them() -> None:
    found = describe(CSV, TABLE, table(*ALL, 3, 4))
    assert (found.clean, found.rerun) == ("...", "...\n3,n3\n4,n4")


def test_an_excerpt_of_an_empty_file_is_empty() -> None:
    assert describe(CSV, TABLE, b"").rerun == ""


def test_json_is_excerpted_by_its_parts() -> None:
    found = describe(JSON, dumps(DICT), dumps(DICT | {"total": 30}))
    assert (found.clean, found.rerun) == ("...\ntotal: 20", "...\ntotal: 30")


def test_data_written_differently_show_how() -> None:
    found = describe(JSON, b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}')
    assert (found.clean, found.rerun) == ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}')


def test_empty_containers_are_shown_as_they_are() -> None:
    found = describe(JSON, b"[]", b"{}")
    assert (found.clean, found.rerun) == ("[]", "{}")


def test_a_record_with_a_line_break_is_one_line() -> None:
    assert describe(CSV, b'a\n"x\ny"\n', b'a\n"x\nz"\n').rerun == '...\n"x\\nz"'


def test_bytes_that_are_no_utf_8_are_shown_apart() -> None:
    found = describe(TXT, b"\x80\x80", b"\x80\x81")
    assert (found.clean, found.rerun) == (r"\x80\x80", r"\x80\x81")


def test_a_long_line_of_wide_characters_is_shown_around_its_first_difference() -> None:
    clean, rerun = (("\u00fc" * 200 + word).encode() for word in ("one", "two"))
    found = describe(TXT, clean, rerun)
    assert str(found.clean).endswith("\u00fcone")
    assert str(found.rerun).endswith("\u00fctwo")


def test_records_that_moved_show_where_the_order_breaks() -> None:
    found = describe(TXT, b"a\nb\nc\nd\n", b"a\nc\nd\nb\n")
    assert (found.clean, found.rerun) == ("...\nb\nc\nd", "...\nc\nd\nb")


def test_long_lines_are_each_shown_around_their_first_difference() -> None:
    found = describe(
        TXT,
        b"".join(b"%d" % n + b"a" * 300 + b"b\n" for n in range(3)),
        b"".join(b"%d" % n + b"a" * 300 + b"c\n" for n in range(3)),
    )
    assert [line[-1] for line in str(found.rerun).split("\n")] == ["c", "c", "c"]


def test_a_long_line_is_shown_around_its_first_difference() -> None:
    found = describe(TXT, b"a" * 500 + b"bcd" + b"e" * 500, b"a" * 500 + b"xyz" + b"e" * 500)
    assert "abcde" in str(found.clean)
    assert "axyze" in str(found.rerun)


def test_binary_is_shown_as_bytes_from_the_first_difference() -> None:
    found = describe(BIN, b"\0" * 20 + b"\x01\x02", b"\0" * 20 + b"\x03" * 20)
    assert found.clean == "from byte 21: 01 02"
    assert found.rerun == "from byte 21: " + " ".join(["03"] * 16) + " ..."


CONTENTS = st.one_of(
    st.binary(max_size=400),
    st.lists(st.sampled_from([b"a", b"b", b"c,1", b"x" * 150, b'"q', b""]), max_size=40).map(b"\n".join),
    st.recursive(
        st.integers(0, 3) | st.text(max_size=3),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner),
    ).map(dumps),
)


@given(name=st.sampled_from([CSV, TXT, JSON, JSONL, BIN, "xcom:t/k"]), clean=CONTENTS, rerun=CONTENTS)
def test_whatever_the_contents_the_text_is_bounded_and_says_something(
    name: str, clean: bytes, rerun: bytes
) -> None:
    if clean == rerun:
        return
    found = describe(name, clean, rerun)
    assert found.summary
    assert found.clean != found.rerun or found.clean == "..."
    for text in (found.clean or "", found.rerun or ""):
        lines = text.split("\n")
        assert len(lines) <= LINE_LIMIT
        assert max(map(len, lines)) <= WIDTH_LIMIT
    assert len(summarise([found])) <= 100


def test_ten_thousand_lines_that_all_differ_are_excerpted() -> None:
    clean = b"".join(b"%d,a\n" % n for n in range(10_000))
    found = describe(TXT, clean, clean.replace(b"a", b"b"))
    assert found.summary == "all 10000 lines differ"
    assert str(found.clean).startswith("0,a\n1,a\n")
    assert str(found.clean).endswith("\n...")


# --- records ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (CSV, b"a,b\n1,2\n", (b"a,b", b"1,2")),
        (CSV, b'a,b\n1,"x\ny"\n', (b"a,b", b'1,"x\ny"')),
        (TXT, b"a\n\nb", (b"a", b"", b"b")),
        (
            JSON,
            b'{"b": [1, {"y": 1, "x": 2}], "a": {"c": "d"}, "e": []}',
            (b'a.c: "d"', b"b[]: 1", b'b[]: {"x": 2, "y": 1}'),
        ),
        (JSON, b"[1, 2]", (b"1", b"2")),
        (JSON, b'{"<id>": 1, "<id>": 2}', (b"<id>: 1", b"<id>#2: 2")),
        (JSON, b"[1, 2", (b"[1, 2",)),
        (BIN, b"\0\1\n\2", (b"\0\1\n\2",)),
        (CSV, b"", ()),
        (BIN, b"", ()),
    ],
)
def test_records(name: str, content: bytes, expected: tuple[bytes, ...]) -> None:
    assert records(name, content) == expected


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_json_of_any_depth_is_no_trouble(depth: int) -> None:
    one, other = (b'{"a": [' * depth + leaf + b"]}" * depth for leaf in (b"1", b"2"))
    assert describe(JSON, one, other).summary


def test_a_damaged_content_is_split_as_its_partner() -> None:
    assert record_pair(JSON, b"[1,\n2]", b"[1,\n") == ((b"[1,", b"2]"), (b"[1,",))


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("file:/x.json", b"", Format.JSON),
        ("file:/x.json", b'{"a": 1}\n{"a": 2}\n', Format.JSON_LINES),
        ("file:/x", b'{"a": 1}', Format.JSON),
        ("file:/x", b"[not json", Format.TEXT),
        ("file:/x", b"12", Format.TEXT),
        ("xcom:a/b", b"12", Format.JSON),
        ("xcom:a/b.csv", b"plain", Format.TEXT),
        ("file:/x.CSV", b"a,b", Format.DELIMITED),
        ("file:/x.csv", b"a\0b", Format.BINARY),
        ("file:/x.txt", "gr\u00fcn".encode("latin-1"), Format.TEXT),
    ],
)
def test_formats(name: str, content: bytes, form: Format) -> None:
    assert format_of(name, content) is form


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        ((b"id,name", b"1,x"), (b"id", b"name")),
        ((b"Id;Name", b"1;x"), (b"Id", b"Name")),
        ((b"city,name", b"Rome,Ann"), (b"city", b"name")),
        ((b"Rome,Ann", b"Oslo,Bob"), ()),
        ((b"1,2", b"3,4"), ()),
        ((b"a,a", b"3,4"), ()),
        ((), ()),
    ],
)
def test_headers(rows: tuple[bytes, ...], header: tuple[bytes, ...]) -> None:
    assert header_of(rows) == header


RECORDS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=8)


@given(clean=RECORDS, rerun=RECORDS)
def test_changes_lead_from_the_clean_records_to_the_rerun_s(clean: list[bytes], rerun: list[bytes]) -> None:
    changes = compare_records(clean, rerun)
    back = Counter(clean) - Counter(changes.missing) + Counter(changes.repeated) + Counter(changes.foreign)
    assert back == Counter(rerun)
    assert set(changes.repeated) <= set(clean)
    assert not set(changes.foreign) & set(clean)


# --- one line ---------------------------------------------------------------------------------


def difference(output: str, summary: str) -> Difference:
    return Difference(output=output, clean="", rerun="", summary=summary)


def test_one_line_names_the_output_and_counts_the_others() -> None:
    one = difference(CSV, "3 of 10 records twice")
    assert summarise([one]) == "/data/out.csv: 3 of 10 records twice"
    assert summarise([one, one]) == "/data/out.csv: 3 of 10 records twice (and 1 more output)"
    assert summarise([one, one, one]) == "/data/out.csv: 3 of 10 records twice (and 2 more outputs)"
    assert summarise([difference("xcom:t/k", "XCom is missing")]) == "xcom:t/k: XCom is missing"
    assert summarise([]) == "no difference"


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ("extra file", "2 extra files, such as /data/out.csv"),
        ("file is missing", "2 files missing, such as /data/out.csv"),
        ("file is empty", "2 files empty, such as /data/out.csv"),
    ],
)
def test_one_line_counts_whole_files(summary: str, told: str) -> None:
    one, other = difference(CSV, summary), difference(TXT, "line 3 differs")
    assert summarise([one, one]) == told
    assert summarise([one, other, one]) == f"{told} (and 1 more output)"
    assert summarise([other, one, one]) == "/data/out.txt: line 3 differs (and 2 more outputs)"
    many = [difference("file:/" + "x" * 200 + "/out.csv", summary)] * 30
    assert len(summarise(many)) == 100


def test_one_line_keeps_the_end_of_a_long_name() -> None:
    text = summarise([difference("file:/" + "x" * 200 + "/out.csv", "file is empty")])
    assert len(text) == 100
    assert text.startswith("...xx")
    assert text.endswith("x/out.csv: file is empty")
