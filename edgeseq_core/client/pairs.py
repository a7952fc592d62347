"""Teaching: labelled pairs to the pairs topic, acknowledged, with a bound on what is in flight."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from kafka import KafkaProducer
from kafka.errors import KafkaError

from edgeseq_core.client.compose import compose
from edgeseq_core.client.exchange import headers
from edgeseq_core.client.ids import new_id, now_ms
from edgeseq_core.errors import BrokerUnavailableError, MessageError
from edgeseq_core.messages import Pair, Source
from edgeseq_core.streams.connect import DELIVERY_TIMEOUT_MS

MAX_IN_FLIGHT = 2_000
PROGRESS_EVERY_S = 0.1


class Example(NamedTuple):
    """A source and its target; ``pair_id`` names the pair to its producer, None makes one."""

    source: Source
    target: str
    pair_id: str | None = None


AnyExample: TypeAlias = Example | tuple[Source, str] | tuple[Source, str, str | None]
Progress: TypeAlias = Callable[[int], None]  # called with the number of acknowledged pairs


@dataclass(frozen=True, kw_only=True)
class TeachReport:
    """What the broker acknowledged; ``seconds`` is the wall time it took."""

    task: str
    producer: str
    pair_ids: tuple[str, ...]
    seconds: float

    @property
    def count(self) -> int:
        """How many pairs were acknowledged."""
        return len(self.pair_ids)


class Lesson:
    """Sends one stream of pairs of a task; `teach` is its only use."""

    def __init__(
        self,
        kafka_producer: KafkaProducer,
        *,
        topic: str,
        task: str,
        producer: str,
        on_progress: Progress | None,
        traceparent: str | None,
    ) -> None:
        self._kafka = kafka_producer
        self._topic = topic
        self._task = task
        self._producer = producer
        self._traceparent = traceparent
        self._on_progress = on_progress
        self._in_flight: deque[Any] = deque()
        self._pair_ids: list[str] = []
        self._acknowledged = 0
        self._told_at = 0.0

    def teach(self, examples: Iterable[AnyExample]) -> TeachReport:
        """Send all and wait for their acknowledgements.

        Raises MessageError at the first pair that is none (those before it are delivered), and
        BrokerUnavailableError when the broker stops acknowledging.
        """
        started = time.monotonic()
        try:
            try:
                for example in examples:
                    self._send(Example(*example))
            finally:
                while self._in_flight:
                    self._acknowledge()
        except KafkaError as error:
            raise BrokerUnavailableError(
                f"the broker stopped acknowledging pairs ({type(error).__name__}) after "
                f"{self._acknowledged} of {len(self._pair_ids)}; send them again under the same "
                "pair ids, known ones are dropped"
            ) from error
        self._tell(at_once=True)
        return TeachReport(
            task=self._task,
            producer=self._producer,
            pair_ids=tuple(self._pair_ids),
            seconds=time.monotonic() - started,
        )

    def _send(self, example: Example) -> None:
        pair_id = example.pair_id or new_id()
        try:
            _, value = compose(
                Pair,
                pair_id=pair_id,
                producer=self._producer,
                task=self._task,
                source=example.source,
                target=example.target,
                sent_at_ms=now_ms(),
            )
        except MessageError as error:
            number = len(self._pair_ids) + 1
            raise MessageError(error.reason, f"pair {number}: {error.detail}") from None
        sent = self._kafka.send(
            self._topic,
            key=self._task.encode(),
            value=value,
            headers=headers(pair_id, producer=self._producer, traceparent=self._traceparent),
        )
        self._in_flight.append(sent)
        self._pair_ids.append(pair_id)
        while self._in_flight and (
            len(self._in_flight) > MAX_IN_FLIGHT or self._in_flight[0].succeeded()
        ):
            self._acknowledge()

    def _acknowledge(self) -> None:
        self._in_flight.popleft().get(2 * DELIVERY_TIMEOUT_MS / 1000)
        self._acknowledged += 1
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress and (at_once or now - self._told_at >= PROGRESS_EVERY_S):
            self._told_at = now
            self._on_progress(self._acknowledged)
