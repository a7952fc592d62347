"""Replies and dead letters on their way to Kafka; acknowledged, they settle their record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import structlog
from kafka.errors import KafkaError

from edgeseq_core.errors import BrokerError, EdgeSeqError
from edgeseq_core.keys import HEADER_ID, HEADER_TRACE
from edgeseq_core.messages import PairStatus, Reply, encode
from edgeseq_core.serving.offsets import TopicOffset
from edgeseq_core.serving.queued import Origin
from edgeseq_core.streams.producer import OutRecord, RecordProducer

log = structlog.get_logger(__name__)

ATTEMPTS = 5  # of a reply, each as long as the producer's delivery time-out


@dataclass(frozen=True, kw_only=True)
class _Outgoing:
    record: OutRecord
    settles: TopicOffset | None
    must_arrive: bool
    attempt: int = 1


class Sender:
    """Sends without waiting for the broker; `retry` belongs to one thread, all else to any."""

    def __init__(self, producer: RecordProducer, settle: Callable[[TopicOffset], None]) -> None:
        self._producer = producer
        self._settle = settle
        self._failed: deque[_Outgoing] = deque()

    def reply(self, reply: Reply | PairStatus, origin: Origin, *, settles: bool = True) -> None:
        """Send a reply to where its client reads; settles the request unless a dead letter does."""
        request_id = reply.request_id.encode()
        headers = [(HEADER_ID, request_id)]
        if origin.trace is not None:
            headers.append((HEADER_TRACE, origin.trace))
        record = OutRecord(
            topic=origin.address.topic,
            partition=origin.address.partition,
            key=request_id,
            value=encode(reply),
            headers=headers,
        )
        self._send(
            _Outgoing(record=record, settles=origin.at if settles else None, must_arrive=False)
        )

    def dead_letter(self, record: OutRecord, at: TopicOffset) -> None:
        """Keep a record that cannot be answered; its offset waits for that, however long."""
        self._send(_Outgoing(record=record, settles=at, must_arrive=True))

    def retry(self) -> None:
        """Send again what was not acknowledged."""
        for _ in range(len(self._failed)):
            outgoing = self._failed.popleft()
            self._send(replace(outgoing, attempt=outgoing.attempt + 1))

    def flush(self, timeout_s: float) -> bool:
        """Wait for acknowledgements; False when some did not come in time."""
        try:
            self._producer.flush(timeout_s)
        except BrokerError:
            return False
        return not self._failed

    def _send(self, outgoing: _Outgoing) -> None:
        try:
            future = self._producer.send(outgoing.record)
        except EdgeSeqError as error:
            self._not_sent(outgoing, error)
            return
        future.add_callback(self._sent, outgoing)
        future.add_errback(self._not_sent, outgoing)

    def _sent(self, outgoing: _Outgoing, _metadata: Any = None) -> None:
        if outgoing.settles is not None:
            self._settle(outgoing.settles)

    def _not_sent(self, outgoing: _Outgoing, error: BaseException) -> None:
        retriable = getattr(
            error, "retriable" if isinstance(error, KafkaError) else "retryable", True
        )
        give_up = not retriable or outgoing.attempt >= ATTEMPTS
        if give_up and outgoing.attempt <= ATTEMPTS:
            log.error(
                "a record could not be delivered",
                dropped=not outgoing.must_arrive,
                topic=outgoing.record.topic,
                partition=outgoing.record.partition,
                size_bytes=len(outgoing.record.value),
                attempt=outgoing.attempt,
                error=type(error).__name__,
            )
        if give_up and not outgoing.must_arrive:
            self._sent(
                outgoing
            )  # its client cannot be reached; holding the offset would stop others
        else:
            self._failed.append(outgoing)
