"""Back-pressure: which partitions hold more fresh pairs than they may."""

from __future__ import annotations

import structlog

from edgeseq_core.replay.buffer import ReplayBuffer

RESUME_SHARE = 0.8  # of the budget, so that a full partition does not flicker
ASK_SHARE = 1 / 8  # of the budget may be added before the store is asked again

log = structlog.get_logger(__name__)


class FreshBudget:
    """Bytes of fresh pairs a partition may hold: an equal share of the whole budget."""

    def __init__(self, store: ReplayBuffer, *, budget_bytes: int, partitions: int) -> None:
        self._store = store
        self.share_bytes = max(budget_bytes // partitions, 1)
        self._added_bytes: dict[int, int] = {}
        self.over: set[int] = set()

    def added(self, partition: int, size_bytes: int) -> None:
        """Count what was stored; asks the store once much was."""
        self._added_bytes[partition] = self._added_bytes.get(partition, 0) + size_bytes
        if self._added_bytes[partition] > self.share_bytes * ASK_SHARE:
            self.measure(partition)

    def measure(self, partition: int) -> None:
        """Ask the store how much waits; raises StoreError."""
        used = self._store.fresh_bytes(partition)
        self._added_bytes[partition] = 0
        if used > self.share_bytes and partition not in self.over:
            self.over.add(partition)
            log.warning("over_budget", partition=partition, fresh_bytes=used)
        elif used <= self.share_bytes * RESUME_SHARE and partition in self.over:
            self.over.discard(partition)
            log.info("within_budget", partition=partition, fresh_bytes=used)

    def measure_over(self) -> None:
        """Ask again about each partition that is over its share."""
        for partition in sorted(self.over):
            self.measure(partition)

    def forget(self, partition: int) -> None:
        """The partition is another consumer's now."""
        self._added_bytes.pop(partition, None)
        self.over.discard(partition)
