"""Events of assets that tasks outside the world would have emitted."""

from __future__ import annotations

from typing import Any

from airflow.assets.manager import AssetManager
from airflow.models.asset import AssetActive, AssetModel
from sqlalchemy import select


def register_events(condition: Any, opened: Any) -> None:
    """One event for each asset and alias of a schedule, registered as a task's success does.

    What an alias or a reference stands for is not known here: an asset of that name.
    """
    for _, asset in condition.iter_assets():
        AssetManager.register_asset_change(asset=asset, session=opened)
    for reference in condition.iter_asset_refs():
        wanted = {name: value for name in ("name", "uri") if (value := getattr(reference, name, None))}
        AssetManager.register_asset_change(asset=_asset(opened, **wanted), session=opened)
    for alias, _ in condition.iter_asset_aliases():
        asset = _asset(opened, name=alias)
        AssetManager.register_asset_change(asset=asset, source_alias_names=[alias], session=opened)


def _asset(opened: Any, **wanted: str) -> AssetModel:
    """An asset of a name or URI, made if there is none."""
    found: AssetModel | None = opened.scalars(select(AssetModel).filter_by(**wanted)).first()
    if found is None:
        (word,) = wanted.values()
        found = AssetModel(name=word, uri=word, group="asset", extra={})
        opened.add(found)
        opened.flush()
        opened.add(AssetActive.for_asset(found))
        opened.flush()
    return found
