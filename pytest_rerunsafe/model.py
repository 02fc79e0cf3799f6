"""The nouns of the project: immutable values that every layer may know. No logic lives here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TypeAlias


class _Word(str, Enum):
    """An enum whose values are the words that users see."""

    def __str__(self) -> str:
        return str(self.value)


# --- places -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A line of the project's code."""

    file: str
    """Relative to the rootdir, POSIX form."""
    line: int
    function: str = ""
    is_entry: bool = False
    """Whether the function was called by other than the project's code: Airflow calls a task's, Python's import a module."""


# --- the world --------------------------------------------------------------------------------


class NodeKind(_Word):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    ABSENT = "absent"
    """A file of the real project that the run removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What stands at one path of the file system."""

    kind: NodeKind
    content: bytes = b""
    """A file's bytes, a link's target."""
    mode: int = 0o644
    mtime: float = field(default=0.0, compare=False)
    """Seconds since the epoch by the virtual clock; two nodes that differ in it alone are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """A change inside a file: `removed` bytes at `offset` make room for `data`."""

    offset: int
    removed: int
    data: bytes
    mtime: float = field(default=0.0, compare=False)


Row: TypeAlias = tuple[object, ...]
RowKey: TypeAlias = tuple[str, int]
"""Table and rowid."""

Files: TypeAlias = Mapping[str, Node]
"""By absolute path; only what differs from the real project that lies underneath."""
Rows: TypeAlias = Mapping[RowKey, Row]

FileChange: TypeAlias = tuple[str, "Node | Splice | None"]
"""Path and what stands there now; None: nothing of ours."""
RowChange: TypeAlias = tuple[RowKey, "Row | None"]

RunKey: TypeAlias = tuple[str, str]
"""A DagRun: DAG id and run id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldState:
    """All that a run can change durably, as a value."""

    files: Files
    rows: Rows
    clock: datetime


# --- effects and recordings -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One durable change, with the place that made it and the delta that makes it again."""

    kind: str
    """`create`, `write`, `truncate`, `rename`, `unlink`, `mkdir`, ...; `xcom`, `variable`, `trigger`, `state`, ..."""
    target: str
    """A path, an XCom key, a Variable's name, a task state."""
    files: tuple[FileChange, ...] = ()
    rows: tuple[RowChange, ...] = ()
    attempt: int | None = None
    """Index into `Recording.attempts`; None for what the scheduler did."""
    stack: tuple[Location, ...] = ()
    """The project's own frames, innermost first; empty if none was on the stack."""
    is_parse: bool = False
    """Made while the DAG file was loaded."""
    nth: int = 0
    """Which of the changes of that kind and target its attempt was about to make, from 1; 0 if nobody counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of one task instance."""

    run: RunKey
    task_id: str
    map_index: int
    try_number: int
    started: datetime
    """By the virtual clock."""
    state: str
    """The state that Airflow gave the task instance when the attempt ended."""
    may_retry: bool
    """Whether Airflow would have retried it had it died."""
    exit_code: int | None = None
    """Of a process that ended by itself, negative for a signal; None if the task runner came to its end."""
    executed_lines: int = 0
    """Lines of the project's code that ran, repeated ones counted each time; 0 if not counted."""
    depends_on_hashes: bool = False
    """Whether the project's code that ran makes sets or asks for hashes; False if lines were not counted."""
    failed_operations: tuple[str, ...] = ()
    """File operations that raised, `kind:path`, in order, each once."""
    first_reads: Mapping[str, str] = field(default_factory=dict)
    """Files that are not as they were mounted and whose content was read, with its digest when it first was."""
    xcom_reads: tuple[str, ...] = ()
    """XComs that were found, `task_id/key`, in order, each once."""
    stale_xcom_reads: tuple[str, ...] = ()
    """Those of `xcom_reads` that an attempt before the crash or the clear had left."""
    error: str = ""
    """The exception that ended it, cut to the project's frames; empty if none."""
    missing_input: str = ""
    """What the exception says was not there: `file:/data/in.csv`, `variable:name`, `connection:name`; or empty."""
    log: str = ""
    seed: str = ""
    """What its random numbers follow from."""
    is_opaque: bool = False
    """Whether it did what is not seen here; if it failed for it, it is taken to have succeeded."""
    heeds: tuple[CrashKind, ...] = ()
    """The signals that the task does something about: `timeout` if it has an `execution_timeout`, `sigterm` if it has an
    `on_kill` or a handler of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Something that keeps us from a verdict: what, where, what to do."""

    what: str
    where: Location | None
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One piece of the world's durable content, in comparable form."""

    name: str
    """`file:/data/out.csv`, `xcom:task_id/key`, `variable:name`, `runs:dag_id`."""
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended, be it a clean one or a recovery."""

    run_state: str
    """`success`, `failed`, `stuck` if nothing could go on, `refused` if Airflow does not allow the recovery, `missed` if there
    is nothing to recover from: the fault did not come to pass, or the run went on otherwise than the recovery takes it to."""
    task_states: Mapping[str, str]
    """By task id, `task_id[map_index]` for mapped ones."""
    attempts: tuple[Attempt, ...]
    outputs: Mapping[str, Output]
    obstacles: tuple[Obstacle, ...] = ()
    notes: tuple[Obstacle, ...] = ()
    """What was not seen and yet keeps us from no verdict."""
    as_clean_from: tuple[int, int] | None = None
    """If the rest was not run, because the world had become what it was in a clean run: the number of that run, and its
    attempt that comes next. `outputs` and `task_states` are then empty."""
    left: Files | None = None
    """The files when Airflow took note of the crash, where those are not what it began with: handlers or callbacks had run."""
    by_callbacks: Mapping[str, Location] = field(default_factory=dict)
    """Where callbacks first changed files before the recovery began, by path; those that the DAG processor runs."""
    raised: str = ""
    """What the change raised that failed: `OSError: [Errno 28] No space left on device`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Several intervals of a DAG that ran one after the other."""

    logical_dates: tuple[datetime, ...]
    before: WorldState
    """Airflow knows the DAG, all intervals are due, none has a DagRun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One clean run from its first effect to its end."""

    initial: WorldState
    """Inputs in place, before the DAG file is loaded for the first time."""
    effects: tuple[Effect, ...]
    final: WorldState
    run: RunKey
    """The DagRun under test."""
    outcome: Outcome
    situations: Mapping[str, int]
    """What the world was between attempts, as a digest, and the number of attempts before."""
    intervals: Intervals | None = None
    """None: only one ran."""


# --- scenarios --------------------------------------------------------------------------------


class Profile(_Word):
    """How much to explore."""

    FAST = "fast"
    DEFAULT = "default"
    THOROUGH = "thorough"


class CrashKind(_Word):
    """What befalls a worker; the simplest first."""

    KILL = "kill"
    """The worker is lost with all that runs on it, the task's supervisor too."""
    OOM = "oom"
    """The task's process alone is killed, as when memory runs out: its supervisor lives on and has its say."""
    ERROR = "error"
    """The change fails once, with the exception that it would raise in life."""
    TIMEOUT = "timeout"
    """`execution_timeout` is over."""
    SIGTERM = "sigterm"
    """The task is asked to end, and killed soon after."""
    ERROR_EACH_TRY = "error-each-try"
    """The change fails on every try, until Airflow retries no more."""
    ZOMBIE = "zombie"
    """The worker is taken for dead and lives on beside the next attempt."""
    POWER = "power"
    """The machine that holds the files loses power: what was not synced is lost or torn."""


ERRORS = frozenset({CrashKind.ERROR, CrashKind.ERROR_EACH_TRY})
"""Those at which the last change was not made."""


class RecoveryKind(_Word):
    RETRY = "retry"
    GO_ON = "go-on"
    """Nobody does anything, for the task did not fail."""
    CLEAR_TASK = "clear-task"
    CLEAR_DOWNSTREAM = "clear-downstream"
    CLEAR_RUN = "clear-run"
    CLEAR_RUN_DAY_LATER = "clear-run-day-later"
    CLEAR_UPSTREAM = "clear-upstream"
    CLEAR_BOTH_WAYS = "clear-both-ways"
    CLEAR_INDEX = "clear-index"
    CLEAR_FAILED = "clear-failed"
    CLEAR_RUNNING = "clear-running"
    """The task is cleared while it runs, which is what ends it."""
    MARK_SUCCESS = "mark-success"
    # --- of several intervals: what the check `backfill` tries
    CLEAR_RUN_AFTER_NEWER = "clear-run-after-newer"
    BACKFILL_BACKWARDS = "backfill-backwards"
    BACKFILL_COMPLETED = "backfill-completed"
    BACKFILL_COMPLETED_BACKWARDS = "backfill-completed-backwards"
    CATCHUP = "catchup"
    RETRY_AFTER_NEWER = "retry-after-newer"
    """A task of the oldest interval has died, and is retried only after the newer ones have ended."""
    CLEAR_DOWNSTREAM_AFTER_NEWER = "clear-downstream-after-newer"


LATE = frozenset({RecoveryKind.RETRY_AFTER_NEWER, RecoveryKind.CLEAR_DOWNSTREAM_AFTER_NEWER})
"""Those from a death in one interval that others do not wait for."""
OF_INTERVALS = frozenset(
    {
        RecoveryKind.CLEAR_RUN_AFTER_NEWER,
        RecoveryKind.BACKFILL_BACKWARDS,
        RecoveryKind.BACKFILL_COMPLETED,
        RecoveryKind.BACKFILL_COMPLETED_BACKWARDS,
        RecoveryKind.CATCHUP,
        *LATE,
    }
)
"""Those that concern several intervals."""


TaskKey: TypeAlias = "str | tuple[str, int]"
"""A task, or one mapped index of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clear:
    """What a clear concerns, in the words of Airflow's own options; what they mean, the installed version decides."""

    task_ids: tuple[TaskKey, ...] = ()
    """Empty: all."""
    pattern: str = ""
    """Instead of `task_ids`: what the option `--task-regex` of the command line is given."""
    start: datetime | None = None
    """With `end` a range of logical dates, instead of one run."""
    end: datetime | None = None
    upstream: bool = False
    downstream: bool = False
    past: bool = False
    future: bool = False
    only_failed: bool = False
    only_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A final state that a person gives to a task instance, or to the whole run."""

    state: str
    """`success`, `failed` or `skipped`."""
    task_id: str = ""
    """Empty: the run."""
    map_index: int | None = None
    """None: all of a mapped task."""
    upstream: bool = False
    downstream: bool = False
    past: bool = False
    future: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """A backfill of the intervals from one logical date to another, in the words of Airflow's own options."""

    start: datetime
    end: datetime
    reprocess: str = "none"
    """What becomes of runs that are there: `none`, `failed`, `completed`."""
    backwards: bool = False
    max_active_runs: int = 10


Action: TypeAlias = "Clear | Mark | Backfill"
"""What a person does to runs that have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A worker's, before anybody did anything."""

    run: RunKey
    task_id: str
    map_index: int
    kind: CrashKind = CrashKind.KILL
    due: tuple[datetime, ...] = ()
    """The logical dates of runs that the scheduler makes meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acted:
    """What came of it, and of what went on by itself then."""

    touched: tuple[str, ...]
    """The task instances that were cleared or marked: `task_id`, `task_id[map_index]`, behind `run_id/` if of another run."""
    world: WorldState
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashPoint:
    """The instant after one effect of an attempt and before its next."""

    name: str
    """As in `load@write:/data/out.csv#2`, `+torn` for a torn last write."""
    attempt: int
    effect: int
    """Index into `Recording.effects` of the last effect that became durable."""
    is_torn: bool = False
    has_ended: bool = False
    """Whether the attempt's success was recorded before."""
    loss: str = ""
    """What a power loss took away of what was there, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashState:
    """What the world holds when the worker dies: one of the crash points that leave the same."""

    point: CrashPoint
    world: WorldState
    covers: int
    """The number of crash points that leave this state."""
    number: int = 0
    """Its place among the distinct states of the attempt, in the order of execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All that is needed to run it again."""

    dag_id: str
    task_id: str
    map_index: int
    crash_point: str | None
    crash_kind: CrashKind | None
    recovery: RecoveryKind
    first: Scenario | None = None
    """The death before and the recovery from it, in which this one happens; None: there was none."""


# --- DAGs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    task_id: str
    operator: str
    downstream: tuple[str, ...]
    retries: int
    calls_back: bool = False
    """Whether code of the project is called when it has failed or is to be retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DagInfo:
    """What the checks need to know of a DAG before it runs."""

    dag_id: str
    file: str
    """Absolute path of the DAG file."""
    line: int
    tasks: tuple[TaskInfo, ...]
    """In topological order, ties by task id."""
    is_scheduled: bool
    """Whether the clock makes its runs, one per interval."""
    logical_date: datetime
    """Of its first interval; of an unscheduled DAG, its start date."""
    leads_to: frozenset[str] = frozenset()
    """What its runs may set off or wait for: `dag:child`, `asset:...`, `asset-alias:...`; `dag:*` is known at run time only."""
    set_off_by: frozenset[str] = frozenset()
    """The assets and aliases of its schedule, in the same words."""
    has_deadline: bool = False
    """Whether code is to be called when a run misses a deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedFile:
    """A DAG file after loading: its DAGs, or why there are none."""

    file: str
    dags: tuple[DagInfo, ...]
    error: str = ""
    """The user's traceback, cut to the user's frames; empty if the file loaded."""
    obstacles: tuple[Obstacle, ...] = ()


# --- verdicts ---------------------------------------------------------------------------------


class Verdict(_Word):
    """Worst first."""

    ERROR = "error"
    UNSAFE = "unsafe"
    KNOWN = "known"
    UNVERIFIABLE = "unverifiable"
    SKIPPED = "skipped"
    SAFE = "safe"


class Rule(_Word):
    DUPLICATE_OUTPUT = "duplicate-output"
    PARTIAL_OUTPUT_ACCEPTED = "partial-output-accepted"
    LOST_OUTPUT = "lost-output"
    STALE_OUTPUT = "stale-output"
    RERUN_FAILS = "rerun-fails"
    CLOCK_DEPENDENT = "clock-dependent"
    NONDETERMINISTIC_OUTPUT = "nondeterministic-output"
    PARSE_SIDE_EFFECT = "parse-side-effect"
    STALE_XCOM = "stale-xcom"
    ORDER_DEPENDENT = "order-dependent"
    WORKER_LOCAL_STATE = "worker-local-state"
    MASKED_FAILURE = "masked-failure"
    DAMAGED_CHECKPOINT = "damaged-checkpoint"
    DURABILITY = "durability"
    WRONG_OUTPUT = "wrong-output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output, after the clean run and after the rerun; None where it is missing."""

    output: str
    clean: str | None
    rerun: str | None
    summary: str
    """As a person would say it: `3 of 10 records twice`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule broken at one place."""

    rule: Rule
    dag_id: str
    task_id: str
    map_index: int
    crash_point: str | None
    crash_kind: CrashKind | None
    recovery: RecoveryKind | None
    file: str
    line: int
    summary: str
    differences: tuple[Difference, ...]
    replay: str
    """The command that reproduces it."""
    last_effect: str = ""
    """The last effect that became durable, in words."""
    next_effect: str = ""
    """The first that did not."""
    remedy: str = ""
    """What to do about it, with the place and the names; empty: what the rule says in general."""
    died_at: str = ""
    """Where the worker died, `file:line`, if the line to blame is another one."""
    before: tuple[str, ...] = ()
    """Deaths before this one, oldest first: `crash point (recovery)`."""
    others: int = 0
    """Scenarios folded into this one: same rule, same place."""
    known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much was tried. Crash points are executed lines of the project's code."""

    crash_points: int = 0
    distinct_states: int = 0
    explored: int = 0
    recoveries: int = 0
    exhaustive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The outcome of one test item."""

    dag_id: str
    file: str
    check: str
    verdict: Verdict
    reason: str | None = None
    findings: tuple[Finding, ...] = ()
    coverage: Coverage = Coverage()
    duration_s: float = 0.0
    notes: tuple[str, ...] = ()
    """Worth knowing but no finding."""
    masked: tuple[str, ...] = ()
    """Where values were masked that every run makes anew: one line per output."""
    crash_map: str = ""
    """One sign per distinct state that a crash can leave, in the order of execution: `.` all recoveries end well, `X` one
    does not, `?` nothing is known, `-` not tried; attempts apart by a space.
    """
