"""A pytest plugin that proves or disproves that Airflow DAGs survive crashes and reruns.

Only the version lives here; nothing may be imported, for pytest imports this package at every start.
"""

from __future__ import annotations

__version__ = "0.1.0"
