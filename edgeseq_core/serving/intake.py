"""From Kafka records to queued requests: decode, address, refuse, queue, or keep as dead letter.

Runs on the thread that polls.  Bulk records wait here, in order, until the queue has room for them;
so their partitions can be paused and Kafka holds the rest.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from edgeseq_core.errors import MessageError
from edgeseq_core.keys import HEADER_ID, HEADER_TRACE, Topics
from edgeseq_core.messages import (
    ErrorCode,
    Priority,
    Reply,
    ReplyError,
    Request,
    StatusQuery,
    decode,
)
from edgeseq_core.serving.addresses import ReplyAddresses, header
from edgeseq_core.serving.admission import Admission
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.offsets import TopicOffset
from edgeseq_core.serving.predictor import NO_TIME, Predictor
from edgeseq_core.serving.queued import Origin, QueuedRequest, ReplyAddress
from edgeseq_core.serving.sender import Sender
from edgeseq_core.streams.dead_letters import DeadLetterProducer, Letter

STATUS_QUERIES_KEPT = 512


class AddressedQuery(NamedTuple):
    """A question about a pair, and where its answer goes."""

    query: StatusQuery
    origin: Origin


class Intake:
    """Takes polled records in; used by one thread."""

    def __init__(
        self,
        *,
        predictor: Predictor,
        admission: Admission,
        addresses: ReplyAddresses,
        sender: Sender,
        dead_letters: DeadLetterProducer,
        topics: Topics,
        meter: Meter,
    ) -> None:
        self._predictor = predictor
        self._admission = admission
        self._addresses = addresses
        self._sender = sender
        self._dead_letters = dead_letters
        self._topics = topics
        self._meter = meter
        self._held: deque[QueuedRequest] = deque()
        self.queries: queue.Queue[AddressedQuery] = queue.Queue(STATUS_QUERIES_KEPT)

    def accept(self, records: Iterable[Any]) -> None:
        """Queue what arrived together; refuse, answer or dead-letter the rest."""
        arrived = []
        for record in records:
            queued = self._read(record)
            if queued is None:
                continue
            if record.topic == self._topics.bulk:
                self._held.append(queued)
            else:
                arrived.append(queued)
        for refused in self._admission.offer(arrived):
            self._send(self._predictor.late(refused, "overloaded"), refused)
        self.release()

    def release(self) -> None:
        """Queue as many held bulk requests as there is room for."""
        room = min(len(self._held), self._admission.room("bulk"))
        if room:
            for unlucky in self._admission.offer([self._held.popleft() for _ in range(room)]):
                self._held.appendleft(unlucky)

    def held(self) -> int:
        """Bulk requests that wait for room in the queue."""
        return len(self._held)

    # --- one record -------------------------------------------------------------------------------
    def _read(self, record: Any) -> QueuedRequest | None:
        address = self._addresses.read(record.headers)
        try:
            message = decode(record.value or b"", Request, StatusQuery)
        except MessageError as error:
            self._dead_letter(record, error.reason, error.detail)
            request_id = header(record.headers, HEADER_ID)
            if address is not None and request_id is not None:
                self._invalid(request_id, error, _origin(record, address))
            return None
        if address is None:
            detail = f"no usable reply address; it must be a partition of {self._topics.replies}"
            self._dead_letter(record, "reply_topic", detail)
            return None
        origin = _origin(record, address)
        if isinstance(message, StatusQuery):
            self._question(AddressedQuery(message, origin))
            return None
        at_most: Priority = "bulk" if record.topic == self._topics.bulk else "interactive"
        queued = self._predictor.receive(message, origin=origin, at_most=at_most)
        refusal = self._predictor.refuse(queued)
        if refusal is not None:
            self._send(refusal, queued)
            return None
        return queued

    def _question(self, asked: AddressedQuery) -> None:
        try:
            self.queries.put_nowait(asked)
        except queue.Full:
            self._sender.reply(status_error(asked.query, "overloaded"), asked.origin)

    def _send(self, reply: Reply, queued: QueuedRequest) -> None:
        if queued.origin is not None:
            self._sender.reply(reply, queued.origin)

    # --- what cannot be answered ------------------------------------------------------------------
    def _invalid(self, request_id: str, error: MessageError, origin: Origin) -> None:
        try:
            reply = Reply(
                request_id=request_id,
                error=ReplyError(code="invalid", detail=str(error)[:500]),
                timings=NO_TIME,
            )
        except ValueError:  # the header holds no id
            return
        self._sender.reply(reply, origin, settles=False)  # the dead letter does
        self._meter.request(None, "invalid")

    def _dead_letter(self, record: Any, reason: str, detail: str) -> None:
        self._meter.dead_letter(reason)
        letter = self._dead_letters.out(Letter(record, reason, detail))
        self._sender.dead_letter(letter, _at(record))


def _at(record: Any) -> TopicOffset:
    return TopicOffset(record.topic, record.partition, record.offset)


def _origin(record: Any, address: ReplyAddress) -> Origin:
    trace = header(record.headers, HEADER_TRACE)
    return Origin(
        at=_at(record),
        address=address,
        trace=None if trace is None else trace.encode(),
    )


def status_error(query: StatusQuery, code: ErrorCode, detail: str = "ask again later") -> Reply:
    """The typed error of a question that could not be answered now."""
    error = ReplyError(code=code, detail=detail)
    return Reply(request_id=query.request_id, task=query.task, error=error, timings=NO_TIME)
