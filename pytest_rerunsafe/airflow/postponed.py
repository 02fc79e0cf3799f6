"""Imports modules of a package without running the package's own `__init__`: that is done when somebody asks for more."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Postponed(ModuleType):
    """A package that runs its `__init__` once it is asked for what it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        self.__class__ = ModuleType  # type: ignore[assignment]  # before anything in there asks for more
        spec = self.__spec__
        assert spec is not None, "it was made from one"
        assert spec.loader is not None, "only folders without `__init__` have none, and those ask for nothing"
        spec.loader.exec_module(self)
        return getattr(self, name)


def postpone(package: str, **offered: str) -> None:
    """Let a package wait with its `__init__`; `offered` are names that it gives at once, and the modules they come from.

    Whoever asks for anything else runs it, and has the package as it always is. One that is loaded already stays so.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or package in sys.modules:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Postponed
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)
    for name, source in offered.items():
        setattr(module, name, getattr(importlib.import_module(f"{package}.{source}"), name))
