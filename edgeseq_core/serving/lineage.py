"""Which snapshot first served what a step trained: the champion's ancestors, read once each."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from edgeseq_core.snapshots.registry import SnapshotRegistry

WALK_LIMIT = 16  # more unknown ancestors than this are read by `history`, in one go


@dataclass(frozen=True)
class _Ancestor:
    step: int
    parent: str | None  # the champion when it was offered, so every ancestor has served


class Lineage:
    """Champions of a task from the oldest ancestor to the one that serves; used by one thread."""

    def __init__(self, registry: SnapshotRegistry) -> None:
        self._registry = registry
        self._known: dict[
            str, dict[str, _Ancestor]
        ] = {}  # task -> snapshot id -> what is immutable
        self._lines: dict[str, tuple[list[int], list[str]]] = {}  # task -> steps, ids; oldest first

    def first_since(self, task: str, champion: str, step: int) -> str | None:
        """The first promoted snapshot on the champion's line that had trained step ``step``."""
        steps, ids = self._line(task, champion)
        place = bisect_left(steps, step)
        return ids[place] if place < len(ids) else None

    def _line(self, task: str, champion: str) -> tuple[list[int], list[str]]:
        steps, ids = self._lines.get(task, ([], []))
        if ids and ids[-1] == champion:
            return steps, ids
        new: list[tuple[int, str]] = []
        walk: str | None = champion
        while walk is not None and walk not in ids:
            ancestor = self._ancestor(task, walk, reads=len(new))
            new.append((ancestor.step, walk))
            walk = ancestor.parent
        kept = 0 if walk is None else ids.index(walk) + 1
        new.reverse()
        line = (steps[:kept] + [s for s, _ in new], ids[:kept] + [i for _, i in new])
        self._lines[task] = line
        return line

    def _ancestor(self, task: str, snapshot_id: str, *, reads: int) -> _Ancestor:
        known = self._known.setdefault(task, {})
        if snapshot_id not in known:
            if reads < WALK_LIMIT:
                records = [self._registry.record(task, snapshot_id)]
            else:
                records = self._registry.history(task)
            for record in records:
                manifest = record.manifest
                known[manifest.snapshot_id] = _Ancestor(manifest.step, manifest.parent)
        return known[snapshot_id]
