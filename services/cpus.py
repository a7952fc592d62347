"""How many CPUs this process may use: its affinity, and the quota of its control group (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cpus(*, cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """At least 1; a quota of 2.5 CPUs gives 2, because a third thread would be held up."""
    return max(1, int(min([_affinity(), *_quotas(cgroups, own)])))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """Quotas in CPUs of the process's groups and of those above them; none where none can be read."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":  # version 2
            for folder in _upwards(cgroups, path):
                yield from _quota(*_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / controllers, cgroups / "cpu"):
                for folder in _upwards(mount, path):
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    yield from _quota(*(word for name in names for word in _words(folder / name)))


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The group and those above it; in a container the path may be one that only the host sees."""
    group = PurePosixPath(path.lstrip("/"))
    for one in (group, *group.parents):
        yield root / one


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _quota(quota: str = "max", period: str = "0") -> Iterator[float]:
    """Nothing for "max" (version 2), -1 (version 1) and what is no number."""
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        yield int(quota) / int(period)
