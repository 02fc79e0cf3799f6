"""Puts the fake modules in place of the real ones wherever loaded, and takes them away: all file patches."""

from __future__ import annotations

import _io
import errno
import io
import mmap
import os
import posixpath
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyfakefs.fake_filesystem import set_gid, set_uid
from pyfakefs.fake_filesystem_unittest import Patcher

from pytest_rerunsafe.world.buffers import is_ours
from pytest_rerunsafe.world.files_calls import Calls
from pytest_rerunsafe.world.files_io import WorldCoreIo, WorldFcntl, WorldIo
from pytest_rerunsafe.world.files_os import WorldOs
from pytest_rerunsafe.world.files_tree import USER

OnUnsupported = Callable[[str], None]
"""What user code did that the fake file system cannot follow."""

_OWN = tuple(
    f"pytest_rerunsafe.world.{name}"
    for name in (
        "buffers",
        "databases",
        *(f"databases_{part}" for part in ("dump", "functions", "python", "sql")),
        "files",
        "scratch",
        *(
            f"files_{part}"
            for part in ("calls", "descriptors", "entries", "io", "ledger", "os", "patches", "reads", "tree")
        ),
    )
)
_IMPORTING = ("_frozen_importlib", "_frozen_importlib_external", "importlib._bootstrap_external", "zipimport")
_REAL = types.SimpleNamespace(open=io.open)
_KEEPING = ("dbm.dumb", "glob", "pathlib", "pathlib._local", "shutil", "tempfile", "zipfile")
"""Modules whose classes and default arguments keep file functions, where pyfakefs does not look."""


class _ModulePatcher(Patcher):
    """pyfakefs's patcher with our modules; pathlib and shutil stay real, for they work on `os` and `io`."""

    def __init__(self, skip_modules: Sequence[str]) -> None:
        super().__init__(use_cache=False)
        self.SKIPMODULES = {*Patcher.SKIPMODULES, *_loaded((*_OWN, *_IMPORTING, *skip_modules))}  # type: ignore[misc]
        self._calls: Calls | None = None

    def _init_fake_module_classes(self) -> None:
        self._fake_module_classes = {"os": WorldOs, "io": WorldIo, "fcntl": WorldFcntl}
        if sys.version_info >= (3, 12):
            self._fake_module_classes["_io"] = WorldCoreIo

    @property
    def calls(self) -> Calls:
        if self._calls is None:
            assert self.fs is not None
            self._calls = Calls(self.fs)
        return self._calls


class Patches:
    """All patches of the file store: `apply` puts them on, `undo` takes them off."""

    def __init__(self, skip_modules: Sequence[str], on_unsupported: OnUnsupported) -> None:
        self._skip_modules = tuple(skip_modules)
        self._on_unsupported = on_unsupported
        self._patcher: _ModulePatcher | None = None
        self._undo: list[Callable[[], None]] = []

    def apply(self) -> Calls:
        """Every module that is loaded, or will be, works on the fake file system from now on."""
        set_uid(USER)
        set_gid(USER)
        patcher = self._patcher = _ModulePatcher(self._skip_modules)
        patcher.setUp()
        self._empty(patcher)
        self._patch_kept(patcher)
        for module in _loaded(self._skip_modules):
            self._set(module, "open", _REAL.open)
        self._set(mmap, "mmap", self._mmap_class())
        self._set(tempfile, "tempdir", "/tmp")
        self._set_module("_io", _io)  # CPython's own import of code opens files through this name.
        self._set_module("os.path", patcher.fake_modules["os"].path)
        return patcher.calls

    def replace(self, owners: Sequence[types.ModuleType], names: Mapping[str, Any]) -> None:
        """Put something in place of names of modules."""
        for owner in owners:
            for name, value in names.items():
                self._set(owner, name, value)

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()
        if self._patcher is not None:
            self._patcher.tearDown()
            self._patcher = None

    def _empty(self, patcher: _ModulePatcher) -> None:
        """Nothing of the machine shows: neither its temporary folder nor its umask."""
        filesystem = patcher.fs
        assert filesystem is not None
        filesystem.root._entries.clear()
        filesystem.root.home = "/"
        filesystem.shuffle_listdir_results = False
        filesystem.umask = 0o022
        for name in ("exists", "isdir", "isfile", "islink"):
            setattr(filesystem, name, getattr(patcher.calls, name))
        for name in ("get_object", "get_object_from_normpath", "resolve_path"):
            setattr(filesystem, name, patcher.calls.unnoted(getattr(filesystem, name)))
        for name, follow in (("resolve", True), ("stat", True), ("lresolve", False), ("readlink", False)):
            setattr(filesystem, name, patcher.calls.noted(getattr(filesystem, name), follow=follow))
        filesystem.get_open_file = patcher.calls.descriptors.get  # type: ignore[method-assign,assignment]

    def _patch_kept(self, patcher: _ModulePatcher) -> None:
        fakes = _fakes(patcher)
        for module in _loaded(_KEEPING):
            for owner in (module, *_classes_in(module)):
                self._patch_attributes(owner, fakes)

    def _patch_attributes(self, owner: Any, fakes: dict[int, Any]) -> None:
        for name, value in list(vars(owner).items()):
            if isinstance(owner, type) and id(_unwrapped(value)) in fakes:
                fake = fakes[id(_unwrapped(value))]
                self._set(owner, name, staticmethod(fake) if isinstance(value, staticmethod) else fake)
            defaults = getattr(value, "__defaults__", None) if isinstance(value, types.FunctionType) else None
            if defaults and any(id(default) in fakes for default in defaults):
                self._set(value, "__defaults__", tuple(fakes.get(id(old), old) for old in defaults))

    def _set(self, owner: Any, name: str, value: Any) -> None:
        missing = object()
        old = vars(owner).get(name, missing) if hasattr(owner, "__dict__") else missing
        if isinstance(owner, types.FunctionType):
            old = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: delattr(owner, name) if old is missing else setattr(owner, name, old))

    def _set_module(self, name: str, module: Any) -> None:
        old = sys.modules[name]
        sys.modules[name] = module
        self._undo.append(lambda: sys.modules.__setitem__(name, old))

    def _mmap_class(self) -> type:
        on_unsupported = self._on_unsupported

        class Mmap(mmap.mmap):
            """Maps real files and memory, as always."""

            def __new__(cls, fileno: int, *arguments: Any, **keywords: Any) -> Any:
                if is_ours(fileno):
                    on_unsupported("mmap")
                    raise OSError(errno.ENODEV, "mmap of a file is not supported in the rerun-safety world")
                return super().__new__(cls, fileno, *arguments, **keywords)

        return Mmap


def _loaded(names: Sequence[str]) -> Iterator[types.ModuleType]:
    """The loaded modules of these names and below them."""
    for name, module in sorted(sys.modules.items()):
        if any(name == known or name.startswith(f"{known}.") for known in names):
            yield module


def _classes_in(module: types.ModuleType) -> Iterator[type]:
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield value


def _unwrapped(value: Any) -> Any:
    return value.__func__ if isinstance(value, staticmethod) else value


def _fakes(patcher: Patcher) -> dict[int, Any]:
    """What stands for each real function and module, by identity."""
    fake_os, fake_io = patcher.fake_modules["os"], patcher.fake_modules["io"]
    paths = fake_os.path._os_path
    fakes: dict[int, Any] = {
        id(os): fake_os,
        id(io): fake_io,
        id(io.open): fake_io.open,
        id(posixpath): paths,
    }
    for name in WorldOs.dir():
        if hasattr(os, name):
            fakes[id(getattr(os, name))] = getattr(fake_os, name)
    for name, value in vars(posixpath).items():
        if isinstance(value, types.FunctionType) and value.__module__ == "posixpath":
            fakes[id(value)] = getattr(paths, name)
    return fakes
