"""What packed files hold, and how two of them are told apart."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from pytest_rerunsafe.compare import packed
from pytest_rerunsafe.compare.differences import diff_outputs
from pytest_rerunsafe.compare.packed import unpacked
from pytest_rerunsafe.compare.rules import Evidence, classify
from pytest_rerunsafe.compare.volatile import Volatility, find_volatile
from pytest_rerunsafe.model import Output, Rule

ROWS = [b"%d,n%d\n" % (n, n) for n in range(1, 11)]
TABLE = b"id,name\n" + b"".join(ROWS)


def zipped(members: Mapping[str, bytes], day: int = 1) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, day, 0, 0, 0)), content)
    return file.getvalue()


def tarred(members: Mapping[str, bytes], mtime: int = 1) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), mtime
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def gzipped(content: bytes) -> bytes:
    """Always the same: the names of tests are made of it."""
    return gzip.compress(content, mtime=1)


def held(name: str, content: bytes) -> bytes:
    return unpacked(Output(name=name, content=content)).content


def summaries(name: str, clean: bytes, rerun: bytes) -> list[str]:
    before, after = ({name: unpacked(Output(name=name, content=content))} for content in (clean, rerun))
    return [difference.summary for difference in diff_outputs(before, after, Volatility.none())]


# --- what does not count ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("file:/x.csv.gz", gzip.compress(TABLE, mtime=1), gzip.compress(TABLE, mtime=2)),
        ("file:/x.csv.gz", gzip.compress(TABLE, 1, mtime=1), gzip.compress(TABLE, 9, mtime=1)),
        ("file:/x.zip", zipped({"a": TABLE}, 1), zipped({"a": TABLE}, 2)),
        ("file:/x.zip", zipped({"a": b"", "b": TABLE}), zipped({"b": TABLE, "a": b""})),
        ("file:/x.tar", tarred({"a": TABLE}, 1), tarred({"a": TABLE}, 2)),
        (
            "file:/x.tgz",
            gzip.compress(tarred({"a": TABLE}, 1), mtime=1),
            gzip.compress(tarred({"a": TABLE}, 2), mtime=2),
        ),
        (
            "file:/x.zip",
            zipped({"a.zip": zipped({"b": TABLE}, 1)}),
            zipped({"a.zip": zipped({"b": TABLE}, 2)}),
        ),
        ("file:/x.zip", zipped({"a.json": b'{"a": 1, "b": 2}'}), zipped({"a.json": b'{"b": 2, "a": 1}'})),
    ],
)
def test_times_and_settings_of_an_archive_make_no_difference(name: str, one: bytes, other: bytes) -> None:
    assert one != other
    assert summaries(name, one, other) == []


# --- what does ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "clean", "rerun", "summary"),
    [
        ("x.csv.gz", gzipped(TABLE), gzipped(TABLE + ROWS[3]), "1 of 10 records twice"),
        ("x.csv.gz", gzipped(TABLE), gzipped(TABLE) * 2, "all 10 records twice"),
        ("x.csv.gz", gzipped(TABLE), b"", "file is empty"),
        ("x.csv.gz", gzipped(TABLE), gzipped(b""), "file is empty"),
        (
            "x.csv.gz",
            gzipped(TABLE),
            gzipped(TABLE)[:30],
            "file is damaged: no gzip file that can be read",
        ),
        (
            "x.gz",
            gzipped(b'{"total": 20}'),
            gzipped(b'{"total": 30}'),
            "`total` is 30 instead of 20",
        ),
        ("x.zip", zipped({"a": b"1\n", "b": b"2\n"}), zipped({"a": b"1\n"}), "`b` is missing"),
        ("x.zip", zipped({"a": b"1\n"}), zipped({"a": b"1\n", "b": b"2\n"}), "extra `b`"),
        (
            "x.zip",
            zipped({"a.csv": TABLE}),
            zipped({"a.csv": TABLE + ROWS[3]}),
            "1 of 11 records twice in `a.csv`",
        ),
        (
            "x.zip",
            zipped({"in.zip": zipped({"a.json": b'{"n": 1}'})}),
            zipped({"in.zip": zipped({"a.json": b'{"n": 2}'})}),
            "`in.zip.a.json.n` is 2 instead of 1",
        ),
        ("x.zip", zipped({"a": b"\0\1"}), zipped({"a": b"\0\2"}), '`a` is "00 02" instead of "00 01"'),
        (
            "x.zip",
            zipped({"a": TABLE}),
            zipped({"a": TABLE})[:50],
            "file is damaged: no zip file that can be read",
        ),
        ("x.tar", tarred({"a": TABLE}), tarred({"a": TABLE + ROWS[0]}), "1 of 11 records twice in `a`"),
    ],
)
def test_archives_are_told_apart_by_what_they_hold(
    name: str, clean: bytes, rerun: bytes, summary: str
) -> None:
    assert summaries(f"file:/{name}", clean, rerun) == [summary]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_two() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"1\n")
        archive.writestr("a", b"2\n")
    assert json.loads(held("file:/x.zip", file.getvalue())) == {"a": ["1"], "a#2": ["2"]}


def test_a_long_binary_member_shows_size_and_digest_and_no_id() -> None:
    one, other = (zipped({"a": b"\0" * 99 + end}) for end in (b"\1", b"\2"))
    assert json.loads(held("file:/x.zip", one))["a"].startswith("100 bytes, digest ")
    name = "file:/x.zip"
    clean, changed = ({name: unpacked(Output(name=name, content=content))} for content in (one, other))
    assert [rule for rule, _ in find_volatile(clean, clean, changed).problems] == [
        Rule.NONDETERMINISTIC_OUTPUT
    ]


def test_a_time_inside_is_masked_where_it_stands() -> None:
    name = "file:/x.zip"
    clean, later, wrong = (
        {name: unpacked(Output(name=name, content=zipped({"a.csv": text})))}
        for text in (b"1,2024-01-01\n2,2024-01-01\n", b"1,2024-01-02\n2,2024-01-02\n", b"1,2024-01-03\n")
    )
    found = find_volatile(clean, later, clean)
    assert found.problems == ()
    assert diff_outputs(clean, later, found) == ()
    assert [d.summary for d in diff_outputs(clean, wrong, found)] == ["record 2 missing in `a.csv`"]


# --- what is left as it is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("file:/x.csv", TABLE),
        ("file:/x.gz", gzipped(TABLE)[:-1]),
        ("file:/x.gz", gzipped(TABLE) + b"rubbish"),
        ("file:/x.zip", zipped({"a": TABLE})[:-1]),
        ("file:/x.zip", b"PK\3\4 and no archive"),
        ("file:/x.parquet", b"PAR1 and no table"),
        ("xcom:a/b", gzipped(TABLE)),
        ("file:/x.pkl", b"\x80\x04K\x01."),
    ],
)
def test_what_is_no_packed_file_is_left_as_it_is(name: str, content: bytes) -> None:
    assert held(name, content) == content


def test_what_holds_too_much_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_LARGEST", 1000)
    for name, content in (
        ("file:/x.gz", gzipped(bytes(1001))),
        ("file:/x.zip", zipped({"a": bytes(1001)})),
        ("file:/x.tar", tarred({"a": bytes(1001)})),
    ):
        assert held(name, content) == content


def test_a_torn_archive_that_the_rerun_accepts() -> None:
    name, whole = "file:/x.zip", zipped({"a": TABLE})
    clean, torn = ({name: unpacked(Output(name=name, content=content))} for content in (whole, whole[:40]))
    found = diff_outputs(clean, torn, Volatility.none())
    evidence = Evidence(clean=clean, rerun=torn, crash=torn, differences=found, written_after=(name,))
    assert classify(evidence) is Rule.PARTIAL_OUTPUT_ACCEPTED


# --- Parquet ------------------------------------------------------------------------------------


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    file = io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def test_parquet_files_are_told_apart_by_columns_and_rows() -> None:
    rows = [{"id": n, "name": f"n{n}"} for n in range(10)]
    name, clean = "file:/x.parquet", parquet(rows)
    assert summaries(name, clean, parquet(rows, compression="gzip", row_group_size=3)) == []
    assert summaries(name, clean, parquet([*rows, *rows[:3]])) == ["3 of 10 records twice in `rows`"]
    assert summaries(name, clean, parquet([{"id": str(row["id"]), "name": row["name"]} for row in rows])) == [
        '`columns.id` is "string" instead of "int64", and 1 more'
    ]
    assert summaries(name, clean, clean[:-9]) == ["file is damaged: no Parquet file that can be read"]


def test_without_pyarrow_parquet_files_are_told_apart_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    one, other = b"PAR1" + bytes(50) + b"PAR1", b"PAR1" + bytes(40)
    assert summaries("file:/x.parquet", one, one) == []
    assert summaries("file:/x.parquet", one, other) == ["cut off after 44 of 58 bytes"]
