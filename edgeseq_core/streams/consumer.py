"""The consumer loop: Kafka's pairs, feedback and control into the store, each once, in order.

The store's script places the pairs of a batch and moves the stored position in one step, fenced by
the epoch that this consumer took when the partition was assigned to it.  So a crash anywhere, a
rebalance or a redelivery changes nothing twice.  What cannot be stored now is held and tried again,
with its partition paused; what can never be stored goes to the dead-letter topic, and the position
moves only after that is acknowledged.

After each poll the broker is asked which log it holds.  Topic ids never come back, so records that
were fetched before the same id was seen are of that log: a re-created one cannot slip in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from edgeseq_core.clock import Clock
from edgeseq_core.errors import BrokerError, FencedError, StoreError
from edgeseq_core.keys import Topics
from edgeseq_core.messages import Control, Feedback, Pair
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.budget import FreshBudget
from edgeseq_core.streams.connect import broker_errors
from edgeseq_core.streams.dead_letters import Record
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.intake import Intake
from edgeseq_core.streams.kafka_defects import finish_join, resume
from edgeseq_core.streams.ownership import RETRY_FIRST_S, RETRY_LAST_S, Ownership
from edgeseq_core.streams.placing import Batch, Placer

LOOK_S = 1.0  # how often logs, budgets and lag are looked at when nothing asks for it sooner
COMMIT_S = 1.0
COMMIT_TIMEOUT_MS = 2_000

log = structlog.get_logger(__name__)
Polled = list[tuple[TopicPartition, list[Record]]]


def kinds_of(topics: Topics) -> dict[str, type[Pair | Feedback | Control]]:
    """The topics a consumer reads and what is on them, in the order in which it works them off."""
    return {topics.control: Control, topics.feedback: Feedback, topics.pairs: Pair}


@dataclass
class Held:
    """A batch that waits to be tried again."""

    batch: Batch
    wait_s: float
    at_s: float


class PairConsumer:
    """One member of the consumer group; ``run_once`` is one bounded round of its loop."""

    def __init__(  # noqa: PLR0913 - its parts, see `open_consumer.open_pair_consumer`
        self,
        consumer: KafkaConsumer,
        kafka: KafkaSettings,
        *,
        ownership: Ownership,
        intake: Intake,
        placer: Placer,
        budget: FreshBudget,
        clock: Clock,
        events: ConsumerEvents,
        max_batch: int,
        closers: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._ownership = ownership
        self._intake = intake
        self._placer = placer
        self._budget = budget
        self._clock = clock
        self._events = events
        self._max_batch = max_batch
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._closers = closers
        topics = Topics(kafka.topic_prefix)
        self._kinds = kinds_of(topics)
        self._pairs_topic = topics.pairs
        self._held: dict[TopicPartition, Held] = {}
        self._look_at_s = 0.0
        self._commit_at_s = 0.0
        ownership.on_adopt = budget.measure  # a full partition stays paused, whoever owns it
        ownership.on_forget = self._forget

    @property
    def partitions(self) -> set[int]:
        """The partitions that this consumer reads now."""
        return set(self._ownership.owned)

    @property
    def missing_topics(self) -> set[str]:
        """Topics that the broker lacked when it was asked last: to be created again."""
        return self._ownership.missing_topics

    @property
    def held_records(self) -> int:
        """Records that were read and wait for the store or the dead-letter topic."""
        return sum(len(held.batch.records) for held in self._held.values())

    def start(self) -> None:
        """Join the group."""
        self._ownership.join()

    def run_once(self, *, timeout_ms: int = 200) -> int:
        """Poll once and store what came; returns how many records are settled.

        Raises BrokerError when the broker refuses to be read; all else is held and tried again.
        """
        self._ownership.take_changes()
        self._ownership.adopt()
        settled = self._retry_held()
        self._look()
        self._set_pauses()
        with broker_errors(self._kafka, "reading pairs"):
            polled = self._consumer.poll(timeout_ms=self._wait_ms(timeout_ms))
        finish_join(self._consumer)
        self._ownership.take_changes()
        ordered = [(tp, polled[tp]) for topic in self._kinds for tp in polled if tp.topic == topic]
        for tp, records in self._verified(ordered):
            settled += self._settle(tp, records)
        self._commit_for_lag()
        return settled

    def close(self, *, timeout_ms: int = 5_000) -> None:
        """Leave the group; what is held was not passed by the position and is read again."""
        self._worker.shutdown()
        self._commit_for_lag(wait=True)
        self._consumer.close(autocommit=False, timeout_ms=timeout_ms)
        for close in self._closers:
            close()

    # --- batches ---------------------------------------------------------------------------------

    def _verified(self, polled: Polled) -> Polled:
        """Those records that continue the log their partition was positioned in."""
        owned = self._ownership.owned
        polled = [(tp, records) for tp, records in polled if tp.partition in owned]
        if not polled:
            return []
        try:
            names = self._ownership.identities()
            good = []
            for tp, records in polled:
                if tp in self._held:  # fetched before it was paused: read again after those
                    self._consumer.seek(tp, self._held[tp].batch.next_offset)
                elif tp.partition in owned and self._ownership.continues(
                    tp, records[0].offset, names
                ):
                    good.append((tp, records))
        except BrokerError as error:
            log.warning("read_again", reason=str(error))
            # They are not adopted anew: after a pause they may be another's, whom that would fence.
            for tp in {tp for tp, _ in polled} & self._consumer.assignment() - self._held.keys():
                if tp.partition in owned:
                    self._consumer.seek(tp, owned[tp.partition].positions[tp.topic].offset)
            return []
        return [(tp, records) for tp, records in good if tp.partition in owned]

    def _settle(self, tp: TopicPartition, records: list[Record]) -> int:
        """Store records in batches; what follows a held batch is read again after it.

        While the store works on one batch, the next is decoded; never two at once in the store.
        """
        settled = 0
        batches = self._decoded(tp, records)
        batch: Batch | None = next(batches)
        while batch is not None:
            more = batch.next_offset <= records[-1].offset
            if more:
                storing = self._worker.submit(self._try, batch, RETRY_FIRST_S)
                following = next(batches)
                settled += storing.result()
            else:
                following = None
                settled += self._try(batch, RETRY_FIRST_S)
            if tp in self._held:
                self._consumer.seek(tp, batch.next_offset)
            if tp in self._held or tp.partition not in self._ownership.owned:
                break
            batch = following
        return settled

    def _decoded(self, tp: TopicPartition, records: list[Record]) -> Iterator[Batch]:
        for at in range(0, len(records), self._max_batch):
            chunk = records[at : at + self._max_batch]
            yield Batch(tp, chunk, self._intake.take(chunk, self._kinds[tp.topic]))

    def _try(self, batch: Batch, wait_s: float) -> int:
        """Store a batch, or hold it for ``wait_s``; returns how many records are settled."""
        tp = batch.tp
        owned = self._ownership.owned.get(tp.partition)
        if owned is None:
            return 0
        started_s = self._clock.monotonic()
        try:
            self._placer.place(batch, owned)
        except FencedError as error:
            self._ownership.give_up(tp.partition, error)
            return 0
        except (StoreError, BrokerError) as error:
            self._held[tp] = Held(batch, wait_s, self._clock.monotonic() + wait_s)
            log.warning(
                "batch_held",
                topic=tp.topic,
                partition=tp.partition,
                records=len(batch.records),
                retry_s=wait_s,
                reason=str(error),
            )
            return 0
        self._held.pop(tp, None)
        self._events.batch(self._clock.monotonic() - started_s)
        return len(batch.records)

    def _retry_held(self) -> int:
        now_s = self._clock.monotonic()
        due = [held for held in self._held.values() if held.at_s <= now_s]
        return sum(self._try(held.batch, min(held.wait_s * 2, RETRY_LAST_S)) for held in due)

    def _forget(self, partition: int) -> None:
        self._budget.forget(partition)
        for tp in [tp for tp in self._held if tp.partition == partition]:
            del self._held[tp]

    # --- now and then ----------------------------------------------------------------------------

    def _look(self) -> None:
        """Are logs and store the same, is there room again, how far behind is this?"""
        now_s = self._clock.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        try:
            self._budget.measure_over()
            self._ownership.check_store({tp.partition for tp in self._held})
            self._ownership.check_logs()
        except (StoreError, BrokerError) as error:
            log.warning("look_failed", reason=str(error))

    def _set_pauses(self) -> None:
        """Pause what is not adopted, held, or (pairs only) over its budget; resume the rest."""
        owned = self._ownership.owned
        over = self._budget.over
        waiting = {
            tp
            for tp in self._consumer.assignment()
            if tp.partition not in owned
            or tp in self._held
            or (tp.partition in over and tp.topic == self._pairs_topic)
        }
        paused = self._consumer.paused()
        resume(self._consumer, paused - waiting)
        self._consumer.pause(*(waiting - paused))
        self._events.paused(sum(tp.partition in owned for tp in waiting))

    def _wait_ms(self, timeout_ms: int) -> int:
        """Until the next retry is due, at most ``timeout_ms``."""
        times = [held.at_s for held in self._held.values()]
        times += self._ownership.awaited.values()
        left_s = min(times, default=float("inf")) - self._clock.monotonic()
        return int(min(max(left_s * 1000, 0), timeout_ms))

    def _commit_for_lag(self, *, wait: bool = False) -> None:
        """Tell Kafka how far this is; nothing depends on it but tools that show lag."""
        now_s = self._clock.monotonic()
        if now_s < self._commit_at_s and not wait:
            return
        self._commit_at_s = now_s + COMMIT_S
        offsets = {
            TopicPartition(topic, partition): OffsetAndMetadata(position.offset, "", -1)
            for partition, owned in self._ownership.owned.items()
            for topic, position in owned.positions.items()
        }
        try:
            if offsets and wait:
                self._consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)
            elif offsets:
                self._consumer.commit_async(offsets)
        except KafkaError as error:
            log.debug("commit_failed", reason=type(error).__name__)
