"""What some code has made in memory: captured object by object, put back as it was.

Only what is known to tell all of its state is captured: of anything else (an open stream, a counter, a lock that is
held) nobody could say whether it is still as it was.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import functools
import gc
import logging
import re
import threading
import types
import weakref
import zoneinfo
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import is_
from typing import Any

PutBack = Callable[[], None]

_MOST = 400_000
"""Objects: what has more takes longer to look through than to make again."""
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, as all that a class statement makes
_WORD = 8


class _Unknown(Exception):
    """An object whose state cannot be told."""


class Memory:
    """The state of objects, and of all that can be reached from them."""

    def __init__(self, parts: list[PutBack]) -> None:
        self._parts = parts

    @classmethod
    def capture(cls, roots: Iterable[object], modules: Iterable[types.ModuleType]) -> Memory | None:
        """The present state of the roots and of modules with what they define; None if it cannot be told.

        Other modules, with their functions and classes, are left alone.
        """
        try:
            return cls(_Walk(modules).parts_of(roots))
        except _Unknown:
            return None

    def restore(self) -> None:
        """The captured state again, in the same objects."""
        for put_back in self._parts:
            put_back()


class _Walk:
    """The way through all objects that can be reached."""

    def __init__(self, modules: Iterable[types.ModuleType]) -> None:
        self._modules = {id(module): module for module in modules}
        self._names = {module.__name__ for module in self._modules.values()}
        self._waiting: list[object] = []
        self._parts: list[PutBack] = []

    def parts_of(self, roots: Iterable[object]) -> list[PutBack]:
        """What puts them back. Raises `_Unknown`."""
        self._waiting += [*self._modules.values(), *roots]
        seen: dict[int, object] = {id(vars(builtins)): builtins}
        while self._waiting:
            found = self._waiting.pop()
            if id(found) in seen or type(found) in _ATOMS:
                continue
            seen[id(found)] = found
            if len(seen) > _MOST:
                raise _Unknown
            self._look_at(found)
        return self._parts

    def _look_at(self, found: Any) -> None:
        kind = type(found)
        if kind in _BY_KIND:
            _BY_KIND[kind](self, found)
        elif issubclass(kind, types.ModuleType):
            if id(found) in self._modules:
                self._keep_dict(vars(found))
        elif issubclass(kind, type):
            if found.__module__ in self._names:
                self._keep_class(found)
        elif not issubclass(kind, logging.Logger):  # that is put back with the rest of the process
            self._keep_instance(found)

    # --- containers ---------------------------------------------------------------------------

    def _keep_dict(self, found: dict[Any, Any]) -> None:
        keys, values = [*dict.keys(found)], [*dict.values(found)]

        def put_back() -> None:
            if not (_are_same(dict.values(found), values) and _are_same(dict.keys(found), keys)):
                dict.clear(found)
                dict.update(found, zip(keys, values, strict=True))

        self._keep(put_back, *keys, *values)

    def _keep_ordered_dict(self, found: OrderedDict[Any, Any]) -> None:
        keys, values = [*OrderedDict.keys(found)], [*OrderedDict.values(found)]

        def put_back() -> None:
            if not (
                _are_same(OrderedDict.values(found), values) and _are_same(OrderedDict.keys(found), keys)
            ):
                OrderedDict.clear(found)
                for key, value in zip(keys, values, strict=True):
                    OrderedDict.__setitem__(found, key, value)

        self._keep(put_back, *keys, *values)

    def _keep_default_dict(self, found: defaultdict[Any, Any]) -> None:
        self._keep_dict(found)
        self._waiting.append(found.default_factory)

    def _keep_list(self, found: list[Any]) -> None:
        items = list.copy(found)

        def put_back() -> None:
            if list.__len__(found) != len(items) or not all(map(is_, list.__iter__(found), items)):
                list.__setitem__(found, slice(None), items)

        self._keep(put_back, *items)

    def _keep_deque(self, found: deque[Any]) -> None:
        items = [*found]

        def put_back() -> None:
            if not _are_same(found, items):
                found.clear()
                found.extend(items)

        self._keep(put_back, *items)

    def _keep_set(self, found: set[Any]) -> None:
        items = [*set.__iter__(found)]
        ids = {*map(id, items)}

        def put_back() -> None:
            if {*map(id, set.__iter__(found))} != ids:
                set.clear(found)
                set.update(found, items)

        self._keep(put_back, *items)

    def _keep_bytearray(self, found: bytearray) -> None:
        content = bytes(found)

        def put_back() -> None:
            if found != content:
                found[:] = content

        self._keep(put_back)

    def _follow(self, found: Iterable[object]) -> None:
        self._waiting += found

    def _follow_self(self, found: Any) -> None:
        self._waiting.append(found.__self__)

    # --- code ---------------------------------------------------------------------------------

    def _keep_function(self, found: types.FunctionType) -> None:
        code, defaults, keywords = found.__code__, found.__defaults__, found.__kwdefaults__
        cells = found.__closure__ or ()

        def put_back() -> None:
            if found.__code__ is not code:
                found.__code__ = code
            if found.__defaults__ is not defaults:
                found.__defaults__ = defaults
            if found.__kwdefaults__ is not keywords:
                found.__kwdefaults__ = keywords

        self._keep(put_back, defaults, keywords, *cells)
        if found.__dict__ or found.__module__ in self._names:
            self._waiting.append(found.__dict__)

    def _keep_cell(self, found: types.CellType) -> None:
        try:
            content = found.cell_contents
        except ValueError:  # it is empty

            def empty() -> None:
                try:
                    del found.cell_contents
                except ValueError:
                    return

            self._keep(empty)
            return

        def put_back() -> None:
            found.cell_contents = content

        self._keep(put_back, content)

    def _keep_cache(self, found: Any) -> None:
        if found.cache_info().currsize:
            raise _Unknown
        self._keep(found.cache_clear, found.__wrapped__, found.__dict__)

    def _keep_class(self, found: type) -> None:
        names = dict(vars(found))

        def put_back() -> None:
            now = vars(found)
            if len(now) == len(names) and all(now.get(name) is value for name, value in names.items()):
                return
            for name in now.keys() - names.keys():
                type.__delattr__(found, name)
            for name, value in names.items():
                if now.get(name) is not value:
                    type.__setattr__(found, name, value)

        self._keep(
            put_back, *found.__mro__, *(value for name, value in names.items() if name not in _OF_CLASS)
        )

    # --- instances ----------------------------------------------------------------------------

    def _keep_instance(self, found: Any) -> None:
        if type(found).__module__.partition(".")[0] in _OF_THE_WORLD:
            return
        bases = type(found).__mro__
        for base in bases:
            if base in _BASES:
                if not (base is dict and OrderedDict in bases):
                    _BASES[base](self, found)
            elif not _is_of_python(base):
                raise _Unknown
        slots = [*_slots_of(type(found))]
        if slots:
            self._keep_slots(found, slots)
        try:
            attributes = object.__getattribute__(found, "__dict__")
        except AttributeError:
            return
        if type(attributes) is not dict:
            raise _Unknown
        self._waiting.append(attributes)

    def _keep_slots(self, found: object, slots: list[Any]) -> None:
        values = [_read(slot, found) for slot in slots]

        def put_back() -> None:
            for slot, value in zip(slots, values, strict=True):
                if _read(slot, found) is value:
                    continue
                if value is _EMPTY:
                    slot.__delete__(found)
                else:
                    slot.__set__(found, value)

        self._keep(put_back, *values)

    def _keep(self, put_back: PutBack, *reached: object) -> None:
        self._parts.append(put_back)
        self._waiting += reached

    def _keep_lock(self, found: Any) -> None:
        if found.locked():
            raise _Unknown


def _are_same(found: Collection[object], items: list[object]) -> bool:
    return len(found) == len(items) and all(map(is_, found, items))


_EMPTY = object()


def _read(slot: Any, found: object) -> object:
    try:
        return slot.__get__(found)
    except AttributeError:
        return _EMPTY


def _slots_of(kind: type) -> Iterator[Any]:
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            yield from (value for value in vars(base).values() if type(value) is types.MemberDescriptorType)


@functools.cache
def _is_of_python(kind: type) -> bool:
    """Whether a class statement, or the like, has made it: then its instances have attributes and slots, and no more."""
    if kind is object:
        return True
    new = vars(kind).get("__new__")
    is_of_c = not kind.__flags__ & _HEAP_TYPE or isinstance(new, types.BuiltinFunctionType)
    slots = sum(type(value) is types.MemberDescriptorType for value in vars(kind).values())
    base = kind.__base__ or object
    room = 2 * _WORD + slots * _WORD  # for the attributes and for weak references
    return not is_of_c and kind.__basicsize__ - base.__basicsize__ <= room


def _nothing(walk: _Walk, found: object) -> None:
    """What cannot change, nor leads anywhere."""


def _referents(walk: _Walk, found: object) -> None:
    walk._follow(gc.get_referents(found))


_ATOMS = frozenset(
    {
        type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, types.CodeType,
        types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType,
        types.GetSetDescriptorType, types.MemberDescriptorType, re.Pattern, decimal.Decimal, weakref.ref,
        weakref.ProxyType, weakref.CallableProxyType, type(threading.RLock()),
    }
)  # fmt: skip
_OF_THE_WORLD = ("pytest_rerunsafe", "pyfakefs", "time_machine")
"""Packages whose objects stand in for those of the real world, and are put back with that."""
_OF_CLASS = frozenset({"__dict__", "__weakref__", "_abc_impl"})
_BY_KIND: dict[type, Callable[[_Walk, Any], None]] = {
    dict: _Walk._keep_dict,
    OrderedDict: _Walk._keep_ordered_dict,
    defaultdict: _Walk._keep_default_dict,
    list: _Walk._keep_list,
    deque: _Walk._keep_deque,
    set: _Walk._keep_set,
    tuple: _Walk._follow,
    frozenset: _Walk._follow,
    bytearray: _Walk._keep_bytearray,
    types.FunctionType: _Walk._keep_function,
    types.CellType: _Walk._keep_cell,
    types.BuiltinFunctionType: _Walk._follow_self,
    types.MethodWrapperType: _Walk._follow_self,
    types.MethodType: _referents,
    property: _referents,
    staticmethod: _referents,
    classmethod: _referents,
    functools.partial: _referents,
    types.MappingProxyType: _referents,
    types.GenericAlias: _referents,
    types.UnionType: _referents,
    type(functools.lru_cache(lambda: None)): _Walk._keep_cache,
    type(threading.Lock()): _Walk._keep_lock,
}
_BASES: dict[type, Callable[[_Walk, Any], None]] = {
    dict: _Walk._keep_dict,
    OrderedDict: _Walk._keep_ordered_dict,
    list: _Walk._keep_list,
    set: _Walk._keep_set,
    tuple: lambda walk, found: walk._follow(tuple.__iter__(found)),
    frozenset: lambda walk, found: walk._follow(frozenset.__iter__(found)),
    types.SimpleNamespace: _nothing,
    **dict.fromkeys((str, int, float, bytes, weakref.ref, zoneinfo.ZoneInfo), _nothing),
    **dict.fromkeys((datetime.datetime, datetime.date, datetime.time), _nothing),
    **dict.fromkeys((datetime.timedelta, datetime.tzinfo, datetime.timezone), _nothing),
}
"""What a class may be made of besides Python code."""
