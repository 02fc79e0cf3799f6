"""Effects and attempts as the reader of a DAG's results knows them."""

from __future__ import annotations

from ..model import Attempt, Effect, Splice


def task_name(attempt: Attempt, dag_id: str) -> str:
    """The task of an attempt as the reader of a DAG's results knows it: of another DAG with that one's id."""
    return attempt.task_id if attempt.run[0] == dag_id else f"{attempt.run[0]}.{attempt.task_id}"


def outputs_of_effect(effect: Effect) -> tuple[str, ...]:
    """The names of the outputs that an effect changed, each once."""
    match effect.kind:
        case "trigger":
            return (f"runs:{effect.target}",)
        case "variable" | "variable-delete":
            return (f"variable:{effect.target}",)
    return tuple(dict.fromkeys(f"file:{path}" for path, _ in effect.files))


def describe_effect(effect: Effect) -> str:
    """An effect in words: `wrote 120 bytes to /data/out.csv`."""
    target = effect.target
    match effect.kind:
        case "write":
            return f"wrote {_size(effect):,} bytes to {target}"
        case "create":
            return f"created {target}, empty"
        case "truncate":
            return f"emptied {target}" if _size(effect) == 0 else f"cut {target}"
        case "commit":
            return f"committed a transaction to {target}"
        case "rename":
            return f"renamed a file to {target}"
        case "unlink" | "rmdir":
            return f"removed {target}"
        case "mkdir":
            return f"made the folder {target}"
        case "xcom":
            return f"pushed the XCom {target}"
        case "xcom-delete":
            return f"deleted the XCom {target} of an earlier try"
        case "variable":
            return f"set the Variable {target}"
        case "variable-delete":
            return f"deleted the Variable {target}"
        case "trigger":
            return f"triggered the DAG {target}"
        case "state":
            return f"was recorded as {target}"
        case kind:
            return f"{kind} {target}"


def _size(effect: Effect) -> int:
    return sum(len(change.data) for _, change in effect.files if isinstance(change, Splice))
