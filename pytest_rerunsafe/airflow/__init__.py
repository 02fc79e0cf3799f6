"""The only package that imports Airflow: loading, metadata, scheduling, task attempts and clears, all decided by Airflow's own functions."""
