"""Tasks that wait: sensors and deferred tasks. Each DAG would end otherwise if Airflow's rule were another."""

from __future__ import annotations

import textwrap
from importlib.metadata import version

import pytest
from dag_projects import Project, Verdicts

from pytest_rerunsafe.fixtures import Run

HEAD = """\
import asyncio, os, time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from airflow.sdk import BaseOperator, BaseSensorOperator, PokeReturnValue, dag, get_current_context, task
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent

def publish(path, text, mode="w"):
    with open(path + ".part" if mode == "w" else path, mode) as out:
        out.write(text)
    if mode == "w":
        os.replace(path + ".part", path)

class File(BaseSensorOperator):
    def __init__(self, *, path, **options):
        super().__init__(**options)
        self.path = path

    def poke(self, context):
        return os.path.exists(self.path)
"""
AIRFLOW = tuple(version("apache-airflow-core").split(".")[:2])
STARTS = 3 if AIRFLOW >= ("3", "2") else 1
"""Starts at `execute` of a task with two retries: 3.1 keeps `next_method` on a retry, and so fails there again."""
DATA = "world.mkdir('/data')"


def in_dag(body: str, options: str = "") -> str:
    """A DAG file whose only DAG, `d`, has this body."""
    given = f'schedule="@daily", start_date=datetime(2024, 1, 1), catchup=False, {options}'
    return f"{HEAD}\n@dag({given})\ndef d():\n{textwrap.indent(textwrap.dedent(body), '    ')}\nd()\n"


def verdict_of(verdicts: Verdicts, check: str) -> tuple[str, str | None, list[str]]:
    result = verdicts[check]
    return str(result.verdict), result.reason, [f"{f.rule}: {f.summary}" for f in result.findings]


def assert_safe(verdicts: Verdicts, but: str = "") -> None:
    checks = {*verdicts.sampled.checks} - {but}
    assert {check: verdict_of(verdicts, check) for check in checks} == dict.fromkeys(
        checks, ("safe", None, [])
    )


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_sensor_waits_for_the_file_of_a_task_beside_it(dags: Project, mode: str) -> None:
    # `a_wait` comes before the task that it waits for, and both before it is ready.
    source = in_dag(
        f"""
        wait = File(task_id="a_wait", path="/data/in", mode="{mode}", poke_interval=60, timeout=3600)
        @task
        def b_write(): WRITE("/data/in", "1\\n")
        @task
        def c_read(): publish("/data/out", Path("/data/in").read_text())
        b_write()
        wait >> c_read()
        """
    )
    assert_safe(dags.check(f"beside_{mode}", source.replace("WRITE", "publish"), DATA))
    in_place = source.replace("WRITE(", "(lambda path, text: Path(path).write_text(text))(")
    half_done = dags.check(f"beside_{mode}_in_place", in_place, DATA)
    # A worker that dies before the first byte leaves a file that the sensor takes for the whole.
    assert {str(finding.rule) for finding in half_done["crash.b_write"].findings} == {"lost-output"}


WAITS_IN_VAIN = (
    "a_wait waits for something that does not come. "
    "Put it in place in `pytest_rerun_safety_prepare`, or `skip` the DAG with a reason."
)


@pytest.mark.parametrize("options", ['mode="poke"', 'mode="reschedule"', "deferrable=True"])
def test_a_file_that_never_comes_is_told(dags: Project, options: str) -> None:
    source = in_dag(
        f"""
        from airflow.providers.standard.sensors.filesystem import FileSensor
        FileSensor(task_id="a_wait", filepath="/data/in", fs_conn_id="fs", {options})
        """
    )
    loaded = dags.checker.load(dags.write("never", source, "world.set_connection('fs', 'fs://')"))
    result = dags.checker.run(loaded.dags[0], "clean")
    assert (str(result.verdict), result.reason, result.findings) == ("unverifiable", WAITS_IN_VAIN, ())


def test_who_waits_for_a_file_that_its_consumer_moves_away_cannot_be_cleared(dags: Project) -> None:
    source = in_dag(
        """
        wait = File(task_id="wait", path="/data/in", poke_interval=60)
        @task
        def load():
            if not os.path.exists("/data/out"):
                os.rename("/data/in", "/data/out")
        wait >> load()
        """
    )
    verdicts = dags.check("moved", source, "world.write('/data/in', '1')")
    assert {finding.rule.value for finding in verdicts["rerun"].findings} == {"rerun-fails"}
    assert verdicts["rerun"].findings[0].task_id == "wait"


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_sensor_times_out_without_a_retry_and_is_skipped_if_it_fails_softly(
    dags: Project, mode: str
) -> None:
    # The first poke of a try counts, not the last; other tasks go on meanwhile; no retry follows.
    source = in_dag(
        f"""
        given = dict(path="/data/in", mode="{mode}", poke_interval=60, timeout=600, retries=3)
        hard = File(task_id="hard", **given)
        soft = File(task_id="soft", soft_fail=True, **given)
        @task(trigger_rule="all_done")
        def after(ti=None, dag_run=None):
            states = ti.get_task_states("d", task_ids=["hard", "soft"], run_ids=[dag_run.run_id])
            assert states[dag_run.run_id] == {{"hard": "failed", "soft": "skipped"}}, states
            assert 600 < time.time() - dag_run.start_date.timestamp() < 900
            publish("/data/out", "1\\n")
        [hard, soft] >> after()
        """
    )
    assert clean(dags, f"timeout_{mode}", source) == ("safe", None, [])


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_the_time_out_of_a_sensor_begins_anew_with_a_clear(dags: Project, mode: str) -> None:
    source = in_dag(
        f"""
        class Never(BaseSensorOperator):
            def poke(self, context):
                publish("/data/pokes", f"{{context['ti'].try_number}}\\n", "a")
        Never(task_id="never", mode="{mode}", poke_interval=60, timeout=600, soft_fail=True)
        """
    )
    (dag,) = dags.checker.load(dags.write(f"timeout_again_{mode}", source, DATA)).dags
    run = Run(dags.checker, dag, dags.checker.begin(dag, 1))
    assert run.states["never"] == "skipped"
    first = run.outputs["file:/data/pokes"].split()
    assert len(first) > 5
    run.clear()
    assert run.outputs["file:/data/pokes"].split() == [*first, *[b"2"] * len(first)]


def test_time_passes_for_sensors_of_time(dags: Project) -> None:
    source = in_dag(
        """
        from airflow.providers.standard.sensors.date_time import DateTimeSensor, DateTimeSensorAsync
        from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor, TimeDeltaSensorAsync
        two = "{{ data_interval_end.add(hours=2).isoformat() }}"
        waits = [
            DateTimeSensor(task_id="poke", target_time=two),
            DateTimeSensor(task_id="reschedule", target_time=two, mode="reschedule"),
            DateTimeSensorAsync(task_id="deferred", target_time=two),
            TimeDeltaSensor(task_id="delta", delta=timedelta(hours=2)),
            TimeDeltaSensorAsync(task_id="deferred_delta", delta=timedelta(hours=2)),
        ]
        @task
        def after(data_interval_end=None):
            hours = (datetime.now(timezone.utc) - data_interval_end).total_seconds() / 3600
            publish("/data/out", str(2 <= hours < 48))
            assert hours >= 2, hours
        waits >> after()
        """
    )
    assert clean(dags, "time", source) == ("safe", None, [])


TRIGGERS = '''
import asyncio, os
from airflow.triggers.base import BaseTrigger, TriggerEvent

class Appears(BaseTrigger):
    """Fires with the content of a file once it is there."""
    def __init__(self, path):
        super().__init__()
        self.path = path

    def serialize(self):
        return "waiting_triggers.Appears", {"path": self.path}

    async def run(self):
        while not os.path.exists(self.path):
            await asyncio.sleep(30)
        with open(self.path) as file:
            yield TriggerEvent({"text": file.read()})

class Breaks(BaseTrigger):
    def serialize(self):
        return "waiting_triggers.Breaks", {}

    async def run(self):
        await asyncio.sleep(3600)
        raise RuntimeError("the service is down")
        yield

class Sleeps(BaseTrigger):
    def __init__(self, seconds, event=None):
        super().__init__()
        self.seconds, self.event = seconds, event

    def serialize(self):
        return "waiting_triggers.Sleeps", {"seconds": self.seconds, "event": self.event}

    async def run(self):
        import airflow.triggers.base as base
        await asyncio.sleep(self.seconds)
        yield getattr(base, self.event)() if self.event else TriggerEvent(self.seconds)
'''


@pytest.fixture(scope="module")
def triggers(dags: Project) -> Project:
    """The project with triggers in a module beside the DAG files."""
    (dags.root / "dags").mkdir(exist_ok=True)
    (dags.root / "dags" / "waiting_triggers.py").write_text(TRIGGERS)
    return dags


DEFERRING = """
    from waiting_triggers import Appears, Breaks, Sleeps
    class Load(BaseOperator):
        def execute(self, context):
            publish("/data/out", "started\\n", "MODE")
            context["ti"].xcom_push(key="before", value=1)
            self.defer(trigger=Appears("/data/in"), method_name="resume", kwargs={"more": [1]})

        def resume(self, context, event, more):
            assert context["ti"].xcom_pull(task_ids="load", key="before") == 1  # not cleared on resumption
            publish("/data/out", event["text"] + str(more), "a")
            return context["ti"].try_number
    @task
    def write(): publish("/data/in", "1\\n")
    Load(task_id="load")
    write()
"""


def test_a_deferred_task_starts_at_execute_when_it_is_rerun(triggers: Project) -> None:
    # Runs that are due at once write to one file by turns: each waits for its trigger between two lines.
    assert_safe(triggers.check("deferring", in_dag(DEFERRING.replace("MODE", "w")), DATA), but="backfill")


def test_what_execute_appends_before_it_defers_is_there_twice(triggers: Project) -> None:
    verdicts = triggers.check("deferring_twice", in_dag(DEFERRING.replace("MODE", "a")), DATA)
    assert {f.rule.value for f in verdicts["crash.load"].findings} == {"duplicate-output"}
    # A crash after the resumption counts too: it does not go on where it was.
    assert any("started" in str(d) for f in verdicts["crash.load"].findings for d in f.differences)


def clean(project: Project, name: str, source: str) -> tuple[str, str | None, list[str]]:
    """The check `clean` alone."""
    return verdict_of(project.check(name, source, DATA), "clean")


def test_a_trigger_in_the_dag_file_cannot_be_loaded_by_the_triggerer(triggers: Project) -> None:
    source = in_dag(
        """
        class Mine(BaseTrigger):
            def serialize(self):
                return f"{__name__}.Mine", {}
            async def run(self):
                yield TriggerEvent(1)
        globals()["Mine"] = Mine
        class Load(BaseOperator):
            def execute(self, context):
                self.defer(trigger=Mine(), method_name="resume")
            def resume(self, context, event):
                pass
        Load(task_id="load")
        """
    )
    verdict, reason, _ = clean(triggers, "in_the_file", source)
    assert verdict == "error"
    assert "TaskDeferralError: Trigger failure" in str(reason)


FAILING = """
    from waiting_triggers import Appears, Breaks, Sleeps
    class Load(BaseOperator):
        def __init__(self, *, seconds=None, **options):
            super().__init__(**options)
            self.seconds = seconds
        def execute(self, context):
            now = datetime.now(timezone.utc).timestamp()
            tries = (Path("/data/tries").read_text() if os.path.exists("/data/tries") else "") + "x"
            publish("/data/tries", tries)
            self.defer(DEFER, method_name="resume")
        def resume(self, context, event):
            publish("/data/resumed", "1")
    load = Load(task_id="load", retries=2, retry_delay=timedelta(minutes=1))
    @task(trigger_rule="all_done")
    def after(ti=None, dag_run=None):
        state = ti.get_task_states("d", task_ids=["load"], run_ids=[dag_run.run_id])[dag_run.run_id]["load"]
        tries = len(Path("/data/tries").read_text())
        assert (state, tries, os.path.exists("/data/resumed")) == EXPECTED, (state, tries)
    load >> after()
"""


@pytest.mark.parametrize(
    ("name", "defer", "expected"),
    [
        ("breaks", "trigger=Breaks()", ("failed", STARTS, False)),
        ("times_out", "trigger=Sleeps(7200), timeout=timedelta(hours=1)", ("failed", STARTS, False)),
        ("in_time", "trigger=Sleeps(1800), timeout=timedelta(hours=1)", ("success", 1, True)),
        ("succeeds", "trigger=Sleeps(60, 'TaskSuccessEvent')", ("success", 1, False)),
        ("skips", "trigger=Sleeps(60, 'TaskSkippedEvent')", ("skipped", 1, False)),
    ],
)
def test_airflow_decides_what_the_end_of_a_trigger_means(
    triggers: Project, name: str, defer: str, expected: tuple[str, int, bool]
) -> None:
    source = in_dag(FAILING.replace("DEFER", defer).replace("EXPECTED", repr(expected)))
    assert clean(triggers, f"trigger_{name}", source) == ("safe", None, [])


def test_triggers_wait_at_the_same_time(triggers: Project) -> None:
    source = in_dag(
        """
        from waiting_triggers import Sleeps
        class Wait(BaseOperator):
            def __init__(self, *, seconds, **options):
                super().__init__(**options)
                self.seconds = seconds
            def execute(self, context):
                self.defer(trigger=Sleeps(self.seconds), method_name="resume")
            def resume(self, context, event):
                publish("/data/out", f"{event}\\n", "a")
        waits = [Wait(task_id=f"w{n}", seconds=n) for n in (3600, 60, 1800)]
        sensor = File(task_id="sensor", path="/data/out", mode="reschedule", poke_interval=7)
        @task
        def after(dag_run=None):
            assert Path("/data/out").read_text() == "60\\n1800\\n3600\\n"
            assert 3600 < time.time() - dag_run.start_date.timestamp() < 3900
        [*waits, sensor] >> after()
        """
    )
    assert clean(triggers, "at_once", source) == ("safe", None, [])


@pytest.mark.skipif(
    AIRFLOW < ("3", "3"), reason="before 3.3 Airflow's scheduler leaves start_from_trigger alone"
)
def test_a_task_may_start_in_the_triggerer(triggers: Project) -> None:
    source = in_dag(
        """
        class Load(BaseOperator):
            start_trigger_args = StartTriggerArgs(
                trigger_cls="waiting_triggers.Sleeps",
                trigger_kwargs={"seconds": 600, "event": None},
                next_method="resume",
                next_kwargs=None,
                timeout=None,
            )
            start_from_trigger = True
            def execute(self, context):
                raise AssertionError
            def resume(self, context, event):
                publish("/data/out", str(event))
        Load(task_id="load")
        """
    )
    assert_safe(triggers.check("from_trigger", source, DATA))


def test_a_trigger_asks_for_what_airflow_knows(triggers: Project) -> None:
    module = triggers.root / "dags" / "asking_triggers.py"
    module.write_text(
        textwrap.dedent(
            """
            from airflow.sdk import Variable
            from airflow.triggers.base import BaseTrigger, TriggerEvent
            class Asks(BaseTrigger):
                def serialize(self):
                    return "asking_triggers.Asks", {}
                async def run(self):
                    yield TriggerEvent(Variable.get("where"))
            """
        )
    )
    source = in_dag(
        """
        from asking_triggers import Asks
        class Load(BaseOperator):
            def execute(self, context):
                self.defer(trigger=Asks(), method_name="resume")
            def resume(self, context, event):
                assert event == "there"
        Load(task_id="load")
        """
    )
    loaded = triggers.checker.load(triggers.write("asks", source, "world.set_variable('where', 'there')"))
    result = triggers.checker.run(loaded.dags[0], "clean")
    assert (str(result.verdict), result.reason) == ("safe", None)
