"""Puts a consumer together from settings, a store and a registry."""

from __future__ import annotations

from edgeseq_core.clock import Clock, SystemClock
from edgeseq_core.keys import Topics
from edgeseq_core.replay.buffer import ReplayBuffer
from edgeseq_core.settings import ConsumerSettings, KafkaSettings
from edgeseq_core.snapshots.registry import SnapshotRegistry
from edgeseq_core.streams.budget import FreshBudget
from edgeseq_core.streams.connect import open_admin, open_consumer
from edgeseq_core.streams.consumer import PairConsumer, kinds_of
from edgeseq_core.streams.controls import ControlDesk, ReplyAddress
from edgeseq_core.streams.dead_letters import DeadLetterProducer
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.intake import Intake, IntakeLimits
from edgeseq_core.streams.log_identity import LogReader
from edgeseq_core.streams.ownership import Ownership
from edgeseq_core.streams.placing import Placer
from edgeseq_core.streams.producer import RecordProducer
from edgeseq_core.text.vocabulary import Vocabulary

CLIENT_ID = "edgeseq-consumer"
BATCHES_A_POLL = 8  # so that asking which log it was costs little a record


def group_of(topics: Topics) -> str:
    """The consumer group that shares the partitions."""
    return f"{topics.prefix}.consumer"


def open_pair_consumer(  # noqa: PLR0913 - it joins all parts
    kafka: KafkaSettings,
    settings: ConsumerSettings,
    *,
    vocabulary: Vocabulary,
    digest: bytes,
    max_tokens: int,
    store: ReplayBuffer,
    registry: SnapshotRegistry,
    clock: Clock | None = None,
    events: ConsumerEvents | None = None,
) -> PairConsumer:
    """A consumer that has joined its group; raises BrokerUnavailableError when no broker answers.

    ``digest`` is the base's 8-byte record digest, ``max_tokens`` the positions that it knows.
    """
    clock, events = clock or SystemClock(), events or ConsumerEvents()
    topics = Topics(kafka.topic_prefix)
    logs = LogReader(open_admin(kafka, client_id=CLIENT_ID), kafka)
    producer = RecordProducer(kafka, client_id=CLIENT_ID)
    consumer = open_consumer(
        kafka,
        group=group_of(topics),
        client_id=CLIENT_ID,
        max_records=settings.max_batch * BATCHES_A_POLL,
    )
    budget = FreshBudget(
        store, budget_bytes=settings.fresh_budget_bytes, partitions=kafka.partitions
    )
    address = ReplyAddress(topics, logs.partition_count)
    limits = IntakeLimits(
        max_message_bytes=settings.max_message_bytes,
        future_clock_ms=settings.future_clock_ms,
        max_tokens=max_tokens,
    )
    opened = PairConsumer(
        consumer,
        kafka,
        ownership=Ownership(
            consumer,
            kafka=kafka,
            topics=list(kinds_of(topics)),
            logs=logs,
            store=store,
            clock=clock,
            events=events,
        ),
        intake=Intake(vocabulary, digest, partitions=kafka.partitions, limits=limits, clock=clock),
        placer=Placer(
            store,
            desk=ControlDesk(registry, store, producer, address=address, clock=clock),
            dead_letters=DeadLetterProducer(producer, topics, clock),
            budget=budget,
            clock=clock,
            events=events,
        ),
        budget=budget,
        clock=clock,
        events=events,
        max_batch=settings.max_batch,
        closers=(producer.close, logs.close),
    )
    opened.start()
    return opened
