"""The client's end of the reply topic: one partition, read by one thread, matched by id.

The partition is assigned directly (no group, so no join) and read from its end, found before the
first request leaves.  An answer is delivered once: its waiter is gone when a duplicate arrives.
While nobody waits the thread reads only once a second, to stay near the end at no cost.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, TypeAlias

from kafka import TopicPartition
from kafka.errors import RetriableError

from edgeseq_core.client.connection import open_consumer, unacknowledged
from edgeseq_core.errors import BrokerError, EdgeSeqError, InputError, MessageError
from edgeseq_core.keys import HEADER_ID, Topics
from edgeseq_core.messages import ControlResult, PairStatus, Reply, decode
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import MAX_BLOCK_MS, broker_errors

POLL_MS = 100
IDLE_POLL_S = 1.0
RETRY_PAUSE_S = 0.1
OVERDUE_S = 1.0

Answer: TypeAlias = Reply | PairStatus | ControlResult
_log = logging.getLogger(__name__)


class ReplyReader:
    """Reads one partition of the reply topic and hands each answer to the one who waits for it."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Choose a partition, find its end, start the thread; raises BrokerError."""
        self.topic = Topics(kafka.topic_prefix).replies
        self._kafka = kafka
        self._waiting: dict[str, Future[Answer]] = {}
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._failure: EdgeSeqError | None = None
        self._consumer = open_consumer(kafka)
        try:
            self._assigned = self._assign()
        except BaseException:
            self._consumer.close()
            raise
        self.partition = int(self._assigned.partition)
        self._read_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="edgeseq-replies", daemon=True)
        self._thread.start()

    def expect(self, answer_id: str) -> Future[Answer]:
        """The future answer to ``answer_id``; expect it before the question is sent."""
        future: Future[Answer] = Future()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if answer_id in self._waiting:
                raise InputError(f"id {answer_id} is in flight already; give each request its own")
            self._waiting[answer_id] = future
        self._wanted.set()
        return future

    def forget(self, answer_ids: Iterable[str]) -> None:
        """Stop waiting; an answer that still comes is dropped."""
        with self._lock:
            for answer_id in answer_ids:
                self._waiting.pop(answer_id, None)

    def close(self) -> None:
        """Stop the thread; who still waits gets an error."""
        self._closing.set()
        self._wanted.set()
        self._thread.join()

    def _assign(self) -> TopicPartition:
        with broker_errors(self._kafka, f"reading {self.topic}"):
            partitions = self._consumer.partitions_for_topic(self.topic)
            if not partitions:
                raise BrokerError(
                    f"the broker at {self._kafka.bootstrap} has no topic {self.topic}; correct the "
                    "topic prefix, or create the topics by starting the services"
                )
            chosen = TopicPartition(self.topic, random.choice(sorted(partitions)))
            self._consumer.assign([chosen])
            self._consumer.seek_to_end(chosen)
            if self._consumer.position(chosen, timeout_ms=MAX_BLOCK_MS) is None:
                raise unacknowledged(self._kafka, MAX_BLOCK_MS / 1000)
        return chosen

    def _run(self) -> None:
        failure: EdgeSeqError = BrokerError("the client was closed before the answer came")
        try:
            while not self._closing.is_set():
                self._wait_for_need()
                try:
                    polled = self._consumer.poll(timeout_ms=POLL_MS if self._waiting else 0)
                    self._notice_new_log(read=bool(polled))
                except RetriableError as error:
                    _log.warning("reading replies failed, trying again: %s", type(error).__name__)
                    self._closing.wait(RETRY_PAUSE_S)
                    continue
                for records in polled.values():
                    for record in records:
                        self._deliver(record)
        except Exception as error:
            failure = BrokerError(
                f"the reply reader stopped ({type(error).__name__}); open a new client"
            )
            _log.exception("the reply reader stopped")
        finally:
            self._consumer.close()
            self._fail_all(failure)

    def _wait_for_need(self) -> None:
        if not self._waiting:
            self._wanted.clear()
            if (
                not self._waiting and not self._closing.is_set()
            ):  # again: `expect` may have come in between
                self._wanted.wait(IDLE_POLL_S)

    def _notice_new_log(self, *, read: bool) -> None:
        """Begin again when the log ends before our position: the embedded broker, restarted.

        It answers such a fetch with nothing instead of an error.  Looked at when an answer is overdue;
        in the fetches' answers, as its `end_offsets` counts the last batch as one record.
        """
        now = time.monotonic()
        if read or not self._waiting:
            self._read_at = now
        elif now - self._read_at >= OVERDUE_S:
            self._read_at = now
            end = self._consumer.highwater(self._assigned)
            if end is not None and end < self._consumer.position(
                self._assigned, timeout_ms=MAX_BLOCK_MS
            ):
                _log.warning("the log of %s is a new one, reading it from its start", self.topic)
                self._consumer.seek_to_beginning(self._assigned)

    def _deliver(self, record: Any) -> None:
        """Give a record to its waiter; another client's, a duplicate, a late one are dropped."""
        named = next((value.decode() for key, value in record.headers if key == HEADER_ID), None)
        if named is not None and named not in self._waiting:
            return
        answer: Answer | MessageError
        try:
            answer = decode(record.value, Reply, PairStatus, ControlResult)  # type: ignore[assignment]
            found = answer.control_id if isinstance(answer, ControlResult) else answer.request_id  # type: ignore[union-attr]
        except MessageError as error:
            if named is None:
                return
            answer, found = error, named
        with self._lock:
            future = self._waiting.pop(found, None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if isinstance(answer, MessageError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _fail_all(self, failure: EdgeSeqError) -> None:
        with self._lock:
            self._failure = failure
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(failure)
