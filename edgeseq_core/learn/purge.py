"""Forgetting on request: pairs leave the buffer, and every calibration that may have learnt them.

A calibration cannot unlearn.  So all of a task's snapshots and checkpoints are deleted, and its learner
begins anew on what the buffer still holds (`SnapshotRegistry.purge`).  The champion serves until the clean
one takes its place.  A receipt says what went and what came; it is issued once that is so.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from edgeseq_core.clock import Clock
from edgeseq_core.errors import ConfigError
from edgeseq_core.keys import partition_of
from edgeseq_core.learn.relearn import at_present
from edgeseq_core.replay.buffer import PARTS, ReplayBuffer
from edgeseq_core.snapshots.registry import Purge, SnapshotRegistry, TaskStatus

POLL_S = 0.5
REMEMBERED_LINES = 50_000  # of a journal: a purge is complete long before so many follow it


class Receipt(BaseModel):
    """What a purge was asked for, what it deleted, and what serves instead.  No text of a pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    purge: str
    task: str
    producer: str | None  # None: any
    pair_id: str | None
    asked_ms: int
    done_ms: int
    log_free_ms: (
        int | None
    )  # when Kafka has dropped the last copy; None: it keeps them, or told nothing
    removed: tuple[str, ...]  # keys: log, topic and offset
    held: int  # quarantined pairs that were removed
    relearnt: bool  # false: no calibration had learnt any of them
    snapshots_deleted: tuple[str, ...]
    snapshot_id: str | None  # the champion since; None: none serves
    payload_digest: str | None  # of its bytes
    base: str | None = (
        None  # that it was changed to: one that was consolidated keeps what it learnt
    )
    digest: str = ""  # sha256 of the rest

    def sealed(self) -> Receipt:
        """With its digest."""
        return self.model_copy(update={"digest": self._digest()})

    def _digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        if self.base is None:  # as in receipts of before
            del content["base"]
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


@dataclass(frozen=True)
class Asked:
    """What a purge was asked for, and when; ``purge`` is its id."""

    purge: str
    producer: str | None
    pair_id: str | None
    at_ms: int


class Purging:
    """A purge from the request to its receipt; `begin` or `resume` one."""

    def __init__(
        self,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        task: str,
        *,
        partitions: int,
        clock: Clock,
        asked: Asked,
    ) -> None:
        self._buffer, self._registry, self._clock = buffer, registry, clock
        self._task, self._partition = task, partition_of(task, partitions)
        self.asked = asked

    @classmethod
    def begin(
        cls,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        task: str,
        *,
        producer: str | None = None,
        pair_id: str | None = None,
        partitions: int,
        clock: Clock,
    ) -> Purging:
        """Remove the pairs, and delete the calibrations if any may have learnt one of them."""
        asked = Asked(secrets.token_hex(8), producer, pair_id, clock.wall_ms())
        purging = cls(buffer, registry, task, partitions=partitions, clock=clock, asked=asked)
        waited = purging._waits()
        removed = buffer.remove(task, producer=producer, pair_id=pair_id, purge=asked.purge)
        # A pair that waited and is not found any more was learnt meanwhile, and let go.
        known = waited and removed > 0
        if registry.status(task).tainted or (not known and purging._has_evicted()):
            at_present(registry, task, purging._delete)
        return purging

    @classmethod
    def resume(
        cls,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        task: str,
        *,
        purge: str,
        partitions: int,
        clock: Clock,
    ) -> Purging:
        """One that was begun and has no receipt yet; raises ConfigError when there is none."""
        for line in _lines(buffer, task, purge):
            if line["kind"] == "purge":
                asked = Asked(purge, line["producer"], line["pair_id"], line["at_ms"])
                return cls(buffer, registry, task, partitions=partitions, clock=clock, asked=asked)
        raise ConfigError(f"task {task} has no purge {purge}; `edgeseq receipts {task}` lists them")

    def _waits(self) -> bool:
        """Whether one pair is asked for that no learner had taken yet."""
        producer, pair_id = self.asked.producer, self.asked.pair_id
        if producer is None or pair_id is None:
            return False
        outcome = self._buffer.outcome(self._task, producer, pair_id)
        return outcome is not None and outcome.state not in ("trained", "held_out", "forgotten")

    def _has_evicted(self) -> bool:
        """Whether pairs were learnt that the reservoir let go: whose they were, nobody knows."""
        stats = self._buffer.stats(self._task)
        return stats.learnt > stats.pairs["reservoir"]

    def _delete(self, status: TaskStatus) -> None:
        """Delete the calibrations of the task."""
        self._registry.purge(
            Purge(
                task=self._task,
                branch=status.branch,
                expected_champion=status.champion,
                purge=self.asked.purge,
                producer=self.asked.producer,
                pair_id=self.asked.pair_id,
                now_ms=self.asked.at_ms,
            )
        )

    @property
    def done(self) -> bool:
        """Whether what serves is clean: the task's learner has offered, or there was nothing to learn."""
        waits = self._task in self._registry.relearning([self._partition])
        return not waits and not self._registry.status(self._task).purging

    def wait(self, limit_s: float) -> bool:
        """Wait for the learner, at most so long; returns `done`."""
        end_s = self._clock.monotonic() + limit_s
        while not self.done and self._clock.monotonic() < end_s:
            time.sleep(POLL_S)
        return self.done

    def receipt(self, *, kept_ms: int | None = None) -> Receipt:
        """The receipt of a purge that is `done`; the store keeps it.

        ``kept_ms`` is how long Kafka keeps a pair at most (`streams.topics.kept_ms`).
        """
        lines = _lines(self._buffer, self._task, self.asked.purge)
        removals = [line for line in lines if line["kind"] == "remove"]
        deletions = [line for line in lines if line["kind"] == "purge"]
        champion = self._registry.status(self._task).champion
        manifest = self._registry.record(self._task, champion).manifest if champion else None
        receipt = Receipt(
            purge=self.asked.purge,
            task=self._task,
            producer=self.asked.producer,
            pair_id=self.asked.pair_id,
            asked_ms=self.asked.at_ms,
            done_ms=self._clock.wall_ms(),
            log_free_ms=None if kept_ms is None else self.asked.at_ms + kept_ms,
            removed=tuple(k for line in removals for k in (*line["fresh"], *line["taken"])),
            held=sum(line["held"] for line in removals),
            relearnt=bool(deletions),
            snapshots_deleted=tuple(one for line in deletions for one in line["snapshots"]),
            snapshot_id=champion,
            payload_digest=manifest.payload_digest if manifest else None,
            base=self._registry.status(self._task).base,
        ).sealed()
        self._buffer.add_receipt(self._task, receipt.model_dump_json())
        return receipt


def _lines(buffer: ReplayBuffer, task: str, purge: str) -> list[dict[str, Any]]:
    """What the journal has of a purge."""
    mark = f'"purge":"{purge}"'
    return [
        json.loads(line) for line in buffer.journal(task, after=-REMEMBERED_LINES) if mark in line
    ]


def receipts(buffer: ReplayBuffer, task: str) -> list[Receipt]:
    """The receipts that the store keeps of a task, oldest first."""
    return [Receipt.model_validate_json(text) for text in buffer.receipts(task)]
