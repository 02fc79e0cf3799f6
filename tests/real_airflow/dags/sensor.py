"""A sensor dies in its second poke: the retry pokes on, with a try of its own."""

from __future__ import annotations

from airflow.sdk import BaseSensorOperator, dag
from crashes import ONE_DAY, OUT, RETRY, killed_here, note


class Waiting(BaseSensorOperator):
    def poke(self, context):
        note("poked")
        pokes = (OUT / "sensor.2024-01-01.wait").read_text().count("poked")
        if pokes == 2:
            killed_here()
        return pokes >= 3


@dag(**ONE_DAY)
def sensor():
    # Long enough for a busy scheduler to hear of one poke's end before it queues the next: else it takes that for a death.
    Waiting(task_id="wait", mode="reschedule", poke_interval=10, **RETRY)


sensor()
