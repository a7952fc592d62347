"""What the tests read from the committed dashboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "monitoring/grafana/dashboards/edgeseq.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
GRAPHS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Title of the panel, and one of its queries."""
    for panel in GRAPHS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def substituted(query: str, *, task: str = ".*", interval: str = "1m") -> str:
    """A query as Grafana sends it."""
    return query.replace("$__rate_interval", interval).replace("$task", task)
