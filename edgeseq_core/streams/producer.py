"""A producer whose sends are bounded, acknowledged by all replicas, and flushed on close."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from kafka import KafkaProducer

from edgeseq_core.errors import BrokerUnavailableError
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import DELIVERY_TIMEOUT_MS, broker_errors, open_producer

MAX_IN_FLIGHT = 2_000  # records; kafka-python itself has no bound
Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class OutRecord:
    """A record to send; without ``partition`` the key decides (murmur2)."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None
    headers: Headers = ()


class RecordProducer:
    """Wraps one idempotent kafka-python producer; safe to use from several threads."""

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        client_id: str,
        linger_ms: int = 0,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._kafka = kafka
        self._producer: KafkaProducer = open_producer(
            kafka, client_id=client_id, linger_ms=linger_ms
        )
        self._slots = threading.BoundedSemaphore(max_in_flight)

    def send(self, record: OutRecord) -> Any:
        """Send without waiting; returns kafka-python's future.  Blocks while too much is unsent."""
        if not self._slots.acquire(timeout=DELIVERY_TIMEOUT_MS / 1000):
            raise BrokerUnavailableError(
                f"the broker at {self._kafka.bootstrap} acknowledges nothing; "
                "check that it runs and has in-sync replicas"
            )
        try:
            with broker_errors(self._kafka, f"sending to {record.topic}"):
                future = self._producer.send(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition,
                    headers=list(record.headers),
                )
        except BaseException:
            self._slots.release()
            raise
        future.add_both(lambda _: self._slots.release())
        return future

    def send_all(self, records: Sequence[OutRecord]) -> None:
        """Send and return when each is acknowledged; raises BrokerError when one is not."""
        futures = [(self.send(record), record.topic) for record in records]
        for future, topic in futures:
            with broker_errors(self._kafka, f"sending to {topic}"):
                future.get(timeout=DELIVERY_TIMEOUT_MS / 1000)

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_MS / 1000) -> None:
        """Wait until nothing is unsent."""
        with broker_errors(self._kafka, "flushing"):
            self._producer.flush(timeout=timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Flush and close; what is unsent after ``timeout_s`` is dropped."""
        self._producer.close(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
