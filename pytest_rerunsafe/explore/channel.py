"""Messages between our processes: pickled values over a local socket, each with its length in front."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!Q")


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

    def fileno(self) -> int:
        """So that a selector can wait for it."""
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Send a value. Raises `Closed`."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise Closed from error

    def receive(self) -> Any:
        """The next value; waits for it. Raises `Closed`."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
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
        return Channel(socket.socket(fileno=fds[0]))

    def close(self) -> None:
        """Let the other side know that nothing more comes."""
        self._socket.close()
