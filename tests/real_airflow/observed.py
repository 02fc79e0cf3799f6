"""How what our engine cannot predict yet ended in a real deployment (Airflow 3.3.2)."""

from __future__ import annotations

OBSERVED = {
    "sigterm": """\
2024-01-01 success: load success 1
2024-01-01 xcom load/return_value: 1
sigterm.2024-01-01.load: begun by try 1, killed by try 1, done by try 1""",
    "dies_twice": """\
2024-01-01 success: load success 3
2024-01-01 xcom load/return_value: 3
dies_twice.2024-01-01.load: begun by try 1, begun by try 2, begun by try 3, done by try 3""",
}
