"""The world as the conftest hook and test authors see it: where the inputs of a DAG are put in place."""

from __future__ import annotations

import os

from ..airflow import inputs as airflow_inputs


class World:
    """Where a DAG's inputs are put: files, Variables, Connections, pools. Nothing of it is on the real disk."""

    def write(self, path: str | os.PathLike[str], content: str | bytes) -> None:
        """Put a file in place, with the folders above it. Relative paths start at the rootdir."""
        data = content.encode() if isinstance(content, str) else content
        folder = os.path.dirname(os.fspath(path))
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Make a folder, with those above it, unless it is there."""
        os.makedirs(path, exist_ok=True)

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """A file's content. Raises FileNotFoundError."""
        with open(path, "rb") as file:
            return file.read()

    def set_variable(self, key: str, value: object) -> None:
        """Set an Airflow Variable; anything but text is stored as JSON."""
        airflow_inputs.set_variable(key, value)

    def set_connection(self, conn_id: str, uri: str) -> None:
        """Set an Airflow Connection by its URI."""
        airflow_inputs.set_connection(conn_id, uri)

    def set_pool(self, name: str, slots: int, *, include_deferred: bool = False) -> None:
        """Set an Airflow pool; those that tasks name and nobody sets have room enough."""
        airflow_inputs.set_pool(name, slots, include_deferred)
