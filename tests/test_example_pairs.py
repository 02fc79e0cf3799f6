"""Every example DAG is what its name says: the unsafe one is found, by the right rule at the right line, its twin is safe."""

from __future__ import annotations

import difflib
import runpy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dag_projects import Verdicts
from samples import sample

from pytest_rerunsafe.check import Checker
from pytest_rerunsafe.compare import findings
from pytest_rerunsafe.explore import points, scenarios
from pytest_rerunsafe.explore.fold import Fold
from pytest_rerunsafe.model import (
    CrashKind,
    CrashPoint,
    DagInfo,
    Finding,
    Outcome,
    Profile,
    Recording,
    Rule,
    Verdict,
)
from pytest_rerunsafe.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "example_dags"

IN_PLACE = 'os.replace(f"{path}.tmp", path)'
"""The last line of a helper that writes a file, which what is written is blamed on."""

PAIRS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "accounts": {"rerun-fails": ("INSERT INTO accounts",)},
    "archive": {"partial-output-accepted": ('gzip.GzipFile(packed, "wb"',)},
    "batch": {"worker-local-state": ('dag_id="batch_unsafe"',)},
    "checkpoint": {
        "parse-side-effect": ('open(INPUT, "w")',),
        "lost-output": ("os.replace(f",),
        "duplicate-output": ('open(f"{CHECKPOINT}.tmp", "w")',),
    },
    "chunks": {"partial-output-accepted": ('open(path, "w")',)},
    "compact": {"lost-output": ("os.remove(part)",)},
    "convert": {"masked-failure": ("os.rename(UPLOAD, WORK)",)},
    "counter": {"wrong-output": (IN_PLACE,)},
    "drop": {"rerun-fails": ("os.remove(DROP)", 'dag_id="drop_unsafe"')},
    "events": {"lost-output": (IN_PLACE, "os.makedirs(os.path.dirname(path)")},
    "exchange": {"stale-xcom": ('dag_id="exchange_unsafe"',)},
    "exports": {"stale-output": ('open(unfinished, "w")',)},
    "figures": {"durability": (IN_PLACE,)},
    "first_load": {
        "wrong-output": ('dag_id="first_load_unsafe"',),
        "partial-output-accepted": ('open(path, "w"',),
    },
    "inbox": {"lost-output": ('os.replace(f"{INBOX}/', "os.makedirs(os.path.dirname(path)")},
    "items": {"parse-side-effect": ('open(INPUT, "w")',), "partial-output-accepted": ('open(path, "w")',)},
    "journal": {"duplicate-output": ("print(day, owner, cents,",)},
    "ledger": {"duplicate-output": (IN_PLACE,)},
    "lock": {"rerun-fails": ('open(path, "x")',)},
    "manifest": {"parse-side-effect": ("write_json(MANIFEST,",)},
    "newsletter": {"duplicate-output": ('dag_id="newsletter_unsafe"',)},
    "orders": {
        "duplicate-output": ('open(path, "a"',),
        "lost-output": ('open(done, "w")',),
    },
    "outage": {"stale-output": ('open(NOTICE, "w")',)},
    "parts": {"duplicate-output": (IN_PLACE, 'open(f"{path}.tmp", "w")')},
    "prices": {"order-dependent": (IN_PLACE,)},
    "quota": {"wrong-output": ('Variable.set("quota_left"',)},
    "rates": {"worker-local-state": (IN_PLACE,)},
    "regions": {"partial-output-accepted": ('open(path, "w"',)},
    "release": {"lost-output": (IN_PLACE,)},
    "resume": {"damaged-checkpoint": ('open(STATE, "w")',)},
    "sales": {"clock-dependent": ("{today}.csv",)},
    "sample": {"nondeterministic-output": (IN_PLACE,)},
    "sessions": {"clock-dependent": (IN_PLACE,)},
    "snapshot": {"lost-output": ("os.makedirs(os.path.dirname(path)",)},
    "stock": {"order-dependent": (IN_PLACE,)},
    "tickets": {"lost-output": ('Variable.set("tickets_last_id"',)},
    "uploads": {"nondeterministic-output": ("{name}.jpg",)},
    "visits": {"duplicate-output": ('visits.csv", "a"',)},
    "warehouse": {"duplicate-output": ("with connection:", "sqlite3.connect(")},
    "workspace": {"rerun-fails": ("os.makedirs(folder)",)},
}
"""The rules that the unsafe one of a pair breaks, each with what stands in the lines that it may be blamed on."""

NOT_FAST = {
    ("checkpoint", "duplicate-output"),
    ("first_load", "partial-output-accepted"),
    ("snapshot", "lost-output"),
}
"""What only a recovery or a kind of crash shows that the profile `fast` does not try."""
DURABILITY = str(Rule.DURABILITY)
"""A rule of the profile `thorough`: most DAGs never sync a folder, so only the pair that is about it promises to keep it."""

OVERLAPPING = frozenset({"checkpoint", "outage"})
"""Fixed twins that bear any death, and yet not a worker that lives on beside the next attempt; each says why."""

SAMPLE = sample(tuple(PAIRS), 8)
"""The pairs tried in the profiles `fast` and `thorough` too."""

MOST_CHANGED = 27
"""Lines by which the two of a pair may differ, old and new ones counted."""


class Examples:
    """The example DAGs and a checker for them."""

    def __init__(self, profile: Profile) -> None:
        self.checker = Checker(settings=Settings(profile=profile), rootdir=ROOT, prepare=_prepare)

    def check(self, name: str) -> Verdicts:
        """All checks of a DAG of the file of that name."""
        dag = self._dag(name)
        return Verdicts(self.checker.checks_of(dag), partial(self.checker.run, dag))

    def outcome(self, name: str, scenario: str) -> Outcome:
        """How a scenario of that DAG ends."""
        return self.checker.outcome(self._dag(name), f"{name}:{scenario}")

    def _dag(self, name: str) -> DagInfo:
        dags = {dag.dag_id: dag for dag in self.checker.load(str(EXAMPLES / f"{name}.py")).dags}
        return dags[name]


def _prepare(file: str, dag: Any, world: Any) -> None:
    runpy.run_path(str(EXAMPLES / "conftest.py"))["pytest_rerun_safety_prepare"](dag, world)


def _examples(profile: Profile) -> Iterator[Examples]:
    found = Examples(profile)
    try:
        yield found
    finally:
        found.checker.close()


@pytest.fixture(scope="module")
def fast() -> Iterator[Examples]:
    yield from _examples(Profile.FAST)


@pytest.fixture(scope="module")
def default() -> Iterator[Examples]:
    yield from _examples(Profile.DEFAULT)


@pytest.fixture(scope="module")
def thorough() -> Iterator[Examples]:
    yield from _examples(Profile.THOROUGH)


def source_line(finding: Finding) -> str:
    return (ROOT / finding.file).read_text().splitlines()[finding.line - 1]


def misplaced(name: str, verdicts: Verdicts) -> list[tuple[str, str]]:
    """The findings of rules that the DAG is not to break, or at other lines."""
    return [
        (str(finding.rule), source_line(finding))
        for finding in verdicts.findings
        if not any(text in source_line(finding) for text in PAIRS[name].get(finding.rule, ()))
    ]


def test_all_example_dags_are_pairs() -> None:
    files = {path.stem for path in EXAMPLES.glob("*.py")} - {"conftest"}
    assert files == {f"{name}_{kind}" for name in PAIRS for kind in ("unsafe", "fixed")}
    assert len(PAIRS) >= 24


def test_they_break_every_rule() -> None:
    assert {rule for found in PAIRS.values() for rule in found} == set(Rule)


@pytest.mark.parametrize("name", PAIRS)
def test_a_twin_differs_only_in_the_fix(name: str) -> None:
    unsafe, fixed = (
        (EXAMPLES / f"{name}_{kind}.py").read_text().replace(f"{name}_{kind}", name).splitlines()
        for kind in ("unsafe", "fixed")
    )
    changed = [line for line in difflib.ndiff(unsafe, fixed) if line[0] in "+-" and line[2:].strip()]
    assert 0 < len(changed) <= MOST_CHANGED


@pytest.mark.parametrize("name", PAIRS)
def test_the_unsafe_one_is_found(default: Examples, name: str) -> None:
    verdicts = default.check(f"{name}_unsafe")
    assert misplaced(name, verdicts) == []
    assert verdicts.rules == PAIRS[name].keys() - {DURABILITY}


@pytest.mark.parametrize("name", SAMPLE)
def test_the_unsafe_one_is_found_fast(fast: Examples, name: str) -> None:
    verdicts = fast.check(f"{name}_unsafe")
    assert misplaced(name, verdicts) == []
    assert verdicts.rules == {
        rule for rule in PAIRS[name] if rule != DURABILITY and (name, rule) not in NOT_FAST
    }


def test_one_is_found_only_when_everything_is_tried(thorough: Examples) -> None:
    verdicts = thorough.check("figures_unsafe")
    assert misplaced("figures", verdicts) == []
    assert verdicts.rules == {DURABILITY}


def test_a_marker_in_finally_is_found_by_an_error_and_not_by_a_kill(default: Examples) -> None:
    assert {finding.crash_kind for finding in default.check("snapshot_unsafe").findings} == {CrashKind.ERROR}


def test_a_handler_that_cleans_up_hides_from_an_error_what_a_kill_shows(default: Examples) -> None:
    assert {finding.crash_kind for finding in default.check("journal_unsafe").findings} == {CrashKind.KILL}
    clean, error, kill = (
        default.outcome("journal_unsafe", f"book@write:/data/journal/payments.csv#{place}:clear-downstream")
        for place in ("4:kill", "2:error", "2:kill")
    )
    assert error.outputs == clean.outputs
    assert kill.outputs != clean.outputs


@pytest.mark.parametrize("name", PAIRS)
def test_its_twin_is_safe(default: Examples, name: str) -> None:
    verdicts = default.check(f"{name}_fixed")
    assert [(str(finding.rule), finding.summary) for finding in verdicts.findings] == []
    assert_judged(verdicts)


# What `fast` and `default` try, `thorough` tries too.
@pytest.mark.parametrize("name", SAMPLE)
def test_its_twin_is_safe_whatever_is_tried(thorough: Examples, name: str) -> None:
    verdicts = thorough.check(f"{name}_fixed")
    promised = [finding for finding in verdicts.findings if is_promised(name, finding)]
    assert [(str(finding.rule), finding.summary) for finding in promised] == []
    assert_judged(verdicts)


def is_promised(name: str, finding: Finding) -> bool:
    """Whether the fixed twin says that it is not to be found."""
    if finding.rule == DURABILITY:
        return name == "figures"
    return finding.crash_kind is not CrashKind.ZOMBIE or name not in OVERLAPPING


def assert_judged(verdicts: Verdicts) -> None:
    """Nothing but what did not run in the clean run is without a verdict."""
    others = {result.verdict for result in verdicts.results.values()} - {Verdict.SAFE, Verdict.UNSAFE}
    assert others <= {Verdict.SKIPPED}
    reasons = {result.reason for result in verdicts.results.values() if result.verdict is Verdict.SKIPPED}
    assert reasons <= {"the task did not run in the clean run"}


# --- a checker that is broken is found out by these tests ------------------------------------------


def compare_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "diff_outputs", lambda *_, **__: ())


def crash_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def explored(recording: Recording, attempt: int, profile: Profile) -> points.Exploration:
        found = points.explore(recording, attempt, profile)
        return replace(found, states=tuple(replace(state, world=recording.final) for state in found.states))

    monkeypatch.setattr(scenarios, "explore", explored)


def reconstruct_one_effect_late(monkeypatch: pytest.MonkeyPatch) -> None:
    folds = points._folds

    def late(recording: Recording, chosen: Iterable[CrashPoint]) -> Iterator[tuple[CrashPoint, Fold]]:
        for point in chosen:
            ((_, fold),) = folds(recording, [replace(point, effect=point.effect + 1, is_torn=False)])
            yield point, fold

    monkeypatch.setattr(points, "_folds", late)


def is_as_promised(examples: Examples, name: str) -> bool:
    """What the tests above ask of the unsafe one of a pair."""
    verdicts = examples.check(f"{name}_unsafe")
    return not misplaced(name, verdicts) and verdicts.rules == PAIRS[name].keys() - {DURABILITY}


@pytest.mark.parametrize(
    ("sabotage", "seen_by"),
    [
        (compare_nothing, "visits"),
        (crash_after_the_end, "tickets"),
        (reconstruct_one_effect_late, "resume"),
    ],
)
def test_a_sabotaged_checker_is_found_out(
    sabotage: Callable[[pytest.MonkeyPatch], None], seen_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    with contextmanager(_examples)(Profile.DEFAULT) as examples:
        assert not is_as_promised(examples, seen_by)
