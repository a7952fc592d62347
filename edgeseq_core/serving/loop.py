"""The predictor on Kafka: five threads around one queue.

* intake (the caller's thread): polls requests and bulk, decodes, refuses, queues, commits offsets;
* compute: batches from the queue through the engine to the producer;
* control: reads cancels, from the end of every partition of the control topic;
* status: answers what became of a pair, so that a slow store never holds up an answer;
* watch: follows the champions.

A record's offset is committed once its reply (or dead letter) and those of all before it in its
partition were acknowledged; what a killed predictor had answered is answered again, from the reply
cache.  A thread that dies ends the loop: the process exits and its supervisor starts another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from edgeseq_core.clock import Clock
from edgeseq_core.errors import MessageError, StoreError
from edgeseq_core.keys import Topics
from edgeseq_core.messages import Control, ErrorCode, Reply, decode
from edgeseq_core.serving.addresses import ReplyAddresses
from edgeseq_core.serving.admission import Admission
from edgeseq_core.serving.batcher import Batcher
from edgeseq_core.serving.intake import Intake, status_error
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.offsets import OffsetTracker, TopicOffset
from edgeseq_core.serving.pair_status import PairStatusReader
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.queued import QueuedRequest
from edgeseq_core.serving.sender import Sender
from edgeseq_core.serving.watch import SnapshotWatch
from edgeseq_core.settings import KafkaSettings, PredictorSettings
from edgeseq_core.streams.connect import broker_errors, client_arguments
from edgeseq_core.streams.dead_letters import DeadLetterProducer
from edgeseq_core.streams.kafka_defects import finish_join
from edgeseq_core.streams.producer import RecordProducer

log = structlog.get_logger(__name__)

FETCH_MAX_WAIT_MS = 20  # some brokers look for new records only when this ends; idle, it costs CPU
CONTROL_FETCH_MAX_WAIT_MS = 100
POLL_MS = 100
# A poll must empty what was fetched: kafka-python 3.0.12 never returns to the rest of a fetch whose
# partition was paused in between (its slot for it stays taken by a drained one).
POLL_RECORDS = 1_000_000
FETCH_PARTITION_BYTES = 64 << 10  # so this bounds a poll; a larger record comes alone
IDLE_S = 0.1  # how long a thread sleeps at most before it beats again
COMMIT_EVERY_S = 0.1
RETRY_EVERY_S = 1.0
BULK_PATIENCE_S = 1.0  # however busy the interactive topic is, bulk is polled this often
DRAIN_S = 10.0
LOOPS = ("intake", "compute", "control", "status", "watch")  # what `beat` is called with


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the threads share."""

    predictor: Predictor
    admission: Admission
    watch: SnapshotWatch
    pair_status: PairStatusReader
    clock: Clock
    meter: Meter


class PredictorLoop:
    """Start, run round by round, drain.  ``beat(loop)`` is called by each thread while it lives."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: PredictorSettings,
        parts: Parts,
        *,
        beat: Callable[[str], None] = lambda _loop: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._kafka = kafka
        self._settings = settings
        self._predictor, self._admission = parts.predictor, parts.admission
        self._watch, self._pair_status = parts.watch, parts.pair_status
        self._clock, self._meter = clock, meter = parts.clock, parts.meter
        self._beat = beat
        self._ready: Callable[[], None] | None = ready
        self._topics = Topics(kafka.topic_prefix)
        self._ended = threading.Event()  # no more is polled: the other threads end
        self._answered = threading.Event()  # nor is anything left to be computed
        self._positioned = threading.Event()
        self._failure: BaseException | None = None
        self._offsets = OffsetTracker()
        self._batcher = Batcher(
            self._admission,
            max_rows=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            clock=clock,
        )
        self._consumer = _open_consumer(kafka, group=f"{kafka.topic_prefix}.predictor")
        self._control = _open_consumer(kafka, group=None)
        self._producer = RecordProducer(kafka, client_id="edgeseq-predictor")
        self._sender = Sender(self._producer, self._offsets.settle)
        self._intake = Intake(
            predictor=self._predictor,
            admission=self._admission,
            addresses=ReplyAddresses(self._topics, self._consumer.partitions_for_topic, clock),
            sender=self._sender,
            dead_letters=DeadLetterProducer(self._producer, self._topics, clock),
            topics=self._topics,
            meter=meter,
        )
        self._commit_due_s = self._retry_due_s = self._bulk_due_s = 0.0
        self._uncommitted: dict[TopicPartition, OffsetAndMetadata] = {}
        self._assigned = threading.Event()
        self._joined = False
        bodies = {
            "compute": self._compute,
            "control": self._cancels,
            "status": self._questions,
            "watch": self._follow,
        }
        self._threads = {  # daemons: after a defect the process must be able to end
            name: threading.Thread(
                target=self._guard, args=(name, body), name=f"predictor-{name}", daemon=True
            )
            for name, body in bodies.items()
        }

    def start(self) -> None:
        """Start the threads; the group is joined when the champions are loaded."""
        for thread in self._threads.values():
            thread.start()

    def run_once(self) -> None:
        """One poll; raises what ended a thread, and BrokerError."""
        if self._failure is not None:
            raise self._failure
        if not self._joined and not self._join():
            return
        with broker_errors(self._kafka, "reading requests"):
            self._poll()

    def _join(self) -> bool:
        """Ask for partitions once every champion was looked at: before, all tasks are unknown."""
        self._beat("intake")
        if not (self._watch.ready and self._positioned.is_set()):
            self._ended.wait(IDLE_S / 4)
            return False
        self._consumer.subscribe(
            [self._topics.requests, self._topics.bulk],
            listener=_Rebalance(self._offsets, self._assigned),
        )
        self._joined = True
        return True

    # --- intake -----------------------------------------------------------------------------------
    def _poll(self) -> None:
        self._intake.release()
        self._direct_bulk()
        # With bulk held back, room in the queue must be noticed soon.
        wait_ms = FETCH_MAX_WAIT_MS if self._intake.held() else POLL_MS
        polled = self._consumer.poll(timeout_ms=wait_ms)
        finish_join(self._consumer)
        for partition, records in polled.items():
            for record in records:
                at = TopicOffset(partition.topic, partition.partition, record.offset)
                self._offsets.begin(at)
        if polled:
            self._intake.accept(_interactive_first(polled, self._topics.requests))
        self._meter.queue(self._admission.depth())
        now_s = self._clock.monotonic()
        if now_s >= self._commit_due_s:
            self._commit_due_s = now_s + COMMIT_EVERY_S
            self._commit()
        if now_s >= self._retry_due_s:
            self._retry_due_s = now_s + RETRY_EVERY_S
            self._sender.retry()
        self._say_ready()
        self._beat("intake")

    def _direct_bulk(self) -> None:
        """Leave bulk in Kafka while urgent requests wait, the queue is half full, or it is held."""
        bulk = {p for p in self._consumer.assignment() if p.topic == self._topics.bulk}
        if not bulk:
            return
        depth = self._admission.depth()
        busy = depth["interactive"] + depth["normal"] > 0
        full = sum(depth.values()) >= self._admission.limit // 2 or self._intake.held() > 0
        now_s = self._clock.monotonic()
        if full or (busy and now_s < self._bulk_due_s):
            wanted = bulk
        else:
            wanted = set()
            self._bulk_due_s = now_s + BULK_PATIENCE_S
        paused = self._consumer.paused() & bulk
        if wanted - paused:
            self._consumer.pause(*(wanted - paused))
        if paused - wanted:
            self._consumer.resume(*(paused - wanted))

    def _commit(self, *, last: bool = False) -> None:
        for (topic, partition), offset in self._offsets.take().items():
            self._uncommitted[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, "", -1)
        owned = self._consumer.assignment()
        self._uncommitted = {p: o for p, o in self._uncommitted.items() if p in owned}
        if not self._uncommitted:
            return
        offsets, self._uncommitted = self._uncommitted, {}
        if last:
            self._consumer.commit(offsets, timeout_ms=5_000)
        else:
            self._consumer.commit_async(offsets, callback=_log_commit)

    def _say_ready(self) -> None:
        """Once: the group is joined (so champions are loaded and cancels are heard)."""
        if self._ready is not None and self._assigned.is_set():
            self._ready()
            self._ready = None

    def drain(self) -> None:
        """Finish what was accepted, commit it, close; bulk that was only held is left in Kafka."""
        self._admission.close()
        self._ended.set()
        deadline_s = self._clock.monotonic() + DRAIN_S
        for thread in self._threads.values():
            thread.join(max(0.0, deadline_s - self._clock.monotonic()))
        self._sender.retry()
        self._sender.flush(max(1.0, deadline_s - self._clock.monotonic()))
        try:
            self._commit(last=True)
        except KafkaError as error:
            log.warning("the last offsets were not committed", error=type(error).__name__)
        self._consumer.close(autocommit=False, timeout_ms=2_000)
        self._producer.close(2.0)
        late = [name for name, thread in self._threads.items() if thread.is_alive()]
        log.info("predictor drained", unsettled=self._offsets.unsettled(), still_running=late)

    # --- the other threads ------------------------------------------------------------------------
    def _guard(self, name: str, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            log.exception("a predictor thread died", loop=name)
            self._failure = self._failure or error

    def _compute(self) -> None:
        try:
            while self._compute_next():
                self._beat("compute")
        finally:
            self._answered.set()

    def _compute_next(self) -> bool:
        """Answer a batch, if one comes; False when the last was answered."""
        taken = self._batcher.next(idle_s=IDLE_S)
        self._late(taken.expired, "expired")
        self._late(taken.cancelled, "cancelled")
        if taken.batch:
            self._answer(taken.batch)
        return bool(taken) or not self._admission.closed or self._admission.size() > 0

    def _answer(self, batch: list[QueuedRequest]) -> None:
        replies = self._predictor.answer(batch)
        self._admission.put_back([one for one in replies if isinstance(one, QueuedRequest)])
        for queued, reply in zip(batch, replies, strict=True):
            if queued.origin is not None and isinstance(reply, Reply):
                self._sender.reply(reply, queued.origin)

    def _late(self, requests: Iterable[QueuedRequest], code: ErrorCode) -> None:
        for queued in requests:
            if queued.origin is not None:
                self._sender.reply(self._predictor.late(queued, code), queued.origin)

    def _cancels(self) -> None:
        topic = self._topics.control
        partitions = [TopicPartition(topic, n) for n in range(self._kafka.partitions)]
        self._control.assign(partitions)
        self._control.seek_to_end(*partitions)
        for partition in partitions:  # makes the end definite before the service says it is ready
            self._control.position(partition)
        self._positioned.set()
        while not self._ended.is_set():
            for records in self._control.poll(timeout_ms=POLL_MS).values():
                for record in records:
                    self._cancel(record.value or b"")
            self._beat("control")
        self._control.close(autocommit=False, timeout_ms=2_000)

    def _cancel(self, data: bytes) -> None:
        try:
            message = decode(data, Control)
        except MessageError:
            return  # the consumer service dead-letters it
        if message.action == "cancel" and message.request_id is not None:
            self._admission.cancel(message.request_id)

    def _questions(self) -> None:
        while True:
            self._beat("status")
            try:
                query, origin = self._intake.queries.get(timeout=IDLE_S)
            except queue.Empty:
                if self._ended.is_set():
                    return
                continue
            try:
                answer: Any = self._pair_status.answer(query)
            except StoreError as error:
                log.warning("a pair's outcome cannot be read", error=str(error))
                answer = status_error(query, "internal", "the store cannot be reached; ask again")
            self._sender.reply(answer, origin)

    def _follow(self) -> None:
        self._watch.run(  # to the last answer: it may need a task that is not in memory
            self._answered,
            poll_ms=self._settings.champions_poll_ms,
            beat=lambda: self._beat("watch"),
        )


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Forgets the offsets of partitions that went away; runs on the consumer's own thread."""

    def __init__(self, offsets: OffsetTracker, assigned: threading.Event) -> None:
        self._offsets = offsets
        self._assigned = assigned

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._offsets.forget((p.topic, p.partition) for p in revoked)

    def on_partitions_assigned(self, _assigned: Iterable[TopicPartition]) -> None:
        self._assigned.set()


def _interactive_first(polled: dict[TopicPartition, list[Any]], requests: str) -> list[Any]:
    ordered = sorted(polled.items(), key=lambda item: item[0].topic != requests)
    return [record for _, records in ordered for record in records]


def _log_commit(_offsets: Any, outcome: Any) -> None:
    if isinstance(outcome, Exception):  # committed again with the next ones, or read again
        log.info("offsets were not committed", error=type(outcome).__name__)


def _open_consumer(kafka: KafkaSettings, *, group: str | None) -> KafkaConsumer:
    arguments = client_arguments(kafka, "edgeseq-predictor")
    if group is not None:
        arguments |= {
            "session_timeout_ms": kafka.session_timeout_ms,
            "heartbeat_interval_ms": max(kafka.session_timeout_ms // 4, 100),
        }
    with broker_errors(kafka, "connecting"):
        return KafkaConsumer(
            **arguments,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="latest" if group is None else "earliest",
            fetch_max_wait_ms=CONTROL_FETCH_MAX_WAIT_MS if group is None else FETCH_MAX_WAIT_MS,
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            allow_auto_create_topics=False,
        )
