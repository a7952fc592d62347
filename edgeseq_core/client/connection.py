"""Kafka connections of a client, tuned for a fast answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.net.compat import KafkaNetClient

from edgeseq_core.errors import BrokerError, BrokerUnavailableError
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams import connect

CLIENT_ID = "edgeseq-client"
BATCH_BYTES = 64 << 10
FETCH_MAX_WAIT_MS = 5  # the embedded broker looks for new records only when this wait ends


def open_producer(kafka: KafkaSettings, *, linger_ms: int) -> KafkaProducer:
    """A producer that keeps order and waits for all replicas; raises BrokerUnavailableError.

    It is not Kafka's idempotent one: ids make repeats harmless here, and an idempotent producer of
    kafka-python 3.0 fails for good once the broker has forgotten it (the embedded one, restarted).
    """
    with connect.broker_errors(kafka, "connecting"), _closing_on_failure() as network:
        return KafkaProducer(
            **connect.client_arguments(kafka, CLIENT_ID),
            kafka_client=network,
            acks="all",
            enable_idempotence=False,
            max_in_flight_requests_per_connection=1,  # a repeated batch may not overtake
            batch_size=BATCH_BYTES,
            linger_ms=linger_ms,
            max_block_ms=connect.MAX_BLOCK_MS,
            delivery_timeout_ms=connect.DELIVERY_TIMEOUT_MS,
            allow_auto_create_topics=False,
        )


def open_consumer(kafka: KafkaSettings) -> KafkaConsumer:
    """A consumer without a group; raises BrokerUnavailableError when no broker answers."""
    with connect.broker_errors(kafka, "connecting"), _closing_on_failure() as network:
        return KafkaConsumer(
            **connect.client_arguments(kafka, CLIENT_ID),
            kafka_client=network,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # a re-created log: its first replies may be ours
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            allow_auto_create_topics=False,
        )


def require_topics(kafka: KafkaSettings, names: Iterable[str]) -> None:
    """Raise BrokerError when a topic is missing.

    The embedded broker makes a topic that a producer merely asks about, with a partition count of
    its own, so this must be known before a producer asks.
    """
    arguments = connect.client_arguments(kafka, CLIENT_ID)
    arguments.pop("metrics_enabled", None)  # an admin client has none
    with (
        connect.broker_errors(kafka, "listing topics"),
        _closing_on_failure() as network,
        KafkaAdminClient(**arguments, kafka_client=network) as admin,
    ):
        missing = sorted(set(names) - set(admin.list_topics()))
    if missing:
        raise BrokerError(
            f"the broker at {kafka.bootstrap} has no topic {missing[0]}; start the services, which "
            "create the topics, or correct the topic prefix"
        )


def unacknowledged(kafka: KafkaSettings, timeout_s: float) -> BrokerUnavailableError:
    """The error of a record that the broker did not take in time."""
    return BrokerUnavailableError(
        f"the Kafka broker at {kafka.bootstrap} acknowledged nothing within {timeout_s:g} s; start "
        "one with `edgeseq up` or correct kafka.bootstrap"
    )


@contextmanager
def _closing_on_failure() -> Iterator[Callable[..., KafkaNetClient]]:
    """The network factory of a Kafka client whose constructor, if it fails, leaves nothing open.

    kafka-python 3.0 forgets its sockets, and a consumer's thread, when it cannot bootstrap.
    """
    made: list[KafkaNetClient] = []

    def make(**config: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        yield make
    except BaseException:
        for network in made:
            network.close()
        raise
