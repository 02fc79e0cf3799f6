"""Puts what the example DAGs read in place, before each of their clean runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

LOG = "".join(f"GET /{hashlib.sha256(b'%d' % number).hexdigest()}\n" for number in range(500))

INPUTS = {
    "archive": {"/data/archive/logs/2024-01-01.log": LOG},
    "compact": {f"/data/compact/parts/{n}.json": json.dumps({f"t{n}": 10 * n}) for n in range(1, 4)},
    "convert": {"/data/convert/upload.txt": "red green blue\n"},
    "drop": {"/data/drop/stock.json": json.dumps({"bolt": 7, "nut": 0, "screw": 12})},
    "figures": {"/data/figures/orders.csv": "order,cents\n1,1250\n2,900\n"},
    "inbox": {f"/data/inbox/new/{shop}.csv": f"item,cents\n{shop},150\n" for shop in ("north", "south")},
}
"""Files by path, by the name of the pair."""


def pytest_rerun_safety_prepare(dag: Any, world: Any) -> None:
    for path, content in INPUTS.get(dag.dag_id.rpartition("_")[0], {}).items():
        world.write(path, content)
