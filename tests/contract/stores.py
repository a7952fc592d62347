"""A buffer and a registry over one state, as the contract suites and the machine use them."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeseq_core.errors import SnapshotError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import (
    IncomingPair,
    IngestOutcome,
    Move,
    Part,
    Position,
    ReplayBuffer,
    StepCommit,
    StoredPair,
)
from edgeseq_core.replay.connection import connect
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.replay.recall import pack as pack_told
from edgeseq_core.replay.record import PairRecord, pack, unpack
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.replay.rules import StoreLimits
from edgeseq_core.snapshots.manifest import (
    GateReport,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.memory_registry import MemoryRegistry
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.snapshots.registry import Offer, SnapshotRegistry
from edgeseq_core.text.vocabulary import Vocabulary

PARTITIONS = 4
VOCABULARY = Vocabulary(string.printable)
DIGEST = bytes.fromhex(VOCABULARY.digest[:16])
TASK = "dates"
PARTITION = partition_of(TASK, PARTITIONS)
LOG = "log1"
PAIRS, FEEDBACK = "t.pairs", "t.feedback"
NOW_MS = 1_700_000_000_000


def incoming(
    number: int,
    *,
    task: str = TASK,
    producer: str = "p1",
    pair_id: str | None = None,
    correction: bool = False,
    source: str = "abc",
    target: str = "xyz",
    quarantine: str = "",
) -> IncomingPair:
    """Pair ``number``: its offset, and its id unless one is given."""
    pair_id = pair_id or f"id{number}"
    topic = FEEDBACK if correction else PAIRS
    record = PairRecord(
        producer=producer,
        pair_id=pair_id,
        arrived_ms=NOW_MS,
        topic=topic,
        offset=number,
        correction=correction,
        source_ids=tuple(VOCABULARY.encode(source)),
        target_ids=tuple(VOCABULARY.encode(target)),
    )
    return IncomingPair(
        task=task,
        producer=producer,
        pair_id=pair_id,
        topic=topic,
        offset=number,
        arrived_ms=NOW_MS,
        correction=correction,
        record=b'{"raw":1}' if quarantine else pack(record, DIGEST),
        quarantine=quarantine,
        told=pack_told(source, Remembered(target, producer, pair_id)) if correction else b"",
    )


def ids(pairs: Iterable[StoredPair]) -> list[str]:
    """The pair ids of stored pairs."""
    return [unpack(pair.record, DIGEST).pair_id for pair in pairs]


@dataclass
class Stores:
    """A buffer with its registry, and a consumer and a learner that own ``PARTITION``."""

    buffer: ReplayBuffer
    registry: SnapshotRegistry
    consumer: int = 0
    learner: int = 0
    positions: dict[str, Position] = field(default_factory=dict)

    def own(self) -> Stores:
        self.consumer = self.buffer.acquire("consumer", PARTITION)
        self.learner = self.buffer.acquire("learner", PARTITION)
        return self

    def ingest(
        self, pairs: Sequence[IncomingPair], *, topic: str | None = None, now_ms: int = NOW_MS
    ) -> list[IngestOutcome]:
        """Place pairs of one topic and move its position behind the last."""
        topic = topic or (pairs[0].topic if pairs else PAIRS)
        before = self.positions.get(topic)
        last = pairs[-1].offset + 1 if pairs else (before.offset if before else 0)
        position = Position(LOG, last)
        outcomes = self.buffer.ingest(
            PARTITION,
            pairs,
            epoch=self.consumer,
            topic=topic,
            expected=before,
            position=position,
            now_ms=now_ms,
        )
        self.positions[topic] = position
        return outcomes

    def commit(self, moves: Sequence[Move] = (), *, task: str = TASK, **changed: Any) -> int:
        """One learner step from the stored state; returns its number."""
        state = self.buffer.state(task)
        step = state.last_step + 1
        fields: dict[str, Any] = {
            "task": task,
            "epoch": self.learner,
            "branch": state.branch,
            "expected_step": state.step,
            "step": step,
            "checkpoint": b"checkpoint-%d" % step,
            "journal": f'{{"kind":"step","step":{step}}}',
            "moves": moves,
        }
        self.buffer.commit(StepCommit(**(fields | changed)))
        return step

    def learn(self, *, priorities: random.Random, task: str = TASK, count: int = 10**6) -> int:
        """Move the oldest waiting pairs to the reservoir in one step; returns its number."""
        fresh = self.buffer.draw(task, corrections=count, bulk=count, replay=()).fresh[:count]
        moves = [Move(p.key, p.part, "reservoir", priorities.random()) for p in fresh]
        return self.commit(moves, task=task)

    def part(self, part: Part, task: str = TASK) -> list[str]:
        return ids(self.buffer.read(task, part))

    def offer(
        self,
        *,
        verdict: str | None = "promote",
        task: str = TASK,
        at_ms: int | None = None,
        **changed: Any,
    ) -> str:
        """Offer a snapshot of the learner's stored step; returns its id."""
        state, champion = self.buffer.state(task), self.registry.status(task).champion
        record, payload = snapshot(state.step, task=task, parent=champion, verdict=verdict)
        if at_ms is not None:
            record = record.model_copy(update={"created_ms": at_ms})
        fields: dict[str, Any] = {
            "task": task,
            "epoch": self.learner,
            "branch": state.branch,
            "record": record,
            "payload": payload,
            "expected_champion": champion,
            "journal": f'{{"kind":"gate","step":{state.step}}}',
        }
        self.registry.offer(Offer(**(fields | changed)))
        return record.manifest.snapshot_id

    def serve_step(self, task: str = TASK, **changed: Any) -> str:
        """One empty learner step whose snapshot is promoted."""
        self.commit(task=task)
        return self.offer(task=task, **changed)

    def kept(self, task: str = TASK) -> list[str]:
        """Ids of the snapshots whose bytes are there, oldest first."""
        records = [record.manifest for record in self.registry.history(task)]
        found = [manifest.snapshot_id for manifest in records if self.has_bytes(manifest)]
        assert self.registry.kept(task) == set(found)
        return found

    def has_bytes(self, manifest: SnapshotManifest) -> bool:
        try:
            self.registry.payload(manifest)
        except SnapshotError:
            return False
        return True


def snapshot(
    step: int, *, task: str = TASK, parent: str | None = None, verdict: str | None = "promote"
) -> tuple[SnapshotRecord, bytes]:
    """A record and its bytes."""
    payload = f"int8 {task} {step}".encode()
    manifest = SnapshotManifest(
        task=task,
        base="b" * 64,
        parent=parent,
        step=step,
        positions={PAIRS: f"{LOG}|{step}"},
        payload_digest=payload_digest(payload),
        payload_bytes=len(payload),
        checkpoint_digest="c" * 64,
        config={},
    )
    gate = (
        GateReport.model_validate(
            {"verdict": verdict, "reasons": ("test",), "candidate": {}, "champion": {}}
        )
        if verdict
        else None
    )
    return SnapshotRecord(manifest=manifest, gate=gate, created_ms=NOW_MS + step), payload


def memory_stores(limits: StoreLimits | None = None, **kept: int) -> Stores:
    store = MemoryStore(partitions=PARTITIONS, limits=limits)
    return Stores(store, MemoryRegistry(store.memory, **kept)).own()


def redis_stores(url: str, prefix: str, limits: StoreLimits | None = None, **kept: int) -> Stores:
    client = connect(url)
    buffer = RedisStore(client, prefix=prefix, partitions=PARTITIONS, limits=limits)
    registry = RedisRegistry(client, prefix=prefix, partitions=PARTITIONS, **kept)
    return Stores(buffer, registry).own()
