"""What a packed file holds, as text that can be compared: its own bytes tell times, settings and versions besides."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module

from ..model import Output
from .formats import BROKEN, Format, format_of, inner_name, json_value, lines, packing_of

_LARGEST = 64 * 1024 * 1024
"""Bytes that are unpacked of one file at most; what holds more is compared as it is."""
_DEEPEST = 4
"""Archives in archives that are looked into."""
_SHOWN_BYTES = 16
_CACHED = 32
"""Files whose content is kept: those of the clean run are asked for in every scenario."""


class _Unreadable(Exception):
    """No file of that kind, or too large to look into."""


def unpacked(output: Output) -> Output:
    """The output with what it holds as content if it is a gzip, zip, tar or Parquet file that can be read.

    A gzip file holds one content; an archive becomes a JSON object by member, a Parquet file one of columns and rows
    (where pyarrow is installed).
    """
    if not output.name.startswith("file:") or not packing_of(output.content):
        return output
    return Output(name=output.name, content=_unpacked(output.name, output.content))


@lru_cache(maxsize=_CACHED)
def _unpacked(name: str, content: bytes) -> bytes:
    held = _held(name, content, 0)
    if isinstance(held, bytes):
        return held
    return json.dumps(held, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")


def _held(name: str, content: bytes, depth: int) -> object:
    """Bytes of a content that is not packed, or as they were packed; of one that holds several, a JSON value."""
    kind = packing_of(content)
    if kind not in _READERS or depth > _DEEPEST:
        return content
    try:
        held = _READERS[kind](content)
    except Exception:  # what readers of archives raise on damaged ones has no common type
        return content
    if isinstance(held, bytes):
        return _held(inner_name(name), held, depth + 1)
    return {member: _value(member, inner, depth + 1) for member, inner in held.items()}


def _value(name: str, content: object, depth: int) -> object:
    """A member as JSON: what it holds if it is packed itself, else its value, its lines, or a digest of its bytes."""
    held = _held(f"file:{name}", content, depth) if isinstance(content, bytes) else content
    if not isinstance(held, bytes):
        return held
    form = format_of(f"file:{name}", held)
    if form is Format.BINARY:
        return _digest(held)
    value = json_value(held) if form is Format.JSON else BROKEN
    return [line.decode("utf-8", "backslashreplace") for line in lines(held)] if value is BROKEN else value


def _digest(content: bytes) -> str:
    """Short, and nothing in it looks like an id."""
    if len(content) <= _SHOWN_BYTES:
        return content.hex(" ")
    digest = hashlib.blake2b(content, digest_size=_SHOWN_BYTES).digest().hex(" ")
    return f"{len(content)} bytes, digest {digest}"


# --- readers ----------------------------------------------------------------------------------


def _gzip(content: bytes) -> bytes:
    parts, size = [], 0
    while content:
        unpacking = zlib.decompressobj(wbits=31)
        parts.append(unpacking.decompress(content, _LARGEST - size + 1))
        size += len(parts[-1])
        if size > _LARGEST or not unpacking.eof:
            raise _Unreadable
        content = unpacking.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _zip(content: bytes) -> Mapping[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        _check_size(sum(member.file_size for member in members))
        return _named([(member.filename, archive.read(member)) for member in members])


def _tar(content: bytes) -> Mapping[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        _check_size(sum(member.size for member in members))
        return _named([(member.name, _tar_member(archive, member)) for member in members])


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member) if member.isreg() else None
    return file.read() if file is not None else f"-> {member.linkname}".encode()


def _named(members: list[tuple[str, bytes]]) -> Mapping[str, bytes]:
    """Members by name, sorted; one that is in the archive again has a number behind its name."""
    found: dict[str, bytes] = {}
    for name, content in members:
        count = sum(1 for other, _ in members[: len(found)] if other == name)
        found[f"{name}#{count + 1}" if count else name] = content
    return dict(sorted(found.items()))


def _parquet(content: bytes) -> Mapping[str, object]:
    parquet = import_module("pyarrow.parquet")  # the user's, if there is one; without it, bytes are compared
    file = parquet.ParquetFile(io.BytesIO(content))
    _check_size(sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)))
    table = file.read(use_threads=False)
    return {
        "columns": {column.name: str(column.type) for column in table.schema},
        "rows": table.to_pylist(),
    }


def _check_size(size: int) -> None:
    if size > _LARGEST:
        raise _Unreadable


_READERS: Mapping[str, Callable[[bytes], bytes | Mapping[str, object]]] = {
    "gzip": _gzip,
    "zip": _zip,
    "tar": _tar,
    "Parquet": _parquet,
}
