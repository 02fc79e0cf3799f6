"""What takes many minutes is tried on some of the examples, on all where RERUNSAFE_EVERY_EXAMPLE is set (`tox -e examples`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

Example = TypeVar("Example")

IS_WHOLE = "RERUNSAFE_EVERY_EXAMPLE" in os.environ

of_all = pytest.mark.skipif(not IS_WHOLE, reason="is about all examples: tox -e examples")


def sample(examples: Sequence[Example], step: int) -> tuple[Example, ...]:
    """Each `step`th, or all."""
    return tuple(examples if IS_WHOLE else examples[::step])
