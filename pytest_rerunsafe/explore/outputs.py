"""The files of a state in comparable form. Pure functions."""

from __future__ import annotations

from ..model import Files, NodeKind, Output
from ..world.databases_dump import dumped


def file_outputs(files: Files) -> dict[str, Output]:
    """Files and links by output name, sorted; of an SQLite database, what it holds."""
    found = {
        f"file:{path}": b"-> " + node.content if node.kind is NodeKind.LINK else dumped(node.content)
        for path, node in files.items()
        if node.kind in (NodeKind.FILE, NodeKind.LINK)
    }
    return {name: Output(name=name, content=found[name]) for name in sorted(found)}
