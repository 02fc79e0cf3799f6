"""One of two tasks side by side dies; what failed is cleared, what did well is not."""

from __future__ import annotations

from airflow.sdk import dag, task
from crashes import ONE_DAY, killed_here, note


@dag(**ONE_DAY)
def clear_failed():
    @task
    def steady(ti=None):
        note("done")
        return ti.try_number

    @task
    def shaky(ti=None):
        note("begun")
        killed_here()
        note("done")
        return ti.try_number

    @task
    def report(steady_by, shaky_by):
        note(f"steady done by try {steady_by}, shaky by try {shaky_by}")

    report(steady(), shaky())


clear_failed()
