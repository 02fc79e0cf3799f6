"""How what our engine cannot predict yet ended in a real deployment (Airflow 3.3.2)."""

from __future__ import annotations

OBSERVED = {
    "mapped_clear": """\
2024-01-01 success: load[0] success 2, load[1] success 2, load[2] success 2, parts success 1, total success 1
2024-01-01 xcom load[0]/return_value: 10
2024-01-01 xcom load[1]/return_value: 20
2024-01-01 xcom load[2]/return_value: 30
2024-01-01 xcom parts/return_value: [10, 20, 30]
mapped_clear.2024-01-01.load[0]: begun by try 1, done by try 1, begun by try 2, done by try 2
mapped_clear.2024-01-01.load[1]: begun by try 1, begun by try 2, done by try 2
mapped_clear.2024-01-01.load[2]: begun by try 1, done by try 1, begun by try 2, done by try 2
mapped_clear.2024-01-01.total: sum 60 by try 1""",
    "clear_failed": """\
2024-01-01 success: report success 1, shaky success 2, steady success 1
2024-01-01 xcom shaky/return_value: 2
2024-01-01 xcom steady/return_value: 1
clear_failed.2024-01-01.report: steady done by try 1, shaky by try 2 by try 1
clear_failed.2024-01-01.shaky: begun by try 1, begun by try 2, done by try 2
clear_failed.2024-01-01.steady: done by try 1""",
    "clear_upstream": """\
2024-01-01 success: extract success 2, load success 2
2024-01-01 xcom extract/return_value: 2
clear_upstream.2024-01-01.extract: done by try 1, done by try 2
clear_upstream.2024-01-01.load: done after try 1 by try 1, done after try 2 by try 2""",
    "clear_one_day": """\
2024-01-01 success: extract success 1, load success 1
2024-01-01 xcom extract/return_value: 1
2024-01-02 success: extract success 2, load success 2
2024-01-02 xcom extract/return_value: 2
clear_one_day.2024-01-01.extract: done by try 1
clear_one_day.2024-01-01.load: done after try 1 by try 1
clear_one_day.2024-01-02.extract: done by try 1, done by try 2
clear_one_day.2024-01-02.load: done after try 1 by try 1, done after try 2 by try 2""",
    "clear_running": """\
2024-01-01 success: load success 2
2024-01-01 xcom load/return_value: 2
clear_running.2024-01-01.load: begun by try 1, begun by try 2, done by try 2""",
    "depends_on_past": """\
2024-01-01 success: load success 2
2024-01-01 xcom load/return_value: 2
2024-01-02 success: load success 1
2024-01-02 xcom load/return_value: 1
depends_on_past.2024-01-01.load: begun by try 1, begun by try 2, done by try 2
depends_on_past.2024-01-02.load: begun by try 1, done by try 1""",
    "backfill": """\
2024-01-01 success: load success 2
2024-01-01 xcom load/return_value: 2
2024-01-02 success: load success 2
2024-01-02 xcom load/return_value: 2
backfill.2024-01-01.load: begun by try 1, begun by try 2, done by try 2
backfill.2024-01-02.load: begun by try 1, done by try 1, begun by try 2, done by try 2""",
    "backfill_failed": """\
2024-01-01 success: load success 2
2024-01-01 xcom load/return_value: 2
2024-01-02 success: load success 1
2024-01-02 xcom load/return_value: 1
backfill_failed.2024-01-01.load: begun by try 1, begun by try 2, done by try 2
backfill_failed.2024-01-02.load: begun by try 1, done by try 1""",
    "deferred": """\
2024-01-01 success: wait success 2
2024-01-01 xcom wait/return_value: 2
deferred.2024-01-01.wait: deferred by try 1, resumed by try 1, deferred by try 2, resumed by try 2, done by try 2""",
    "sigterm": """\
2024-01-01 success: load success 1
2024-01-01 xcom load/return_value: 1
sigterm.2024-01-01.load: begun by try 1, killed by try 1, done by try 1""",
    "killed_after_success": """\
2024-01-01 success: load success 1
2024-01-01 xcom load/return_value: 1
killed_after_success.2024-01-01.load: done by try 1""",
    "killed_after_last_success": """\
2024-01-01 success: load success 1
2024-01-01 xcom load/return_value: 1
killed_after_last_success.2024-01-01.load: done by try 1""",
    "notified_of_death": """\
2024-01-01 failed: load failed 1
notified_of_death.2024-01-01.load: begun by try 1""",
    "notified_of_retry": """\
2024-01-01 success: load success 2
notified_of_retry.2024-01-01.load: begun by try 1, begun by try 2, done by try 2
notified_of_retry.notified: retry""",
    "notified_of_loss": """\
2024-01-01 failed: load failed 1
notified_of_loss.2024-01-01.load: begun by try 1
notified_of_loss.notified: failure, failure""",
    "notified_of_lost_retry": """\
2024-01-01 success: load success 2
notified_of_lost_retry.2024-01-01.load: begun by try 1, begun by try 2, done by try 2
notified_of_lost_retry.notified: retry, retry""",
    "triggers_run": """\
2024-01-01 success: trigger success 2
2024-01-01 xcom trigger/_link_TriggerDagRunLink: "/dags/triggered_run/runs/manual__<time>"
2024-01-01 xcom trigger/trigger_run_id: "manual__<time>"
triggers_run.child: done by try 1, done by try 1""",
    "dies_twice": """\
2024-01-01 success: load success 3
2024-01-01 xcom load/return_value: 3
dies_twice.2024-01-01.load: begun by try 1, begun by try 2, begun by try 3, done by try 3""",
}
