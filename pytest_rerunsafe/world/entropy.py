"""Where random values come from in a worker process: one seed. Nothing here draws on the machine."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, TracebackType
from typing import Any

from .process import replaced

_NODE = 0x02_00_00_00_00_01
"""The network address that uuid1 shows: a locally administered one, the same on every machine."""


class Entropy:
    """Makes what is random in this process a function of the seed."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._label = ""
        self._source = random.Random("")
        self._born = 0
        # Generators that libraries made without a seed outlive an attempt, unlike in a process of its own.
        self._unseeded: weakref.WeakSet[random.Random] = weakref.WeakSet()

    @classmethod
    def start(cls, seed: int | str) -> Entropy:
        """The source of randomness of this process from now on."""
        entropy = cls()
        entropy._put_on()
        entropy.seed(seed)
        return entropy

    def seed(self, seed: int | str) -> None:
        """Begin anew: what is drawn from now on depends on `seed` and on nothing before."""
        self._label = f"{type(seed).__name__}:{seed}"
        self._born = 0
        self._source.seed(self._label)
        random.seed(f"random:{self._label}")
        for generator in tuple(self._unseeded):
            generator.seed(f"unseeded:{self._label}")
        tempfile._name_sequence = _Names(f"names:{self._label}")  # type: ignore[attr-defined]
        _forget_timestamps(uuid)
        _forget_timestamps(sys.modules.get("uuid6"))
        _seed_numpy(sys.modules.get("numpy.random"), self._source.getrandbits(32))

    def position(self) -> object:
        """What tells whether anything was drawn, or seeded, since."""
        # Private to tempfile, which has no other place for it.
        names = tempfile._name_sequence  # type: ignore[attr-defined]
        numpys = _numpy_state(sys.modules.get("numpy.random"))
        return random.getstate(), self._source.getstate(), self._born, names.position(), numpys

    @contextmanager
    def aside(self, seed: int | str) -> Iterator[None]:
        """Inside, what `os.urandom` feeds (uuid, secrets) depends on `seed` alone; afterwards it goes on as before."""
        before, self._source = self._source, random.Random(f"aside:{seed}")
        _forget_timestamps(sys.modules.get("uuid6"))
        try:
            yield
        finally:
            self._source = before
            _forget_timestamps(sys.modules.get("uuid6"))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Inside, other processes may `seed` it; afterwards this one draws on as before."""
        before = self._label, self._born, self._source.getstate(), random.getstate()
        names = tempfile._name_sequence  # type: ignore[attr-defined]
        try:
            yield
        finally:
            self._label, self._born, source, shared = before
            self._source.setstate(source)
            random.setstate(shared)
            tempfile._name_sequence = names  # type: ignore[attr-defined]

    def stop(self) -> None:
        self._undo.close()

    def __enter__(self) -> Entropy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what the process finds in place of the real thing ------------------------------------

    def _put_on(self) -> None:
        for module in _OS_MODULES:
            self._replace(module, "urandom", self._random_bytes)
            self._replace(module, "getrandom", lambda size, flags=0: self._random_bytes(size))
        # SystemRandom, and with it secrets, holds a reference of its own.
        self._replace(random, "_urandom", self._random_bytes)
        self._replace(random.Random, "seed", self._seed_method())
        # The system's own generator would read the real time and the real network address.
        self._replace(uuid, "_generate_time_safe", None)
        self._replace(uuid, "_UuidCreate", None)
        self._replace(uuid, "_node", _NODE)

    def _replace(self, owner: Any, name: str, value: object) -> None:
        if hasattr(owner, name):
            self._undo.enter_context(replaced(owner, name, value))

    def _random_bytes(self, size: int, /) -> bytes:
        return self._source.randbytes(size)

    def _seed_method(self) -> Any:
        real = random.Random.seed

        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None:
                a = self._birth(generator)
            real(generator, a, version)

        return seed

    def _birth(self, generator: random.Random) -> str:
        self._unseeded.add(generator)
        self._born += 1
        return f"unseeded:{self._label}:{self._born}"


_OS_MODULES = (os, sys.modules[os.name])
"""In a tuple, where a fake file system that swaps modules does not look for them."""


class _Names:
    """What `tempfile` takes its names from: as random as its own, but with a mark that no other name has.

    A kill leaves temporary files behind, wherever they are and whatever their prefix: they must be known as such.
    """

    def __init__(self, seed: str) -> None:
        self._source = random.Random(seed)

    def __iter__(self) -> _Names:
        return self

    def position(self) -> object:
        """What tells whether a name was taken since."""
        return self._source.getstate()

    def __next__(self) -> str:
        return "".join(self._source.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=5)) + "_zq"


def _forget_timestamps(module: ModuleType | None) -> None:
    """Time-based ids never repeat the last one's time; a new process knows of no last one."""
    for name in sorted(vars(module)) if module else ():
        if name.startswith("_last_"):
            setattr(module, name, 0 if name.startswith("_last_counter") else None)


def _numpy_state(numpy_random: Any) -> object:
    if numpy_random is None:
        return None
    # The keys stay for hundreds of draws: the rest tells how far in them it is.
    name, keys, *rest = numpy_random.get_state()
    return name, keys.tobytes(), rest


def _seed_numpy(numpy_random: Any, seed: int) -> None:
    if numpy_random is not None:
        numpy_random.seed(seed)
