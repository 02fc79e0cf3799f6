"""Messages between our processes: pickled values over a local socket, each with its length in front."""

from __future__ import annotations

import fcntl
import pickle
import socket
import struct
from typing import Any

_HEADER = struct.Struct("!8sQ")
_MARK = b"rerunsaf"
"""Begins each message: DAG code that writes to any descriptor it finds must not be taken for us."""
_FIRST_DESCRIPTOR = 200
"""Where a worker's end is put: above what code closes that closes all that it knows."""


class Closed(Exception):
    """The other side has gone."""


class Channel:
    """One end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Both ends of a new connection."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    @classmethod
    def of(cls, fd: int) -> Channel:
        """The end that this process was started with."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """So that a selector can wait for it."""
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Send a value. Raises `Closed`."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._socket.sendall(_HEADER.pack(_MARK, len(data)) + data)
        except OSError as error:
            raise Closed from error

    def receive(self) -> Any:
        """The next value; waits for it. Raises `Closed`."""
        mark, length = _HEADER.unpack(self._read(_HEADER.size))
        if mark != _MARK:
            raise Closed
        return pickle.loads(self._read(length))

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self._socket.recv(min(count - len(parts), 1 << 20))
            except OSError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def send_end(self, end: Channel) -> None:
        """Give the other side an end of another connection."""
        socket.send_fds(self._socket, [b"."], [end.fileno()])

    def receive_end(self) -> Channel:
        """The end that the other side gives."""
        data, fds, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not data:
            raise Closed
        with socket.socket(fileno=fds[0]) as end:
            high = fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, _FIRST_DESCRIPTOR)
        return Channel(socket.socket(fileno=high))

    def close(self) -> None:
        """Let the other side know that nothing more comes."""
        self._socket.close()
