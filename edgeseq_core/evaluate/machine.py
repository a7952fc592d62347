"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's name."""
    return _first("model name") or platform.processor()


def has_avx512() -> bool:
    """Whether the CPU says so."""
    return "avx512f" in _first("flags").split()


def _first(field: str) -> str:
    """A field of the first core; nothing where Linux does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def busy_cpu_s() -> float:
    """CPU seconds that all processes of the machine have worked; 0 where Linux does not tell."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, soft, *_ = map(int, first.split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")
