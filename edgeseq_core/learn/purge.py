"""Forgetting on request: pairs leave the buffer, and every calibration that may have learnt them.

A calibration cannot unlearn.  So all of a task's snapshots and checkpoints are deleted, and its learner
begins anew on what the buffer still holds (`SnapshotRegistry.purge`).  The champion serves until the clean
one takes its place.  A receipt says what went and what came; it is issued once that is so.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgeseq_core.clock import Clock
from edgeseq_core.keys import partition_of
from edgeseq_core.learn.relearn import at_present
from edgeseq_core.replay.buffer import PARTS, ReplayBuffer
from edgeseq_core.snapshots.registry import Purge, SnapshotRegistry, TaskStatus

REMEMBERED_LINES = 50_000  # of a journal: a purge is complete long before so many follow it


class Receipt(BaseModel):
    """What a purge was asked for, what it deleted, and what serves instead.  No text of a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    purge: str
    task: str
    producer: str | None  # None: any
    pair_id: str | None
    asked_ms: (
        int  # all these pairs were in Kafka before: its retention from here on drops the last copy
    )
    done_ms: int
    removed: tuple[str, ...]  # keys: log, topic and offset
    held: int  # quarantined pairs that were removed
    relearnt: bool  # false: no calibration had learnt any of them
    snapshots_deleted: tuple[str, ...]
    snapshot_id: str | None  # the champion since; None: none serves
    payload_digest: str | None  # of its bytes
    digest: str = ""  # sha256 of the rest

    def sealed(self) -> Receipt:
        """With its digest."""
        return self.model_copy(update={"digest": self._digest()})

    def _digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def faults(self, buffer: ReplayBuffer, registry: SnapshotRegistry) -> list[str]:
        """What the store contradicts, in sentences; none for a receipt that holds."""
        stored = {pair.key for part in PARTS for pair in buffer.read(self.task, part)}
        kept, status = registry.kept(self.task), registry.status(self.task)
        checks = (
            (self.digest == self._digest(), "the receipt was altered: its digest differs"),
            (not stored & set(self.removed), "a removed pair is in the buffer"),
            (not kept & set(self.snapshots_deleted), "a deleted snapshot still has its bytes"),
            (status.champion not in self.snapshots_deleted, "a deleted snapshot serves"),
            (not status.tainted, "a pair was removed since, and its calibrations stand yet"),
        )
        return [fault for holds, fault in checks if not holds]


class Purging:
    """A purge from the request to its receipt."""

    def __init__(
        self,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        task: str,
        *,
        producer: str | None = None,
        pair_id: str | None = None,
        partitions: int,
        clock: Clock,
    ) -> None:
        """Remove the pairs, and delete the calibrations if any may have learnt one of them."""
        self._buffer, self._registry, self._clock = buffer, registry, clock
        self._task, self._producer, self._pair_id = task, producer, pair_id
        self._partition = partition_of(task, partitions)
        self._asked_ms = clock.wall_ms()
        self.purge = secrets.token_hex(8)
        outcome = buffer.outcome(task, producer, pair_id) if producer and pair_id else None
        waits = outcome is not None and outcome.state not in ("trained", "held_out", "forgotten")
        buffer.remove(task, producer=producer, pair_id=pair_id, purge=self.purge)
        tainted = registry.status(task).tainted
        self.relearns = tainted or (not waits and self._has_evicted())
        if self.relearns:
            at_present(registry, task, self._delete)

    def _delete(self, status: TaskStatus) -> None:
        """Delete the calibrations of the task."""
        self._registry.purge(
            Purge(
                task=self._task,
                branch=status.branch,
                expected_champion=status.champion,
                purge=self.purge,
                now_ms=self._asked_ms,
            )
        )

    def _has_evicted(self) -> bool:
        """Whether pairs were learnt that the reservoir let go: whose they were, nobody knows."""
        stats = self._buffer.stats(self._task)
        return stats.learnt > stats.pairs["reservoir"]

    @property
    def done(self) -> bool:
        """Whether what serves is clean: the task's learner has offered, or there was nothing to learn."""
        waits = self._task in self._registry.relearning([self._partition])
        return not waits and not self._registry.status(self._task).purging

    def receipt(self) -> Receipt:
        """The receipt of a purge that is `done`, which the store keeps."""
        lines = [line for line in self._lines() if line["purge"] == self.purge]
        removals = [line for line in lines if line["kind"] == "remove"]
        champion = self._registry.status(self._task).champion
        manifest = self._registry.record(self._task, champion).manifest if champion else None
        receipt = Receipt(
            purge=self.purge,
            task=self._task,
            producer=self._producer,
            pair_id=self._pair_id,
            asked_ms=self._asked_ms,
            done_ms=self._clock.wall_ms(),
            removed=tuple(k for line in removals for k in (*line["fresh"], *line["taken"])),
            held=sum(line["held"] for line in removals),
            relearnt=self.relearns,
            snapshots_deleted=tuple(
                one for line in lines if line["kind"] == "purge" for one in line["snapshots"]
            ),
            snapshot_id=champion,
            payload_digest=manifest.payload_digest if manifest else None,
        ).sealed()
        self._buffer.add_receipt(self._task, receipt.model_dump_json())
        return receipt

    def _lines(self) -> Iterator[dict[str, Any]]:
        for text in self._buffer.journal(self._task, after=-REMEMBERED_LINES):
            if '"purge":' in text:
                yield json.loads(text)


def receipts(buffer: ReplayBuffer, task: str) -> list[Receipt]:
    """The receipts that the store keeps of a task, oldest first."""
    return [Receipt.model_validate_json(text) for text in buffer.receipts(task)]
