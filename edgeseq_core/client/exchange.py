"""Ask over Kafka: send a question, wait for its one answer, repeat the record if none comes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeAlias

import stamina
from kafka import KafkaProducer

from edgeseq_core.client.connection import open_producer, require_topics, unacknowledged
from edgeseq_core.client.replies import Answer, ReplyReader
from edgeseq_core.errors import EdgeSeqError, NoReplyError
from edgeseq_core.keys import (
    HEADER_ID,
    HEADER_PRODUCER,
    HEADER_REPLY_PARTITION,
    HEADER_REPLY_TOPIC,
    HEADER_TRACE,
    Topics,
)
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import broker_errors

ATTEMPTS = 3  # the first and two repeats, spread over the time-out
FLUSH_S = 10.0
PAIRS_LINGER_MS = 5  # fills batches; a pair waits longer than this for the learner anyway

Headers: TypeAlias = list[tuple[str, bytes]]


class Unanswered(Exception):  # noqa: N818 - a signal between an attempt and its repeat
    """Not every answer came within one attempt; never leaves the client."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A record that one answer is expected to, sent again byte for byte."""

    answer_id: str
    topic: str
    key: bytes | None
    value: bytes
    headers: Headers


@dataclass
class Pending:
    """A question, its future answer, and the acknowledgement of its latest sending."""

    question: Question
    answer: Future[Answer]
    sent: Any = None  # kafka.future.Future

    @property
    def acknowledged(self) -> bool:
        """Whether the broker has the record."""
        return self.sent is not None and bool(self.sent.succeeded())


def headers(message_id: str, *, producer: str | None, traceparent: str | None) -> Headers:
    """The headers of a record: its id, who sent it, and the W3C trace context."""
    given = ((HEADER_ID, message_id), (HEADER_PRODUCER, producer), (HEADER_TRACE, traceparent))
    return [(name, value.encode()) for name, value in given if value is not None]


def attempts() -> Any:
    """The bounded repeats of an ask; the waiting is inside an attempt, so none is between them."""
    return stamina.retry_context(
        on=Unanswered, attempts=ATTEMPTS, timeout=None, wait_initial=0, wait_max=0, wait_jitter=0
    )


class Exchange:
    """Producers and the reply reader, each opened when first needed; safe for many threads."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka
        self.topics = Topics(kafka.topic_prefix)
        self._lock = threading.Lock()
        self._topics_found = False
        self._producer: KafkaProducer | None = None
        self._pairs_producer: KafkaProducer | None = None
        self._reader: ReplyReader | None = None

    @property
    def producer(self) -> KafkaProducer:
        """The producer; raises BrokerUnavailableError."""
        with self._lock:
            if self._producer is None:
                self._producer = self._open(linger_ms=0)
            return self._producer

    @property
    def pairs_producer(self) -> KafkaProducer:
        """The producer of pairs, which fills batches; raises BrokerUnavailableError."""
        with self._lock:
            if self._pairs_producer is None:
                self._pairs_producer = self._open(linger_ms=PAIRS_LINGER_MS)
            return self._pairs_producer

    @property
    def reader(self) -> ReplyReader:
        """The reply reader; raises BrokerError."""
        with self._lock:
            if self._reader is None:
                self._reader = ReplyReader(self.kafka)
            return self._reader

    def reply_headers(self) -> Headers:
        """Where answers shall go."""
        reader = self.reader
        return [
            (HEADER_REPLY_TOPIC, reader.topic.encode()),
            (HEADER_REPLY_PARTITION, str(reader.partition).encode()),
        ]

    def expect(self, questions: Iterable[Question]) -> list[Pending]:
        """Wait for the answers from now on; pair it with `forget`."""
        pending: list[Pending] = []
        try:
            for question in questions:
                pending.append(Pending(question, self.reader.expect(question.answer_id)))
        except BaseException:
            self.forget(pending)
            raise
        return pending

    def post(self, pending: Iterable[Pending]) -> None:
        """Send what has no answer, unless the producer itself still tries to deliver it."""
        with broker_errors(self.kafka, "sending"):
            for one in pending:
                if not one.answer.done() and (one.sent is None or one.sent.is_done):
                    question = one.question
                    one.sent = self.producer.send(
                        question.topic,
                        key=question.key,
                        value=question.value,
                        headers=question.headers,
                    )

    def forget(self, pending: Sequence[Pending]) -> None:
        """Stop waiting for these answers."""
        if pending:
            self.reader.forget(one.question.answer_id for one in pending)

    def ask(
        self, questions: Sequence[Question], *, timeout_s: float
    ) -> list[Answer | EdgeSeqError]:
        """An answer to each question, in order, or why none came; blocks up to ``timeout_s``."""
        pending = self.expect(questions)
        try:
            for attempt in attempts():
                with attempt:
                    self.post(pending)
                    if wait([one.answer for one in pending], timeout_s / ATTEMPTS).not_done:
                        raise Unanswered
        except Unanswered:
            pass
        finally:
            self.forget(pending)
        return [self.outcome(one, timeout_s) for one in pending]

    def outcome(self, pending: Pending, timeout_s: float) -> Answer | EdgeSeqError:
        """The answer, or the error that says why none came."""
        if pending.answer.done():
            error = pending.answer.exception()
            if error is None:
                return pending.answer.result()
            if isinstance(error, EdgeSeqError):
                return error
            raise error
        if not pending.acknowledged:
            return unacknowledged(self.kafka, timeout_s)
        return NoReplyError(
            f"no reply within {timeout_s:g} s; check with `edgeseq status` that a predictor runs"
        )

    def deliver(self, topic: str, key: bytes | None, value: bytes, record_headers: Headers) -> None:
        """Send one record that has no answer and wait until the broker has it."""
        with broker_errors(self.kafka, f"sending to {topic}"):
            self.producer.send(topic, key=key, value=value, headers=record_headers).get(FLUSH_S)

    def close(self) -> None:
        """Flush what was sent, then stop."""
        with self._lock:
            for producer in (self._producer, self._pairs_producer):
                if producer is not None:
                    producer.close(timeout=FLUSH_S)
            if self._reader is not None:
                self._reader.close()

    def _open(self, *, linger_ms: int) -> KafkaProducer:
        if not self._topics_found:
            topics = self.topics
            needed = (topics.pairs, topics.feedback, topics.control, topics.requests, topics.bulk)
            require_topics(self.kafka, needed)
            self._topics_found = True
        return open_producer(self.kafka, linger_ms=linger_ms)


def answered(answer: Answer | EdgeSeqError) -> Answer:
    """The answer; raises what came instead of it."""
    if isinstance(answer, EdgeSeqError):
        raise answer
    return answer
