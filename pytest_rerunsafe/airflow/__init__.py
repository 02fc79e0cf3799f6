"""The only package that imports Airflow: its own functions decide all that is Airflow's to decide."""
