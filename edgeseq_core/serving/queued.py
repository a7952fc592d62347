"""A request between its arrival and its reply."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeseq_core.engine import Inferred
from edgeseq_core.messages import Priority, Request
from edgeseq_core.serving.offsets import TopicOffset

PRIORITIES: tuple[Priority, Priority, Priority] = ("interactive", "normal", "bulk")


@dataclass(frozen=True)
class ReplyAddress:
    """Where a client reads its replies."""

    topic: str
    partition: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The record a request came in, and what its reply needs of it."""

    at: TopicOffset
    address: ReplyAddress
    trace: bytes | None = None  # W3C trace context, copied to the reply


@dataclass(frozen=True, kw_only=True, eq=False)
class QueuedRequest:
    """One request on its way; times in seconds of `Clock.monotonic`."""

    request: Request
    priority: Priority
    received_s: float
    expires_s: float | None  # from the deadline and the time-out, whichever is first
    source_tokens: int = 0
    origin: Origin | None = None  # None: the request did not come over Kafka
    inferred: Inferred | None = None  # where the request names no task

    def of(self, inferred: Inferred) -> QueuedRequest:
        """The request with the task that it seems to belong to, if there is one."""
        named = self.request.model_copy(update={"task": inferred.task})
        return replace(self, request=named, inferred=inferred)

    def like(self, other: QueuedRequest) -> QueuedRequest:
        """The request with the task that was inferred of an equal one."""
        return self if other.inferred is None else self.of(other.inferred)

    @property
    def asked(self) -> Request:
        """The request as it came, without a task that was inferred."""
        if self.inferred is None:
            return self.request
        return self.request.model_copy(update={"task": None})

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def expired(self, now_s: float) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.expires_s is not None and now_s >= self.expires_s


def expires_at_s(request: Request, *, received_s: float, received_wall_ms: int) -> float | None:
    """When a request expires: its absolute deadline (wall time) or its time-out from receipt."""
    bounds = []
    if request.deadline_ms is not None:
        bounds.append(received_s + (request.deadline_ms - received_wall_ms) / 1000)
    if request.timeout_ms is not None:
        bounds.append(received_s + request.timeout_ms / 1000)
    return min(bounds, default=None)
