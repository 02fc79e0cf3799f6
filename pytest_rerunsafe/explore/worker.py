"""The loop of a forked worker: a job in, a result out. Whatever a DAG does, it does it here."""

from __future__ import annotations

import threading
import traceback
from contextlib import suppress
from typing import Any

from ..model import Obstacle
from ..world.guard import limit_resources
from .channel import Channel, Closed
from .engine import Engine, NotRun
from .jobs import ActJob, FindJob, Job, LoadJob, RecordJob, RecordRecoveryJob, RecoverJob
from .messages import Alive, Done, Failed, HitBound


def serve(engine: Engine, channel: Channel) -> None:
    """Do jobs until the other side goes."""
    limit_resources()
    engine.sandbox.hide(channel.fileno())
    engine.processes.attempts.on_start = lambda: channel.send(Alive())
    engine.sandbox.on_bound = lambda obstacle: _give_up(engine, channel, obstacle)
    try:
        while True:
            answer = _answer(engine, channel.receive())
            channel.send(answer)
            if isinstance(answer, Done) and answer.is_last:
                return
    except Closed:
        return


def _answer(engine: Engine, job: Job) -> Done | Failed:
    try:
        return Done(_do(engine, job), is_last=threading.active_count() > 1)
    except NotRun as reason:
        return Failed(str(reason))
    except MemoryError:
        return Failed("The run needed more memory than it may have (2 GiB).")
    except Exception:
        return Failed(f"pytest-rerunsafe failed; please report this:\n{traceback.format_exc()}")
    finally:
        engine.sandbox.forget()  # the answer is sent with functions that the DAG may have replaced


def _do(engine: Engine, job: Job) -> Any:
    match job:
        case FindJob():
            return engine.find(job)
        case LoadJob():
            return engine.load(job)
        case RecordJob():
            return engine.record(job)
        case RecoverJob():
            return engine.recover(job)
        case RecordRecoveryJob():
            return engine.record_recovery(job)
        case ActJob():
            return engine.act(job)


def _give_up(engine: Engine, channel: Channel, obstacle: Obstacle) -> None:
    with engine.sandbox.unguarded():
        try:
            with suppress(Exception):  # in the depth of a recursion, not all can be put back
                engine.sandbox.forget()
            channel.send(HitBound(obstacle))
        finally:
            engine.sandbox.exit_now()
