"""Opens the accounts of those who signed up."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pendulum
from airflow.sdk import dag, task

DATA_DIR = "/data/accounts"


@dag(
    dag_id="accounts_fixed",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    schedule=None,
    catchup=False,
)
def accounts() -> None:
    @task
    def open_accounts() -> None:
        os.makedirs(DATA_DIR, exist_ok=True)
        with closing(sqlite3.connect(f"{DATA_DIR}/bank.db")) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS accounts (owner TEXT PRIMARY KEY, cents INTEGER)")
            for owner in ("ada", "grace", "mary"):
                connection.execute("INSERT OR IGNORE INTO accounts VALUES (?, 0)", [owner])
                connection.commit()

    open_accounts()


accounts()
