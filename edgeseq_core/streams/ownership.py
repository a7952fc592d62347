"""Which partitions this consumer owns, in which log and where each of their topics stands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError

from edgeseq_core.clock import Clock
from edgeseq_core.errors import BrokerError, FencedError, StoreError
from edgeseq_core.replay.buffer import Position, ReplayBuffer
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import broker_errors
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.kafka_defects import forget_end
from edgeseq_core.streams.log_identity import LogReader, Start, plan_start, same_log

RETRY_FIRST_S = 0.05
RETRY_LAST_S = 5.0
ASK_TIMEOUT_MS = 2_000

log = structlog.get_logger(__name__)


@dataclass
class Owned:
    """A partition that was adopted: the epoch that fences others, and where each topic stands."""

    epoch: int
    positions: dict[str, Position]
    known_tasks: set[str] = field(default_factory=set)  # had a pair accepted since the adoption


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what changed; kafka-python calls it on its IO thread, where nothing may block.

    New partitions are paused at once, so that none is read before its position is known.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.changes: deque[tuple[str, frozenset[int]]] = deque()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """All that is this consumer's from now on."""
        tps = frozenset(assigned)
        self._consumer.pause(*tps)
        self.changes.append(("assigned", frozenset(tp.partition for tp in tps)))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """These go elsewhere, or come back when the rebalance is over."""
        self.changes.append(("revoked", frozenset(tp.partition for tp in revoked)))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """These were taken away: this member was expelled."""
        self.changes.append(("lost", frozenset(tp.partition for tp in lost)))


class Ownership:
    """Adopts assigned partitions and gives them up; used by the consumer's thread alone."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        *,
        kafka: KafkaSettings,
        topics: Sequence[str],
        logs: LogReader,
        store: ReplayBuffer,
        clock: Clock,
        events: ConsumerEvents,
    ) -> None:
        self._consumer = consumer
        self._kafka = kafka
        self._topics = topics
        self._logs = logs
        self._store = store
        self._clock = clock
        self._events = events
        self._listener = RebalanceListener(consumer)
        self.owned: dict[int, Owned] = {}
        self.awaited: dict[int, float] = {}  # assigned, not yet adopted -> when to try
        self._wait_s: dict[int, float] = {}
        self._given_up: dict[int, float] = {}  # fenced -> when to ask the group whose it is
        self._gaps: dict[TopicPartition, tuple[int, int]] = {}
        self._truncated: set[TopicPartition] = set()
        self._said: set[tuple[str, str]] = set()
        self.on_adopt: Callable[[int], None] = lambda _: None
        self.on_forget: Callable[[int], None] = lambda _: None
        self.missing_topics: set[str] = set()

    def join(self) -> None:
        """Join the group, knowing the partitions: else the first assignment would be empty."""
        with broker_errors(self._kafka, "asking for partitions"):
            for topic in self._topics:
                self._consumer.partitions_for_topic(topic)
        self._consumer.subscribe(topics=list(self._topics), listener=self._listener)

    def take_changes(self) -> None:
        """Work off what the group decided since the last call."""
        while self._listener.changes:
            change, partitions = self._listener.changes.popleft()
            for partition in partitions:
                self.forget(partition)
                self._truncated = {tp for tp in self._truncated if tp.partition != partition}
                if change == "assigned":
                    self.awaited[partition] = 0.0
            log.info(f"partitions_{change}", partitions=sorted(partitions))

    def forget(self, partition: int) -> None:
        """Know nothing of a partition any more."""
        self.owned.pop(partition, None)
        self._given_up.pop(partition, None)
        self._wait_s.pop(partition, None)
        self.awaited.pop(partition, None)
        self.on_forget(partition)

    def readopt(self, partitions: Iterable[int]) -> None:
        """Look at the logs of these afresh; until then nothing of them is read."""
        for partition in partitions:
            self.forget(partition)
            self.awaited[partition] = 0.0
            self._consumer.pause(*self._assigned(partition))

    def give_up(self, partition: int, error: FencedError) -> None:
        """Another owner has moved on, or the store has lost its last second."""
        log.warning("partition_given_up", partition=partition, reason=str(error))
        self.forget(partition)
        wait_s = self._kafka.session_timeout_ms / 1000
        self._given_up[partition] = self._clock.monotonic() + wait_s

    # --- adoption --------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Take over assigned partitions: epoch, positions, seek; failures are tried again."""
        now_s = self._clock.monotonic()
        self._reclaim(now_s)
        due = [p for p, at_s in self.awaited.items() if at_s <= now_s]
        if not due:
            return
        try:
            names = self.identities()
            tps = [tp for partition in due for tp in self._assigned(partition)]
            with broker_errors(self._kafka, "asking for offsets"):
                beginnings = self._consumer.beginning_offsets(tps)
            for partition in due:
                mine = {tp: at for tp, at in beginnings.items() if tp.partition == partition}
                self._adopt(partition, names, mine)
        except (BrokerError, StoreError) as error:
            self._later([p for p in due if p not in self.owned], str(error))

    def _assigned(self, partition: int) -> list[TopicPartition]:
        mine = self._consumer.assignment()
        return [tp for topic in self._topics if (tp := TopicPartition(topic, partition)) in mine]

    def identities(self) -> dict[str, str]:
        """Topic -> its log's identity; raises BrokerError when a topic is missing."""
        names = self._logs.identities(self._topics)
        self.missing_topics = set(self._topics) - set(names)
        if self.missing_topics:
            lacking = ", ".join(sorted(self.missing_topics))
            raise BrokerError(f"the broker at {self._kafka.bootstrap} lacks the topics {lacking}")
        return names

    def _adopt(
        self, partition: int, names: dict[str, str], beginnings: dict[TopicPartition, int]
    ) -> None:
        owned = Owned(self._store.acquire("consumer", partition), {})
        stored = self._store.positions(partition)
        for tp, beginning in beginnings.items():
            before = stored.get(tp.topic)
            truncated = tp in self._truncated
            start = plan_start(before, names[tp.topic], beginning, truncated=truncated)
            if start.reset is not None and before is not None:
                self._say(tp, before, start)
            if start.position != before:
                self._store.ingest(
                    partition,
                    [],
                    epoch=owned.epoch,
                    topic=tp.topic,
                    expected=before,
                    position=start.position,
                    now_ms=self._clock.wall_ms(),
                )
            owned.positions[tp.topic] = start.position
            self._consumer.seek(tp, start.position.offset)
            forget_end(self._consumer, tp)
            self._truncated.discard(tp)
        self.on_adopt(partition)
        self.owned[partition] = owned
        self.awaited.pop(partition, None)
        self._wait_s.pop(partition, None)

    def _say(self, tp: TopicPartition, before: Position, start: Start) -> None:
        """Count a changed log in each partition; say it once a topic."""
        self._events.log_reset(tp.topic)
        event = (tp.topic, start.position.log)
        say = log.debug if event in self._said else log.error
        self._said.add(event)
        say(
            f"log_{start.reset}",
            topic=tp.topic,
            partition=tp.partition,
            was=f"{before.log}|{before.offset}",
            now=f"{start.position.log}|{start.position.offset}",
            missing_records=start.missing,
            what="the log is read from its earliest record",
        )

    def _later(self, partitions: Sequence[int], reason: str) -> None:
        for partition in partitions:
            wait_s = min(self._wait_s.get(partition, RETRY_FIRST_S) * 2, RETRY_LAST_S)
            self._wait_s[partition] = wait_s
            self.awaited[partition] = self._clock.monotonic() + wait_s
        log.warning("adoption_waits", partitions=partitions, reason=reason)

    def _reclaim(self, now_s: float) -> None:
        """Adopt a given-up partition again, if the group confirms that it is still this member's.

        A commit is accepted only from the group's present generation, so a member that was expelled
        while it slept cannot take anything back; what it gets comes by the next assignment.
        """
        for partition in [p for p, at_s in self._given_up.items() if at_s <= now_s]:
            try:
                for tp in self._assigned(partition)[:1]:
                    offset = self._consumer.committed(tp, timeout_ms=ASK_TIMEOUT_MS) or 0
                    mark = {tp: OffsetAndMetadata(offset, "", -1)}
                    self._consumer.commit(mark, timeout_ms=ASK_TIMEOUT_MS)
                    self.awaited[partition] = now_s
            except KafkaError as error:
                log.info("not_reclaimed", partition=partition, reason=type(error).__name__)
                self._given_up[partition] = now_s + RETRY_LAST_S
            else:
                del self._given_up[partition]

    # --- is it still the same log? ---------------------------------------------------------------

    def continues(self, tp: TopicPartition, first: int, names: dict[str, str]) -> bool:
        """Whether records from offset ``first`` follow what is stored of the log called ``names``.

        If not, they are read again: from the position, or as a log that has changed.
        """
        position = self.owned[tp.partition].positions[tp.topic]
        if not same_log(position, names[tp.topic]):
            self.readopt([tp.partition])
            return False
        if first == position.offset:
            return True
        # Transactions and compaction leave gaps; so would whatever made this consumer skip a record.
        # What is met once is read again; what is met twice is so.
        seen = (position.offset, first)
        if self._gaps.pop(tp, None) != seen:
            self._gaps[tp] = seen
            self._consumer.seek(tp, position.offset)
            return False
        if first < position.offset:
            self._lost_end(tp)
            return False
        with broker_errors(self._kafka, "asking for a log's beginning"):
            beginning = self._consumer.beginning_offsets([tp])[tp]
        if beginning > position.offset:
            self.readopt([tp.partition])
            return False
        return True

    def _lost_end(self, tp: TopicPartition) -> None:
        self._truncated.add(tp)
        self.readopt([tp.partition])

    def check_store(self, busy: Container[int]) -> None:
        """Notice a store that fell back (its last second is lost) while nothing is placed in it.

        Partitions in ``busy`` have a batch whose outcome is open; it finds out by itself.
        """
        for partition, owned in list(self.owned.items()):
            if partition in busy:
                continue
            stored = self._store.positions(partition)
            for topic, position in owned.positions.items():
                if (found := stored.get(topic)) != position:
                    error = FencedError(f"the position of {topic} is {found}, not {position}")
                    self.give_up(partition, error)
                    break

    def check_logs(self) -> None:
        """Notice a log that changed while nothing comes from it; tell how far behind this is."""
        names = self.identities() if self.owned else {}
        changed = {
            partition
            for partition, owned in self.owned.items()
            for topic, position in owned.positions.items()
            if not same_log(position, names[topic])
        }
        self.readopt(changed)
        for partition, owned in list(self.owned.items()):
            for topic, position in owned.positions.items():
                tp = TopicPartition(topic, partition)
                end = self._consumer.highwater(tp)
                if end is None:
                    continue
                if 0 <= end < position.offset:
                    self._lost_end(tp)
                    break
                self._events.lag(topic, partition, end - position.offset)
