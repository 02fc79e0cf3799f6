"""Which rule a scenario breaks, and what each rule says; running and formatting are elsewhere."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..model import Difference, Rule
from . import tables
from .formats import (
    Format,
    Outputs,
    RecordChanges,
    common_format,
    compare_records,
    record_pair,
    records,
    shared_start,
    unreadable,
)

DECISION = "/skipmixin_key"
"""How the names of XComs end in which Airflow keeps what a branch decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one scenario showed. All outputs are masked already."""

    clean: Outputs
    rerun: Outputs
    crash: Outputs = field(default_factory=dict)
    """What stood there when the worker died; without a crash, what the first run left."""
    differences: tuple[Difference, ...] = ()
    rerun_state: str = "success"
    """`success`, `failed` or `stuck`."""
    written_after: tuple[str, ...] = ()
    """The outputs that the crashed attempt changed durably, one name per effect, in their order."""
    swallowed_errors: bool = False
    """The recovery's attempts had failing file operations that the clean run had not, and ended green."""
    stale_xcom_reads: bool = False
    """The recovery read, or missed, an XCom of an earlier attempt where the clean run read its own."""
    same_day_is_fine: bool | None = None
    """The same recovery on the same day gave no difference, this one a day later does; None: not tried."""
    is_other_order: bool = False
    """Several intervals ran otherwise than once each in order, and a rerun of one of them alone makes no difference."""
    is_local: bool = False
    """The same recovery on the worker of the first attempt, which has its local files, makes no difference."""
    has_ended: bool = False
    """The worker died after the success of its task was recorded, and nobody ran that again."""
    is_damaged: bool = False
    """The crash left a file in the middle of a change, the crashed task read it so when it ran again, and with the file
    whole, as it was before the change or would have been after it, the same recovery ends well, or at least ends."""
    is_power_loss: bool = False
    """What was not synced was lost, and a kill at the same place does no harm."""
    is_by_callback: bool = False
    """Callbacks of the failure made all that differs."""
    by_chance: str = ""
    """An output, a failing task or the XCom of a branch's decision, not as in the clean run, nor is it in one that draws
    the random numbers of this rerun; empty if there is none."""
    exited_green: bool = False
    """A task's process ended with exit code 0 without a report."""


# --- the decision -----------------------------------------------------------------------------


def classify(evidence: Evidence) -> Rule:
    """The rule broken by a scenario that did not finish or whose outputs differ; the first that matches."""
    return next((rule for rule, holds in _DECISIONS if holds(evidence)), Rule.WRONG_OUTPUT)


def _is_durability(evidence: Evidence) -> bool:
    """`durability`: only after a power loss; data was never synced before it was announced."""
    return evidence.is_power_loss


def _is_order_dependent(evidence: Evidence) -> bool:
    """`order-dependent`: the result depends on the order in which intervals run, and on that alone."""
    return evidence.is_other_order


def _is_worker_local(evidence: Evidence) -> bool:
    """`worker-local-state`: a rerun on another worker lacks the local files of the first."""
    return evidence.is_local


def _is_acknowledged_too_early(evidence: Evidence) -> bool:
    """`lost-output`: the task was recorded as success before its output was complete, and nobody makes the rest."""
    return evidence.has_ended


def _is_damaged_checkpoint(evidence: Evidence) -> bool:
    """`damaged-checkpoint`: what a task keeps for its own next attempt is damaged, and breaks that attempt."""
    return evidence.is_damaged


def _is_rerun_failing(evidence: Evidence) -> bool:
    """`rerun-fails`: the rerun cannot finish."""
    return evidence.rerun_state != "success"


def _is_clock_dependent(evidence: Evidence) -> bool:
    """`clock-dependent`: what is produced depends on when the rerun happens, and on that alone."""
    return evidence.same_day_is_fine is True


def _is_nondeterministic(evidence: Evidence) -> bool:
    """`nondeterministic-output`: a clean run that draws what the rerun drew differs too."""
    return bool(evidence.by_chance)


def _is_stale_xcom(evidence: Evidence) -> bool:
    """`stale-xcom`: the rerun used, or missed, an XCom of an earlier attempt."""
    if evidence.stale_xcom_reads:
        return True
    names = [difference.output for difference in evidence.differences]
    return bool(names) and all(name.startswith("xcom:") and _is_as_crashed(evidence, name) for name in names)


def _is_announced_too_early(evidence: Evidence) -> bool:
    """`lost-output`: a marker or checkpoint became durable before the data did, and the rerun believed it."""
    return any(announcement(evidence, name) for name in _accepted(evidence))


def _is_partial_accepted(evidence: Evidence) -> bool:
    """`partial-output-accepted`: the crash left a torn or empty output and the rerun took it as complete."""
    return bool(_accepted(evidence))


def _is_masked_failure(evidence: Evidence) -> bool:
    """`masked-failure`: a task ended green although its output is missing."""
    is_hidden = evidence.swallowed_errors or evidence.exited_green
    return is_hidden and _is_lost(evidence)


def _is_lost(evidence: Evidence) -> bool:
    """`lost-output`: output is missing, whatever else is there twice: a loss is worse."""
    return any(_lacks(evidence, name) for name in _weighty(evidence))


def _is_duplicate(evidence: Evidence) -> bool:
    """`duplicate-output`: records or bytes are there more often than after a clean run."""
    return any(_repeats(evidence, name) for name in _weighty(evidence))


def _is_stale(evidence: Evidence) -> bool:
    """`stale-output`: something of an earlier attempt stays in the result."""
    return any(_holds_remains(evidence, name) for name in _weighty(evidence))


_DECISIONS = (
    (Rule.DURABILITY, _is_durability),
    (Rule.ORDER_DEPENDENT, _is_order_dependent),
    (Rule.WORKER_LOCAL_STATE, _is_worker_local),
    (Rule.LOST_OUTPUT, _is_acknowledged_too_early),
    (Rule.DAMAGED_CHECKPOINT, _is_damaged_checkpoint),
    (Rule.NONDETERMINISTIC_OUTPUT, _is_nondeterministic),
    (Rule.RERUN_FAILS, _is_rerun_failing),
    (Rule.CLOCK_DEPENDENT, _is_clock_dependent),
    (Rule.STALE_XCOM, _is_stale_xcom),
    (Rule.LOST_OUTPUT, _is_announced_too_early),
    (Rule.PARTIAL_OUTPUT_ACCEPTED, _is_partial_accepted),
    (Rule.MASKED_FAILURE, _is_masked_failure),
    (Rule.LOST_OUTPUT, _is_lost),
    (Rule.DUPLICATE_OUTPUT, _is_duplicate),
    (Rule.STALE_OUTPUT, _is_stale),
)

# --- what the outputs say ----------------------------------------------------------------------


def _weighty(evidence: Evidence) -> tuple[str, ...]:
    """The outputs to judge by: files and Variables; XComs only if nothing else differs."""
    names = tuple(difference.output for difference in evidence.differences)
    return tuple(name for name in names if not name.startswith("xcom:")) or names


def _content(outputs: Outputs, name: str) -> bytes | None:
    return outputs[name].content if name in outputs else None


def _is_as_crashed(evidence: Evidence, name: str) -> bool:
    return name in evidence.crash and _content(evidence.rerun, name) == _content(evidence.crash, name)


def _accepted(evidence: Evidence) -> tuple[str, ...]:
    """The outputs that the crashed attempt left empty or in part, and that the rerun left so."""
    own = frozenset(evidence.written_after)
    return tuple(name for name in _weighty(evidence) if name in own and _is_left_in_part(evidence, name))


def _is_left_in_part(evidence: Evidence, name: str) -> bool:
    clean = _content(evidence.clean, name)
    return (
        clean is not None
        and _is_as_crashed(evidence, name)
        and _is_part(name, clean, evidence.crash[name].content)
    )


def _is_part(name: str, clean: bytes, left: bytes) -> bool:
    if _is_beginning(name, clean, left):
        return True
    changes = compare_records(*record_pair(name, clean, left))
    is_less = bool(changes.missing) and not changes.repeated and not changes.foreign
    return is_less and not (_is_database(name, clean, left) and tables.empties_a_table(clean, left))


def _is_database(name: str, clean: bytes, rerun: bytes) -> bool:
    return common_format(name, clean, rerun) is Format.TABLES


_TORN_TOKEN = re.compile(rb"[0-9A-Za-z:.,+ _-]{1,40}")
_MASKED = (b"<time>", b"<id>", b'"<time>"', b'"<id>"')


def _is_beginning(name: str, clean: bytes, left: bytes) -> bool:
    """Whether it is the clean content cut off; a time or an id that was cut in two is not masked in it."""
    if unreadable(clean, left):
        return True  # what it holds nobody gets at
    if common_format(name, clean, left) in (Format.JSON, Format.TABLES):
        return False  # 1 is not the torn half of 12
    same = shared_start(clean, left)
    if same == len(left):
        return len(left) < len(clean)
    return clean.startswith(_MASKED, same) and bool(_TORN_TOKEN.fullmatch(left, same))


def announcement(evidence: Evidence, name: str) -> str | None:
    """What the crashed attempt made durable after it had begun this output, as a sign of completion."""
    if name not in evidence.written_after:
        return None
    begun = evidence.written_after.index(name)
    later = evidence.written_after[begun + 1 :]
    changed = frozenset(difference.output for difference in evidence.differences)
    candidates = sorted(frozenset(later) - changed - {name})
    return next((other for other in candidates if _announces(evidence, other, later.count(other))), None)


def _announces(evidence: Evidence, name: str, changes: int) -> bool:
    """Complete as a marker is at once, or written again and again as a checkpoint is."""
    if name.startswith("xcom:") or name not in evidence.crash:
        return False
    return changes > 1 or _content(evidence.crash, name) == _content(evidence.clean, name)


def _changes(evidence: Evidence, name: str) -> RecordChanges | None:
    """How the records of an output that is there both times changed."""
    clean, rerun = _content(evidence.clean, name), _content(evidence.rerun, name)
    return None if clean is None or rerun is None else compare_records(*record_pair(name, clean, rerun))


def _lacks(evidence: Evidence, name: str) -> bool:
    """Missing as a whole, or records of it while all others are known; torn records are no others."""
    clean, rerun = _content(evidence.clean, name), _content(evidence.rerun, name)
    if clean is None or rerun is None:
        return rerun is None
    if _is_beginning(name, clean, rerun):
        return True
    if _is_repeated(name, clean, rerun):
        return False
    return any(
        changes.missing and _are_torn(changes.foreign, name, clean, rerun)
        for changes in _changes_by_part(name, clean, rerun)
    )


def _repeats(evidence: Evidence, name: str) -> bool:
    clean, rerun = _content(evidence.clean, name), _content(evidence.rerun, name)
    if clean is None or rerun is None:
        is_left = name in evidence.crash and name not in evidence.clean  # nobody has written it a second time
        return bool(rerun) and not is_left and not _is_temporary(name) and rerun in _contents(evidence.clean)
    is_more = any(
        changes.repeated and _are_torn(changes.foreign, name, clean, rerun)
        for changes in _changes_by_part(name, clean, rerun)
    )
    return is_more or _is_repeated(name, clean, rerun)


def _changes_by_part(name: str, clean: bytes, rerun: bytes) -> list[RecordChanges]:
    """How the records changed: of a database table by table."""
    if _is_database(name, clean, rerun):
        return [compare_records(*pair) for pair in tables.pairs(clean, rerun).values()]
    return [compare_records(*record_pair(name, clean, rerun))]


def _is_repeated(name: str, clean: bytes, rerun: bytes) -> bool:
    """Whether the clean content stands there in full and a part of it, or all, once more."""
    form = common_format(name, clean, rerun)
    if form in (Format.JSON, Format.TABLES) or len(rerun) <= len(clean) or not clean:
        return False
    before = rerun
    while before.endswith(clean):
        before = before.removesuffix(clean)
    return (before != rerun and clean.startswith(before)) or (form.is_by_lines and _is_inserted(clean, rerun))


def _is_inserted(clean: bytes, rerun: bytes) -> bool:
    """Whether records of the clean content, the last perhaps torn, stand among its lines once more."""
    more = len(rerun) - len(clean)
    last = shared_start(clean, rerun)
    first = len(clean) - shared_start(clean[::-1], rerun[::-1])
    starts = [place.end() for place in re.finditer(rb"^", clean[: last + 1], re.MULTILINE)]
    known = b"\n" + clean
    return any(b"\n" + rerun[start : start + more] in known for start in starts if first <= start <= last)


_TORN_LIMIT = 8
"""One crash tears one record, a few crashes a few; more are no torn records."""


def _are_torn(foreign: Sequence[bytes], name: str, clean: bytes, rerun: bytes) -> bool:
    """Whether all records that the clean run does not know are known ones that a crash tore."""
    if not foreign:
        return True
    known = records(name, clean)
    is_possible = common_format(name, clean, rerun).is_by_lines and len(foreign) <= _TORN_LIMIT
    return is_possible and all(_is_torn(record, known) for record in foreign)


def _is_torn(record: bytes, known: Sequence[bytes]) -> bool:
    """Whether it is the first part of one record with another one behind it: the line break was lost."""
    heads = [record.removesuffix(other) for other in known if len(other) > 2 and record.endswith(other)]
    return any(other.startswith(head) for head in heads if head for other in known)


_TEMPORARY = re.compile(
    r"(?i)(?:^|[._-])(?:tmp|temp|part|partial|bak|backup|orig|old|swp|inprogress)(?:[._\d-]|$)|~$"
)


def _is_temporary(name: str) -> bool:
    return bool(_TEMPORARY.search(posixpath.basename(name)))


def _contents(outputs: Outputs) -> frozenset[bytes]:
    return frozenset(output.content for output in outputs.values())


def _holds_remains(evidence: Evidence, name: str) -> bool:
    """What a clean run does not make, all of which an earlier attempt had left."""
    if name not in evidence.clean:
        return name in evidence.crash
    changes = _changes(evidence, name)
    if changes is None or not changes.foreign:
        return False
    return frozenset(changes.foreign) <= _left_records(evidence)


def _left_records(evidence: Evidence) -> frozenset[bytes]:
    """The records of all that stood there: what a rerun picks up again often lay in another file."""
    return frozenset(
        record for name, left in evidence.crash.items() for record in records(name, left.content)
    )


# --- the texts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleText:
    """What a rule says to its reader."""

    title: str
    explanation: str
    remedy: str
    unsafe: str
    """A few lines of Python that break it."""
    safe: str
    """The same lines, fixed."""


RULES: Mapping[Rule, RuleText] = {
    Rule.DUPLICATE_OUTPUT: RuleText(
        title="The rerun writes output a second time",
        explanation=(
            "Records or bytes are there more often than after a clean run: the task adds to what the "
            "earlier attempt had already written."
        ),
        remedy=(
            "Replace instead of append: write the whole output to a temporary file and move it over "
            "the old one with os.replace, or delete this interval's records first and insert them in "
            "the same transaction."
        ),
        unsafe=('with open(path, "a") as out:\n    out.writelines(rows)'),
        safe=(
            'with open(path + ".tmp", "w") as out:\n    out.writelines(rows)\nos.replace(path + ".tmp", path)'
        ),
    ),
    Rule.PARTIAL_OUTPUT_ACCEPTED: RuleText(
        title="The rerun takes a torn or empty output as complete",
        explanation=(
            "The worker died while the output was being written. The rerun found it there and left "
            "it, although it is only a part."
        ),
        remedy=(
            "Write to a temporary file in the same folder and move it into place with os.replace when"
            " it is complete: then a file that exists is whole."
        ),
        unsafe=(
            'if not os.path.exists(path):\n    with open(path, "w") as out:\n        json.dump(data, out)'
        ),
        safe=(
            "if not os.path.exists(path):\n"
            '    with open(path + ".tmp", "w") as out:\n'
            "        json.dump(data, out)\n"
            '    os.replace(path + ".tmp", path)'
        ),
    ),
    Rule.LOST_OUTPUT: RuleText(
        title="Output is missing after the rerun",
        explanation=(
            "A marker, a checkpoint or a delete became durable before the data did. The rerun "
            "believed it and did not make the data again."
        ),
        remedy=(
            "Make the data durable first: flush and close the output before writing the checkpoint or"
            " marker, and delete a source only when its result is in place."
        ),
        unsafe=(
            'out.write(line)\nwith open(checkpoint, "w") as mark:\n    json.dump({"done": number}, mark)'
        ),
        safe=(
            "out.write(line)\n"
            "out.flush()\n"
            "os.fsync(out.fileno())\n"
            'with open(checkpoint + ".tmp", "w") as mark:\n'
            '    json.dump({"done": number}, mark)\n'
            'os.replace(checkpoint + ".tmp", checkpoint)'
        ),
    ),
    Rule.STALE_OUTPUT: RuleText(
        title="Something of an earlier attempt stays in the result",
        explanation=(
            "Files, records or keys that the dead attempt left behind are still there, or were picked"
            " up, after the rerun; a clean run has none of them."
        ),
        remedy=(
            "Clear the task's own target at the start of each attempt: empty its folder or partition,"
            " overwrite under fixed names, and list no files that this attempt did not write."
        ),
        unsafe=("os.makedirs(folder, exist_ok=True)\nwrite_parts(folder)\nmerge(os.listdir(folder))"),
        safe=(
            "shutil.rmtree(folder, ignore_errors=True)\n"
            "os.makedirs(folder)\n"
            "write_parts(folder)\n"
            "merge(sorted(os.listdir(folder)))"
        ),
    ),
    Rule.RERUN_FAILS: RuleText(
        title="The rerun cannot finish",
        explanation=(
            "What the earlier attempt left, or took away, stops the rerun: a target exists already, a"
            " source is gone, a key is violated, a lock is held. Someone has to clean up by hand."
        ),
        remedy=(
            "Make each step pass if it has been done already: exist_ok=True, os.replace instead of "
            "os.rename and mkdir, upsert instead of insert, and keep sources until the result is in "
            "place."
        ),
        unsafe=("os.mkdir(folder)\nos.rename(inbox, folder + name)"),
        safe=(
            "os.makedirs(folder, exist_ok=True)\n"
            "if os.path.exists(inbox):\n"
            "    os.replace(inbox, folder + name)"
        ),
    ),
    Rule.CLOCK_DEPENDENT: RuleText(
        title="What is produced depends on when the task runs",
        explanation=(
            "File names, the number of records or values follow the wall clock, so a rerun on another"
            " day processes another day or writes to another place."
        ),
        remedy=(
            "Take dates from the run, not from the clock: use the logical_date, data_interval_start "
            "or ds of the task's context in place of datetime.now() and date.today()."
        ),
        unsafe='path = f"/data/{date.today()}.csv"',
        safe="path = f\"/data/{context['ds']}.csv\"",
    ),
    Rule.NONDETERMINISTIC_OUTPUT: RuleText(
        title="Two clean runs give different results",
        explanation=(
            "Without any crash, two runs on the same input differ in what matters: random values, a "
            "fresh uuid in a file name, the order of a set."
        ),
        remedy=(
            "Derive what varies from the run: seed random with the run_id, use uuid5 of the record's "
            "key in place of uuid4, sort sets and directory listings before writing them."
        ),
        unsafe=('path = f"/data/{uuid4()}.json"\nnames = list({row["name"] for row in rows})'),
        safe=(
            'path = f"/data/{uuid5(NAMESPACE_URL, run_id)}.json"\n'
            'names = sorted({row["name"] for row in rows})'
        ),
    ),
    Rule.PARSE_SIDE_EFFECT: RuleText(
        title="Loading the DAG file changes data",
        explanation=(
            "Code at the top level of the DAG file writes, changes or removes data. Airflow loads the"
            " file every few seconds and again in each attempt, so it happens in the middle of runs."
        ),
        remedy="Move the code into a task; leave only definitions at the top level of the file.",
        unsafe=('Path("/data/input.json").write_text(json.dumps(items))\n\nwith DAG("orders"): ...'),
        safe=(
            'with DAG("orders"):\n'
            "\n"
            "    @task\n"
            "    def prepare():\n"
            '        Path("/data/input.json").write_text(json.dumps(items))'
        ),
    ),
    Rule.STALE_XCOM: RuleText(
        title="The rerun used or missed an XCom of an earlier attempt",
        explanation=(
            "Airflow deletes a task's XComs when its next attempt starts, not when it is cleared. A "
            "task that reads its own or another's XCom outside their dependency sees an old value or "
            "none."
        ),
        remedy=(
            "Pass values as arguments between dependent tasks so that the reader runs after the "
            "writer, and keep what must outlive an attempt in a file or table, not in an XCom."
        ),
        unsafe='offset = ti.xcom_pull(task_ids=ti.task_id, key="offset") or 0',
        safe="offset = read_offset(path)  # a file, replaced atomically after each batch",
    ),
    Rule.ORDER_DEPENDENT: RuleText(
        title="The result depends on the order in which intervals run",
        explanation=(
            "An interval reads or overwrites what another interval has written, so a backfill, a catchup or "
            "a clear of an old run ends with other data than the intervals run once each, oldest first."
        ),
        remedy=(
            "Let each interval read its own input and write its own output, named by ds or "
            "data_interval_start. If it must build on the one before, set depends_on_past=True on "
            "its tasks and max_active_runs=1 on the DAG; let a file that says what is latest never "
            "go back to an older date."
        ),
        unsafe=(
            'total = int(Path(f"/data/{yesterday}.total").read_text()) + sum(amounts)\n'
            'Path(f"/data/{ds}.total").write_text(str(total))'
        ),
        safe=(
            'days = [day for day in all_days("/data/in") if day <= ds]\n'
            'Path(f"/data/{ds}.total").write_text(str(sum(map(amount_of, days))))'
        ),
    ),
    Rule.WORKER_LOCAL_STATE: RuleText(
        title="A task needs what another task left in its process or on its worker",
        explanation=(
            "Tasks run in processes of their own, often on other machines, and a rerun starts afresh:"
            " globals, environment variables, the current folder and local files of another task are not there."
        ),
        remedy=("Hand the value over: return it (XCom), or write it to shared storage and return its path."),
        unsafe=("CACHE = {}\n\n@task\ndef extract():\n    CACHE['rows'] = fetch()"),
        safe=("@task\ndef extract():\n    return fetch()"),
    ),
    Rule.MASKED_FAILURE: RuleText(
        title="A task ended green although its output is missing",
        explanation=(
            "The rerun met an error, swallowed it or left with exit code 0, and Airflow recorded a "
            "success. Nobody is told that the output is not there."
        ),
        remedy=(
            "Let errors reach Airflow: catch only what you handle, raise the rest again, and end a "
            "task by returning or raising, never with os._exit."
        ),
        unsafe=("try:\n    rows = load(path)\nexcept OSError:\n    rows = []"),
        safe="rows = load(path)",
    ),
    Rule.DAMAGED_CHECKPOINT: RuleText(
        title="A damaged checkpoint file breaks the rerun or its result",
        explanation=(
            "The worker died while it wrote the file that tells the next attempt where to go on. The rerun read it "
            "empty, torn or garbled, and failed or began at the wrong place."
        ),
        remedy=(
            "Write the checkpoint to a temporary file in the same folder and move it over the old one with "
            "os.replace: then it is the old one or the new one, never a half."
        ),
        unsafe='with open(checkpoint, "w") as file:\n    json.dump({"done": number}, file)',
        safe=(
            'with open(checkpoint + ".tmp", "w") as file:\n'
            '    json.dump({"done": number}, file)\n'
            'os.replace(checkpoint + ".tmp", checkpoint)'
        ),
    ),
    Rule.DURABILITY: RuleText(
        title="Only after a power loss: data was announced before it was synced",
        explanation=(
            "What is written stays in memory for some seconds, and a name may be on disk before the content is. If the power "
            "goes then, a task that was recorded as a success has lost its output, or a rerun takes what is left for whole."
        ),
        remedy=(
            "Before anything says that the output is there: flush the file and os.fsync its descriptor, move it into place "
            "with os.replace, and os.fsync a descriptor of its folder (os.open(folder, os.O_RDONLY)). If the storage "
            "under it can lose no power, choose the profile default, which does not ask for this."
        ),
        unsafe=(
            'with open(path + ".tmp", "w") as out:\n    out.writelines(rows)\nos.replace(path + ".tmp", path)'
        ),
        safe=(
            'with open(path + ".tmp", "w") as out:\n'
            "    out.writelines(rows)\n"
            "    out.flush()\n"
            "    os.fsync(out.fileno())\n"
            'os.replace(path + ".tmp", path)\n'
            "folder = os.open(os.path.dirname(path), os.O_RDONLY)\n"
            "os.fsync(folder)\n"
            "os.close(folder)"
        ),
    ),
    Rule.WRONG_OUTPUT: RuleText(
        title="The rerun gives another result",
        explanation=(
            "The outputs differ from those of a clean run in a way that is neither loss nor "
            "repetition, often because the task reads and changes its own earlier result."
        ),
        remedy=(
            "Compute the result from the inputs alone and overwrite the old one; don't update in "
            "place what an earlier attempt may have updated already."
        ),
        unsafe='state["total"] += sum(amounts)',
        safe='state["total"] = sum(amounts)',
    ),
}
