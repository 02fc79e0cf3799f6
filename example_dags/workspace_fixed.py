"""Renders the pages of a site in a folder of the attempt's own, and puts the folder in place as a whole."""

from __future__ import annotations

import os
import shutil
import tempfile

import pendulum
from airflow.sdk import dag, task

WORKSPACE = "/data/workspace"
SITE = f"{WORKSPACE}/site"


@dag(
    dag_id="workspace_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def workspace() -> None:
    @task
    def render(run: str) -> None:
        os.makedirs(WORKSPACE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=WORKSPACE) as own:
            folder = f"{own}/{run}"
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
