"""Dead letters: records that cannot be used, kept byte for byte with the reason in headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from edgeseq_core import keys
from edgeseq_core.clock import Clock
from edgeseq_core.errors import BrokerUnavailableError, ConfigError, MessageError
from edgeseq_core.messages import Control, DeadLetter, Feedback, Pair, decode
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import MAX_REQUEST_BYTES, broker_errors, open_consumer
from edgeseq_core.streams.producer import OutRecord, RecordProducer

MAX_DETAIL_BYTES = 500
MAX_ATTEMPTS = 1_000_000
POLL_MS = 500
IDLE_POLLS = 20  # this many empty polls in a row: the broker answers no more
OWN_HEADERS = frozenset(
    {
        keys.HEADER_REASON,
        keys.HEADER_DETAIL,
        keys.HEADER_ORIGIN,
        keys.HEADER_ATTEMPTS,
        keys.HEADER_FIRST_SEEN_MS,
    }
)


class Record(Protocol):
    """What this module needs of a consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Letter:
    """A record on its way to the dead-letter topic."""

    record: Record
    reason: str
    detail: str


class DeadLetterProducer:
    """Puts records on the dead-letter topic and waits until they are safe there."""

    def __init__(self, producer: RecordProducer, topics: keys.Topics, clock: Clock) -> None:
        self._producer = producer
        self._topic = topics.dead_letters
        self._clock = clock

    def put(self, letters: Sequence[Letter]) -> None:
        """Return once all are acknowledged; raises BrokerError when one is not."""
        self._producer.send_all([self.out(letter) for letter in letters])

    def out(self, letter: Letter) -> OutRecord:
        """The dead letter as a record, for a caller that sends it without waiting."""
        record = letter.record
        tried = _int_header(record, keys.HEADER_ATTEMPTS)
        first_ms = _int_header(record, keys.HEADER_FIRST_SEEN_MS) or self._clock.wall_ms()
        kept = [(n, v) for n, v in record.headers if n not in OWN_HEADERS]
        own = {
            keys.HEADER_REASON: letter.reason,
            keys.HEADER_DETAIL: letter.detail,
            keys.HEADER_ORIGIN: f"{record.topic}/{record.partition}/{record.offset}",
            keys.HEADER_ATTEMPTS: str(min(tried, MAX_ATTEMPTS) + 1),
            keys.HEADER_FIRST_SEEN_MS: str(first_ms),
        }
        return OutRecord(
            topic=self._topic,
            key=record.key,
            value=record.value or b"",
            headers=[*kept, *((n, v.encode()[:MAX_DETAIL_BYTES]) for n, v in own.items())],
        )


def header(record: Record, name: str) -> str:
    """A header's text; empty when it is absent or no UTF-8."""
    for key, value in record.headers:
        if key == name and value is not None:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return ""
    return ""


def _int_header(record: Record, name: str) -> int:
    text = header(record, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else 0


def list_dead_letters(kafka: KafkaSettings, *, all_letters: bool = False) -> list[DeadLetter]:
    """Dead letters, oldest first: those not yet redriven by a whole redrive, or all there are."""
    consumer = _open(kafka)
    try:
        return [_describe(record) for record in _scan(consumer, kafka, all_letters=all_letters)]
    finally:
        consumer.close()


def redrive(
    kafka: KafkaSettings,
    *,
    names: Sequence[str] = (),
    wanted: Callable[[DeadLetter], bool] = lambda _: True,
) -> list[DeadLetter]:
    """Send dead letters to their topic again, keyed by task; returns those that were sent.

    Without ``names`` ("partition/offset") every open letter that is ``wanted`` is sent, and all are
    then closed: `list_dead_letters` shows them no more.  A letter that fails again comes back as a
    new one with one more attempt.  A pair that was accepted meanwhile is a duplicate, not a second.
    """
    topics = keys.Topics(kafka.topic_prefix)
    consumer = _open(kafka)
    try:
        records = list(_scan(consumer, kafka, all_letters=bool(names)))
        chosen = [
            (record, letter)
            for record in records
            if wanted(letter := _describe(record)) and (not names or letter.name in names)
        ]
        if lacking := sorted(set(names) - {letter.name for _, letter in chosen}):
            raise ConfigError(
                f"there is no dead letter {lacking[0]}; `edgeseq dlq list` names them"
            )
        with RecordProducer(kafka, client_id="edgeseq-redrive") as producer:
            producer.send_all([_again(record, letter, topics) for record, letter in chosen])
        if records and not names:
            last: dict[TopicPartition, OffsetAndMetadata] = {
                TopicPartition(r.topic, r.partition): OffsetAndMetadata(r.offset + 1, "", -1)
                for r in records
            }
            with broker_errors(kafka, "closing dead letters"):
                consumer.commit(last)
    finally:
        consumer.close()
    return [letter for _, letter in chosen]


def _again(record: Record, letter: DeadLetter, topics: keys.Topics) -> OutRecord:
    if letter.origin_topic not in (topics.pairs, topics.feedback, topics.control):
        raise ConfigError(
            f"dead letter {letter.name} names the topic {letter.origin_topic}, which takes none"
        )
    value = record.value or b""
    try:
        message = decode(value, Pair, Feedback, Control, max_bytes=MAX_REQUEST_BYTES)
        task = message.task if isinstance(message, Pair | Feedback | Control) else None
        key = task.encode() if task else record.key
    except MessageError:
        key = record.key
    kept = [(n, v) for n, v in record.headers if n not in OWN_HEADERS]
    counted = (
        (keys.HEADER_ATTEMPTS, str(letter.attempts).encode()),
        (keys.HEADER_FIRST_SEEN_MS, str(letter.first_seen_ms).encode()),
    )
    return OutRecord(topic=letter.origin_topic, key=key, value=value, headers=[*kept, *counted])


def _open(kafka: KafkaSettings) -> KafkaConsumer:
    return open_consumer(
        kafka, group=f"{kafka.topic_prefix}.redrive", client_id="edgeseq-dead-letters"
    )


def _scan(consumer: KafkaConsumer, kafka: KafkaSettings, *, all_letters: bool) -> Iterator[Record]:
    """The records from the earliest (or the first open one) to what is the end now."""
    topic = keys.Topics(kafka.topic_prefix).dead_letters
    with broker_errors(kafka, f"reading {topic}"):
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise ConfigError(f"there is no topic {topic} at {kafka.bootstrap}; start the services")
        consumer.assign(partitions)
        for tp in partitions:
            closed = 0 if all_letters else (consumer.committed(tp) or 0)
            consumer.seek(tp, max(consumer.beginning_offsets([tp])[tp], closed))
        ends: dict[TopicPartition, int] = {}
        idle = 0
        while True:
            polled = consumer.poll(timeout_ms=POLL_MS)
            idle = 0 if polled else idle + 1
            if idle > IDLE_POLLS:
                raise BrokerUnavailableError(
                    f"the broker at {kafka.bootstrap} stopped answering while reading {topic}"
                )
            for tp in partitions:
                end = consumer.highwater(tp)  # end_offsets is too small on the embedded broker
                if tp not in ends and end is not None:
                    ends[tp] = end
                    if end < consumer.position(tp):  # what was closed was in a former log
                        consumer.seek_to_beginning(tp)
            for tp, records in polled.items():
                yield from (r for r in records if r.offset < ends[tp])
            if all(tp in ends and consumer.position(tp) >= ends[tp] for tp in partitions):
                return


def _describe(record: Record) -> DeadLetter:
    origin = header(record, keys.HEADER_ORIGIN).rsplit("/", 2)
    topic, partition, offset = origin if len(origin) == 3 else ("", "", "")
    return DeadLetter(
        reason=header(record, keys.HEADER_REASON),
        detail=header(record, keys.HEADER_DETAIL),
        origin_topic=topic,
        origin_partition=int(partition) if partition.isdigit() else 0,
        origin_offset=int(offset) if offset.isdigit() else 0,
        attempts=max(_int_header(record, keys.HEADER_ATTEMPTS), 1),
        first_seen_ms=_int_header(record, keys.HEADER_FIRST_SEEN_MS),
        size_bytes=len(record.value or b""),
        headers={n: header(record, n) for n, _ in record.headers if n not in OWN_HEADERS},
        partition=record.partition,
        offset=record.offset,
    )
