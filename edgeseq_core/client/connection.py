"""Kafka connections of a client, opened with errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from edgeseq_core.errors import BrokerError, BrokerUnavailableError, ConfigError
from edgeseq_core.settings import KafkaSettings

BOOTSTRAP_TIMEOUT_MS = 5_000
MAX_BLOCK_MS = 5_000  # `send` waits this long for a topic's metadata
REQUEST_TIMEOUT_MS = 10_000
DELIVERY_TIMEOUT_MS = 20_000
FETCH_MAX_WAIT_MS = 5  # some brokers look for new records only when this wait ends


def open_producer(kafka: KafkaSettings, *, linger_ms: int) -> KafkaProducer:
    """An idempotent producer; raises BrokerUnavailableError when no broker answers."""
    with broker_errors(kafka):
        return KafkaProducer(
            **_arguments(kafka),
            linger_ms=linger_ms,
            max_block_ms=MAX_BLOCK_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
        )


def open_consumer(kafka: KafkaSettings) -> KafkaConsumer:
    """A consumer without a group; raises BrokerUnavailableError when no broker answers."""
    with broker_errors(kafka):
        return KafkaConsumer(
            **_arguments(kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # a re-created log: its first replies may be ours
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )


@contextmanager
def broker_errors(kafka: KafkaSettings) -> Iterator[None]:
    """Turn Kafka's errors into EdgeSeq's, with the address and what to do."""
    try:
        yield
    except UnknownTopicOrPartitionError as error:
        raise BrokerError(
            f"the broker at {kafka.bootstrap} lacks a topic ({error}); correct the topic prefix "
            f"{kafka.topic_prefix!r} or create the topics by starting the services"
        ) from None
    except KafkaError as error:
        raise unavailable(kafka, type(error).__name__) from error
    except ValueError as error:
        raise ConfigError(
            f"the Kafka address {kafka.bootstrap!r} is no HOST:PORT ({error}); correct it"
        ) from None


def unavailable(kafka: KafkaSettings, why: str) -> BrokerUnavailableError:
    """The error that a broker which does not answer gives."""
    return BrokerUnavailableError(
        f"no Kafka broker answers at {kafka.bootstrap} ({why}); start one with `edgeseq up` or "
        "correct the address"
    )


def _arguments(kafka: KafkaSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap.split(","),
        "client_id": "edgeseq-client",
        "security_protocol": kafka.security_protocol,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "allow_auto_create_topics": False,  # a topic of the broker's own size would misplace tasks
    }
    if kafka.sasl_mechanism is not None:
        password = kafka.sasl_password
        arguments |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": password.get_secret_value() if password else None,
        }
    if kafka.ssl_cafile is not None:
        arguments["ssl_cafile"] = str(kafka.ssl_cafile)
    return arguments
