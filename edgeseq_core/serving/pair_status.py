"""Answers a producer's question: what became of my pair?"""

from __future__ import annotations

from edgeseq_core.messages import PairStatus, StatusQuery
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.serving.lineage import Lineage
from edgeseq_core.snapshots.registry import SnapshotRegistry


class PairStatusReader:
    """Reads outcomes and the champion's line; used by one thread."""

    def __init__(self, store: ReplayBuffer, registry: SnapshotRegistry) -> None:
        self._store = store
        self._registry = registry
        self._lineage = Lineage(registry)

    def answer(self, query: StatusQuery) -> PairStatus:
        """State, step, and the first promoted snapshot that learnt the pair; raises StoreError."""
        outcome = self._store.outcome(query.task, query.producer, query.pair_id)
        snapshot_id = None
        in_champion = False
        if outcome is not None and outcome.step > 0 and outcome.state == "trained":
            champion = self._registry.status(query.task).champion
            in_champion = champion is not None and self._registry.is_learnt(
                query.task, outcome.step
            )
            if champion is not None and in_champion:
                snapshot_id = self._lineage.first_since(query.task, champion, outcome.step)
        return PairStatus(
            request_id=query.request_id,
            task=query.task,
            producer=query.producer,
            pair_id=query.pair_id,
            state=outcome.state if outcome else "unknown",
            step=outcome.step if outcome else 0,
            snapshot_id=snapshot_id,
            in_champion=in_champion,
            detail=outcome.detail
            if outcome
            else "never seen, or longer ago than ids are remembered",
        )
