"""Renders the pages of a site in a folder of the run's own, and puts the folder in place as a whole."""

from __future__ import annotations

import os
import shutil

import pendulum
from airflow.sdk import dag, task

SITE = "/data/workspace/site"


@dag(
    dag_id="workspace_unsafe",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def workspace() -> None:
    @task
    def render(run: str) -> None:
        folder = f"/data/workspace/{run}"
        os.makedirs(folder)
        for page in ("index", "about"):
            with open(f"{folder}/{page}.html", "w") as file:
                file.write(f"<h1>{page}</h1>\n")
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(SITE, ignore_errors=True)
        os.rename(folder, SITE)

    render("{{ ds }}")


workspace()
