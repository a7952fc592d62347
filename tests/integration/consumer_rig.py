"""A consumer on real servers: a broker, a Redis, and what tests ask of them."""

from __future__ import annotations

import json
import string
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient

from edgeseq_core.clock import SystemClock
from edgeseq_core.keys import Topics, partition_of
from edgeseq_core.messages import DeadLetter, Message, Pair, encode
from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.record import owner_of
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.replay.rules import StoreLimits
from edgeseq_core.settings import ConsumerSettings, KafkaSettings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.streams.consumer import PairConsumer
from edgeseq_core.streams.dead_letters import list_dead_letters
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.open_consumer import open_pair_consumer
from edgeseq_core.streams.producer import OutRecord, RecordProducer
from edgeseq_core.streams.topics import create_topics
from edgeseq_core.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(string.printable)
DIGEST = b"12345678"
PARTITIONS = 4
TASKS = ("dates", "glosses", "edits", "units")  # in partitions 3, 2, 1 and 0


class CountedEvents(ConsumerEvents):
    """Remembers what was counted."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()
        self.controls: list[tuple[str, str]] = []
        self.most_paused = 0
        self.now_paused = 0

    def pairs(self, task: str, outcome: str, count: int) -> None:
        self.outcomes[outcome] += count

    def dead_letter(self, reason: str) -> None:
        self.letters[reason] += 1

    def log_reset(self, topic: str) -> None:
        self.resets[topic.rpartition(".")[2]] += 1

    def control(self, action: str, outcome: str) -> None:
        self.controls.append((action, outcome))

    def paused(self, partitions: int) -> None:
        self.now_paused = partitions
        self.most_paused = max(partitions, self.most_paused)


def pair(pair_id: str, *, task: str = "dates", **changes: Any) -> Pair:
    """A valid pair."""
    fields: dict[str, Any] = {
        "pair_id": pair_id,
        "producer": "erp",
        "task": task,
        "source": f"source {pair_id}",
        "target": f"target {pair_id}",
        "sent_at_ms": time.time_ns() // 1_000_000,
    }
    return Pair(**fields | changes)


def broken(message: Pair, **changes: Any) -> bytes:
    """A pair's JSON with fields that no valid one has."""
    return json.dumps(json.loads(encode(message)) | changes).encode()


@dataclass
class Rig:
    """One deployment: topics, a store, a registry, and the consumers that a test opened."""

    kafka: KafkaSettings
    redis_url: str
    prefix: str
    settings: ConsumerSettings = field(default_factory=ConsumerSettings)
    limits: StoreLimits = field(default_factory=StoreLimits)
    opened: list[PairConsumer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topics = Topics(self.kafka.topic_prefix)
        self.client = connect(self.redis_url)
        check_store(self.client, prefix=self.prefix, partitions=PARTITIONS)
        self.store = RedisStore(
            self.client, prefix=self.prefix, partitions=PARTITIONS, limits=self.limits
        )
        self.registry = RedisRegistry(self.client, prefix=self.prefix, partitions=PARTITIONS)
        create_topics(self.kafka)
        self.producer = RecordProducer(self.kafka, client_id="test")

    def open(self, **changes: Any) -> tuple[PairConsumer, CountedEvents]:
        """Another member of the group."""
        events = CountedEvents()
        parts: dict[str, Any] = {"store": self.store, "registry": self.registry, **changes}
        consumer = open_pair_consumer(
            self.kafka,
            self.settings,
            vocabulary=VOCABULARY,
            digest=DIGEST,
            max_tokens=256,
            clock=SystemClock(),
            events=events,
            **parts,
        )
        self.opened.append(consumer)
        return consumer, events

    def run(
        self,
        *consumers: PairConsumer,
        until: Callable[[], bool],
        timeout_s: float = 40.0,  # joining takes half a session time-out, twice as long when busy
        step_ms: int = 50,
    ) -> None:
        """Run consumers in turn until a condition holds."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, "the condition was not met in time"
            for consumer in consumers:
                consumer.run_once(timeout_ms=step_ms)

    def ready(self, *consumers: PairConsumer) -> None:
        """Run until the consumers own all partitions between them."""
        self.run(*consumers, until=lambda: sum(len(c.partitions) for c in consumers) == PARTITIONS)

    def send(self, *messages: Message) -> None:
        """Send messages to the topic of their kind, keyed by task."""
        named = {"pair": self.topics.pairs, "feedback": self.topics.feedback}
        self.producer.send_all(
            [
                OutRecord(
                    topic=named.get(m.kind, self.topics.control),
                    key=m.task.encode(),  # type: ignore[attr-defined]
                    value=encode(m),
                )
                for m in messages
            ]
        )

    def send_raw(self, value: bytes, *, task: str = "dates", **record: Any) -> None:
        """Send bytes that need not be a message."""
        fields: dict[str, Any] = {"topic": self.topics.pairs, "key": task.encode(), "value": value}
        self.producer.send_all([OutRecord(**fields | record)])

    def stored(self, *tasks: str) -> list[str]:
        """Pair ids in the fresh parts, in order, corrections first."""
        found = []
        for task in tasks or TASKS:
            for part in ("corrections", "bulk"):
                kept = self.store.read(task, part)  # type: ignore[arg-type]
                found += [owner_of(p.record)[1] for p in kept]
        return found

    def letters(self) -> list[DeadLetter]:
        return list_dead_letters(self.kafka)

    def position(self, topic: str, task: str = "dates") -> int:
        """The stored position of a task's partition."""
        found = self.store.positions(partition_of(task, PARTITIONS)).get(topic)
        return found.offset if found else -1

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it again."""
        with KafkaAdminClient(bootstrap_servers=self.kafka.bootstrap) as admin:
            admin.delete_topics([topic])
            deadline = time.monotonic() + 10
            while topic in admin.list_topics():
                assert time.monotonic() < deadline
        create_topics(self.kafka)
        self.producer.close()
        self.producer = RecordProducer(self.kafka, client_id="test")

    def close(self) -> None:
        for consumer in self.opened:
            consumer.close(timeout_ms=1_000)
        self.producer.close()
        self.client.close()


def many(ids: Iterable[str], tasks: tuple[str, ...] = TASKS) -> list[Pair]:
    """Valid pairs, spread over tasks."""
    return [pair(i, task=tasks[n % len(tasks)]) for n, i in enumerate(ids)]
