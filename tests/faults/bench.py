"""The loop in one process: real intake, store, learner and snapshot watch over a log in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from kafka import TopicPartition

from edgeseq_core.clock import SystemClock
from edgeseq_core.keys import Topics, partition_of
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.messages import Feedback, Message, Pair, encode
from edgeseq_core.model.base import Base
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.replay.buffer import Position, ReplayBuffer
from edgeseq_core.replay.record import pair_key
from edgeseq_core.serving.residents import Residents
from edgeseq_core.serving.watch import SnapshotWatch
from edgeseq_core.settings import LearningSettings
from edgeseq_core.snapshots.registry import SnapshotRegistry
from edgeseq_core.streams.budget import FreshBudget
from edgeseq_core.streams.controls import ControlDesk
from edgeseq_core.streams.dead_letters import DeadLetterProducer, Letter
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.intake import Intake, IntakeLimits
from edgeseq_core.streams.ownership import Owned
from edgeseq_core.streams.placing import Batch, Placer
from tests.faults.facts import outcomes, task_facts
from tests.faults.history import Facts, HeardReply, SentPair

PARTITIONS = 4
LOG = "log1"
TOPICS = Topics("t")
SMALL = LearningSettings(
    rank=2,
    fresh_per_step=8,
    replay_per_step=8,
    recent_pairs=6,
    probe_pairs=6,
    held_out_share=0.2,
    gate_interval_s=0.0,
    rehearsals_per_step=1,
    learning_rate=2e-2,
    warmup_steps=2,
)


@dataclass(frozen=True)
class LogRecord:
    """A record as a consumer reads it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class LetterBox:
    """Stands for the dead-letter topic."""

    keys: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)

    def put(self, letters: Sequence[Letter]) -> None:
        self.keys += [pair_key(LOG, x.record.topic, x.record.offset) for x in letters]
        self.reasons += [letter.reason for letter in letters]
        self.values += [letter.record.value or b"" for letter in letters]


class Bench:
    """One deployment without a broker; time is real, order is the test's."""

    def __init__(
        self,
        base: Base,
        buffer: ReplayBuffer,
        registry: SnapshotRegistry,
        config: LearningSettings = SMALL,
    ) -> None:
        self.buffer, self.registry, self.clock = buffer, registry, SystemClock()
        self._base, self._config = base, config
        self._logs: dict[tuple[str, int], list[LogRecord]] = {}
        self.sent: list[SentPair] = []
        self.heard: list[HeardReply] = []
        self.letters = LetterBox()
        self.engine = TorchEngine(base)
        residents = Residents(self.engine, budget_bytes=64 << 20, clock=self.clock)
        self.watch = SnapshotWatch(
            self.engine, residents, registry, buffer, partitions=range(PARTITIONS), clock=self.clock
        )
        self._owned: dict[int, Owned] = {}
        self.start_consumer()
        self.start_learner()

    # --- producers --------------------------------------------------------------------------------
    def send(self, task: str, pair_id: str, *, correction: bool = False, **fields: Any) -> None:
        """Append a pair, or a correction, to its topic."""
        common = {
            "pair_id": pair_id,
            "producer": "erp",
            "task": task,
            "source": f"in {pair_id}",
            "target": f"out {pair_id}",
            "sent_at_ms": self.clock.wall_ms(),
        } | fields
        message: Message = Feedback(**common) if correction else Pair(**common)
        self.send_raw(task, pair_id, encode(message), correction=correction)

    def send_raw(self, task: str, pair_id: str, value: bytes, *, correction: bool = False) -> None:
        """Append any bytes."""
        topic = TOPICS.feedback if correction else TOPICS.pairs
        partition = partition_of(task, PARTITIONS)
        log = self._logs.setdefault((topic, partition), [])
        headers = [("edgeseq-id", pair_id.encode()), ("edgeseq-producer", b"erp")]
        log.append(LogRecord(topic, partition, len(log), task.encode(), value, headers))
        key = pair_key(LOG, topic, len(log) - 1)
        self.sent.append(SentPair(name=(task, "erp", pair_id), key=key))

    # --- services ---------------------------------------------------------------------------------
    def start_consumer(self) -> None:
        """A new owner: its epochs fence the former one."""
        budget = FreshBudget(self.buffer, budget_bytes=1 << 30, partitions=PARTITIONS)
        self._placer = Placer(
            self.buffer,
            desk=cast(ControlDesk, None),
            dead_letters=cast(DeadLetterProducer, self.letters),
            budget=budget,
            clock=self.clock,
            events=ConsumerEvents(),
        )
        self._intake = Intake(
            self._base.vocabulary,
            self._base.header.record_digest,
            partitions=PARTITIONS,
            limits=IntakeLimits(),
            clock=self.clock,
        )
        for partition in range(PARTITIONS):
            epoch = self.buffer.acquire("consumer", partition)
            self._owned[partition] = Owned(epoch, self.buffer.positions(partition))

    def start_learner(self) -> None:
        """A new owner: its epochs fence the former one."""
        self.learner = LearnerLoop(
            self.buffer,
            self.registry,
            self._base,
            self._config,
            partitions=range(PARTITIONS),
            partition_count=PARTITIONS,
            clock=self.clock,
        )

    def consume(self, *, batch: int = 5) -> None:
        """Place all that follows the stored positions."""
        for (topic, partition), log in self._logs.items():
            kind = Feedback if topic == TOPICS.feedback else Pair
            owned = self._owned[partition]
            owned.positions.setdefault(topic, Position(LOG, 0))
            if topic not in self.buffer.positions(partition):
                self.buffer.ingest(
                    partition,
                    [],
                    epoch=owned.epoch,
                    topic=topic,
                    expected=None,
                    position=Position(LOG, 0),
                    now_ms=self.clock.wall_ms(),
                )
            while records := log[owned.positions[topic].offset :][:batch]:
                taken = self._intake.take(records, kind)
                self._placer.place(Batch(TopicPartition(topic, partition), records, taken), owned)

    def learn(self, turns: int = 1_000) -> None:
        """Take turns until nothing is left to do."""
        for _ in range(turns):
            if self.learner.run_once() is None:
                return

    def ask(self, task: str, request_id: str) -> None:
        """A request, as far as the checker cares: which snapshot answers it?"""
        self.watch.poll()
        snapshot_id = self.engine.snapshot_id(task)
        self.heard.append(
            HeardReply(
                request_id=request_id,
                task=task,
                snapshot_id=snapshot_id,
                answer=str(snapshot_id).encode(),
                sent_ms=self.clock.wall_ms(),
            )
        )

    # --- the history ------------------------------------------------------------------------------
    def facts(self) -> Facts:
        """All of it, as the checker wants it."""
        return Facts(
            tasks=task_facts(self.buffer, self.registry, partitions=PARTITIONS),
            sent=self.sent,
            outcomes=outcomes(self.buffer, {pair.name for pair in self.sent}),
            letters=frozenset(self.letters.keys),
            asked=frozenset(reply.request_id for reply in self.heard),
            heard=self.heard,
        )
