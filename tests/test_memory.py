"""What code has made in memory is put back as it was, in the same objects; what may hide something is not captured."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_rerunsafe.world.memory import Memory

NAME = "a_project_module"


@pytest.fixture
def made() -> Iterator[Callable[[str], types.ModuleType]]:
    """Makes a module of source; it is loaded as long as the test runs."""

    def make(source: str) -> types.ModuleType:
        module = sys.modules[NAME] = types.ModuleType(NAME)
        exec(source, vars(module))
        return module

    yield make
    sys.modules.pop(NAME, None)


CHANGES = {
    "a global": ("x = 1", "global x; x = 2", "x"),
    "a new global": ("", "global y; y = 2", "'y' in globals()"),
    "a global that goes": ("x = 1", "global x; del x", "x"),
    "a dict": ("d = {'a': 1}", "d['b'] = 2", "d"),
    "a dict's value": ("d = {'a': 1}", "d['a'] = 2", "d"),
    "a dict's order": ("d = {'a': 1, 'b': 1}", "d['a'] = d.pop('a')", "list(d)"),
    "a dict's key": ("d = {1: 1}", "del d[1]; d[True] = 1", "repr(d)"),
    "a list": ("l = [1]", "l.append(2)", "l"),
    "a list's order": ("l = [1, 2]", "l.reverse()", "l"),
    "a list in a tuple": ("t = ([],)", "t[0].append(2)", "t"),
    "a set": ("s = {1}", "s.add(2)", "s"),
    "a deque": ("from collections import deque; q = deque([1], 3)", "q.append(2)", "q"),
    "a bytearray": ("b = bytearray(b'a')", "b.append(98)", "b"),
    "a defaultdict": (
        "from collections import defaultdict; d = defaultdict(list)",
        "d[1].append(2)",
        "dict(d)",
    ),
    "an OrderedDict": (
        "from collections import OrderedDict; d = OrderedDict(a=1, b=2)",
        "d.move_to_end('a')",
        "list(d), list(reversed(d))",
    ),
    "a Counter": ("from collections import Counter; c = Counter()", "c['a'] += 1", "c"),
    "a subclass of OrderedDict": (
        "from collections import OrderedDict\nclass D(OrderedDict): pass\nd = D(a=1)",
        "d['b'] = 2",
        "list(d), list(reversed(d))",
    ),
    "a subclass of list, with attributes": (
        "class L(list): pass\nl = L([1])",
        "l.append(2); l.name = 'x'",
        "list(l), vars(l)",
    ),
    "an attribute": ("class A: pass\na = A()", "a.x = 1", "vars(a)"),
    "an attribute that goes": ("class A: pass\na = A(); a.x = 1", "del a.x", "vars(a)"),
    "a slot": ("class A: __slots__ = ('x',)\na = A(); a.x = 1", "a.x = 2", "a.x"),
    "an empty slot": ("class A: __slots__ = ('x',)\na = A()", "a.x = 2", "hasattr(a, 'x')"),
    "a slot of a base": (
        "class A: __slots__ = ('x',)\nclass B(A): pass\na = B(); a.x = []",
        "a.x.append(2)",
        "a.x",
    ),
    "a dataclass": (
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n x: list = field(default_factory=list)\na = A()",
        "a.x.append(1)",
        "a.x",
    ),
    "a class's attribute": ("class A: x = 1", "A.x = 2", "A.x"),
    "a new attribute of a class": ("class A: pass", "A.y = 2", "hasattr(A, 'y')"),
    "a list of a class": ("class A: x = []", "A.x.append(2)", "A.x"),
    "a class in a class": ("class A:\n class B: x = 1", "A.B.x = 2", "A.B.x"),
    "a member of an enum": (
        "from enum import Enum\nclass A(Enum): x = []",
        "A.x.value.append(1)",
        "A.x.value",
    ),
    "a default": ("def f(x=[]): return x", "f().append(1)", "f()"),
    "a keyword's default": ("def f(*, x=[]): return x", "f().append(1)", "f()"),
    "other defaults": ("def f(x=1): return x", "f.__defaults__ = (2,)", "f()"),
    "other code": ("def f(): return 1", "f.__code__ = (lambda: 2).__code__", "f()"),
    "a function's attribute": ("def f(): pass", "f.count = 1", "vars(f)"),
    "a closure": (
        "def make():\n n = 0\n def count():\n  nonlocal n\n  n += 1\n  return n\n return count\ncount = make()",
        "count()",
        "count.__closure__[0].cell_contents",
    ),
    "a property's memory": (
        "class A:\n seen = []\n @property\n def x(self, seen=seen): return seen\na = A()",
        "a.x.append(1)",
        "a.x",
    ),
    "a cached_property": (
        "from functools import cached_property\nclass A:\n @cached_property\n def x(self): return []\na = A()",
        "a.x.append(1)",
        "a.x",
    ),
    "a cache": ("from functools import cache\n@cache\ndef f(): return []", "f().append(1)", "f()"),
    "a partial": (
        "from functools import partial\ndef f(x): return x\np = partial(f, [])",
        "p().append(1)",
        "p()",
    ),
    "a method": ("class A:\n def f(self): return self.__dict__\nm = A().f", "m()['x'] = 1", "m()"),
    "a list known by its method": ("add = [].append", "add(1)", "add.__self__"),
    "a mapping proxy": ("import types; p = types.MappingProxyType({'a': []})", "p['a'].append(1)", "dict(p)"),
    "a namespace": ("import types; n = types.SimpleNamespace(x=1)", "n.x = 2", "n"),
    "weak values": (
        "import weakref\nclass A: pass\na = A(); w = weakref.WeakValueDictionary()",
        "w['a'] = a",
        "dict(w)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_was_changed_is_put_back(made: Callable[[str], types.ModuleType], case: str) -> None:
    source, change, seen = CHANGES[case]
    module = made(source)

    def look() -> str:
        return repr(eval(seen, vars(module)))

    exec(f"def change():\n    {change}", vars(module))
    memory = Memory.capture([], [module])
    before = look()
    assert memory is not None
    memory.restore()
    assert look() == before
    for _ in range(2):
        vars(module)["change"]()
        memory.restore()
        assert look() == before


@pytest.mark.parametrize("case", [case for case in CHANGES if case != "a new global"])
def test_the_cases_are_changes(made: Callable[[str], types.ModuleType], case: str) -> None:
    source, change, seen = CHANGES[case]
    module = made(source)
    exec(f"def change():\n    {change}", vars(module))
    before = repr(eval(seen, vars(module)))
    vars(module)["change"]()
    try:
        after = repr(eval(seen, vars(module)))
    except NameError:
        return
    assert after != before


HIDING = {
    "a counter": "import itertools; x = itertools.count()",
    "a generator": "x = (i for i in [1])",
    "an iterator": "x = iter([1])",
    "a stream": "import io; x = io.StringIO()",
    "random numbers": "import random; x = random.Random(1)",
    "a held lock": "import threading; x = threading.Lock(); x.acquire()",
    "what threads have": "import threading; x = threading.local()",
    "a context variable": "import contextvars; x = contextvars.ContextVar('x')",
    "a cache that was used": "from functools import cache\n@cache\ndef f(): return 1\nf()",
    "an array": "import array; x = array.array('i', [1])",
    "a database": "import sqlite3; x = sqlite3.connect(':memory:')",
    "an exception": "class E(Exception): pass\nx = E()",
    "a struct": "import struct; x = struct.Struct('i').iter_unpack(b'1234')",
    "an element": "from xml.etree.ElementTree import Element; x = Element('a')",
}


@pytest.mark.parametrize("case", HIDING)
def test_what_may_hide_something_is_not_captured(made: Callable[[str], types.ModuleType], case: str) -> None:
    module = made(HIDING[case])
    assert Memory.capture([], [module]) is None
    assert Memory.capture([[vars(module)]], []) is None


def test_libraries_are_left_alone(made: Callable[[str], types.ModuleType]) -> None:
    module = made(
        "import json, logging, collections\nfrom json import JSONDecoder\nlog = logging.getLogger('x')"
    )
    memory = Memory.capture([], [module])
    assert memory is not None
    json: Any = module.json
    try:
        json.added = json.JSONDecoder.added = 1
        memory.restore()
        assert (json.added, json.JSONDecoder.added) == (1, 1)
    finally:
        del json.added, json.JSONDecoder.added


def test_what_refers_to_itself_is_captured_once() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    memory = Memory.capture([loop], [])
    assert memory is not None
    loop.clear()
    memory.restore()
    assert len(loop) == 2
    assert loop[1] is loop


VALUES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 5), inner, max_size=3),
    max_leaves=20,
)


@given(value=st.lists(VALUES, max_size=4), data=st.data())
def test_whatever_is_done_to_nested_containers_is_undone(value: list[Any], data: st.DataObject) -> None:
    memory = Memory.capture([value], [])
    assert memory is not None
    before, objects = copy.deepcopy(value), [*map(id, containers(value))]
    for _ in range(data.draw(st.integers(1, 4))):
        found = data.draw(st.sampled_from(containers(value)))
        change = data.draw(st.sampled_from([found.clear, partial(add_to, found)]))
        change()
    memory.restore()
    assert value == before
    assert [*map(id, containers(value))] == objects


def add_to(found: list[Any] | dict[Any, Any]) -> None:
    """Put something new into a container, and what was in it in another order."""
    if isinstance(found, list):
        found.append([1])
        found.reverse()
    else:
        found.update({9: [1]})


def containers(value: Any) -> list[Any]:
    """The containers in a value, itself among them, in order."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) else []
    return own + [found for each in inner for found in containers(each)]
