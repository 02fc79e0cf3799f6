"""What differs between the supported versions of Airflow (3.1 to 3.3), in one place."""

from __future__ import annotations

try:  # 3.2 moved the DagBag that reads files out of the models
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
except ImportError:
    from airflow.models.dagbag import DagBag, sync_bag_to_db  # type: ignore[attr-defined, no-redef]

try:  # 3.2 split the scheduler's DAG off the serialization module
    from airflow.serialization.definitions.dag import SerializedDAG
except ImportError:
    from airflow.serialization.serialized_objects import SerializedDAG  # type: ignore[attr-defined, no-redef]

__all__ = ["DagBag", "SerializedDAG", "sync_bag_to_db"]
