"""What takes many minutes is tried on a sample, for CI has twenty; all of it where RERUNSAFE_WHOLE is set (`tox -e whole`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import pytest

Example = TypeVar("Example")

IS_WHOLE = "RERUNSAFE_WHOLE" in os.environ

# Counts of all examples cannot be compared with a sample; what README says of them is thus checked by `tox -e whole` only.
of_all = pytest.mark.skipif(not IS_WHOLE, reason="is about all examples: tox -e whole")


def sample(examples: Sequence[Example], step: int) -> tuple[Example, ...]:
    """Each `step`th, or all."""
    return tuple(examples if IS_WHOLE else examples[::step])
