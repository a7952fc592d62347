"""Kafka clients from settings; what goes wrong is said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from edgeseq_core.errors import BrokerError, BrokerUnavailableError, ConfigError
from edgeseq_core.settings import KafkaSettings

BOOTSTRAP_TIMEOUT_MS = 5_000
REQUEST_TIMEOUT_MS = 10_000
DELIVERY_TIMEOUT_MS = 20_000
MAX_BLOCK_MS = 5_000  # `send` waits this long for a topic's metadata
FETCH_MAX_WAIT_MS = 50  # the embedded broker looks for new records only when this wait ends
METADATA_MAX_AGE_MS = 30_000
MAX_REQUEST_BYTES = 2 << 20  # a dead letter is its record and more headers


def client_arguments(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """What every kafka-python client takes."""
    arguments: dict[str, Any] = {
        "bootstrap_servers": [a.strip() for a in kafka.bootstrap.split(",") if a.strip()],
        "client_id": client_id,
        "security_protocol": kafka.security_protocol,
        "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "reconnect_backoff_max_ms": 1_000,  # a broker that is back is found within a second
    }
    if kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism is None or not kafka.sasl_username or kafka.sasl_password is None:
            raise ConfigError(
                f"{kafka.security_protocol} needs a SASL mechanism, user and password; "
                "set kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password"
            )
        arguments |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password.get_secret_value(),
        }
    if kafka.ssl_cafile is not None:
        if not kafka.ssl_cafile.is_file():
            raise ConfigError(f"kafka.ssl_cafile is {kafka.ssl_cafile}, which is no file")
        arguments["ssl_cafile"] = str(kafka.ssl_cafile)
    return arguments


@contextmanager
def broker_errors(kafka: KafkaSettings, doing: str) -> Iterator[None]:
    """Turn kafka-python's errors into EdgeSeq's; ``doing`` completes "while ..."."""
    try:
        yield
    except (SaslAuthenticationFailedError, UnsupportedSaslMechanismError) as error:
        raise ConfigError(
            f"the broker at {kafka.bootstrap} refused to log in {kafka.sasl_username!r} while "
            f"{doing}; check kafka.sasl_mechanism, user and password"
        ) from error
    except KafkaConfigurationError as error:
        raise ConfigError(f"the Kafka settings contradict each other: {error}") from error
    except AuthorizationError as error:
        raise BrokerError(
            f"the broker at {kafka.bootstrap} does not permit {doing} ({_name(error)}); "
            "grant this user the missing right"
        ) from error
    except (KafkaError, OSError) as error:
        if isinstance(error, KafkaError) and not error.retriable:
            raise BrokerError(
                f"the broker at {kafka.bootstrap} failed while {doing} ({_name(error)})"
            ) from error
        raise BrokerUnavailableError(
            f"no Kafka broker answers at {kafka.bootstrap} while {doing} ({_name(error)}); "
            "start one with `edgeseq up` or correct kafka.bootstrap"
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"kafka.bootstrap is {kafka.bootstrap!r}, which is no list of HOST:PORT ({error})"
        ) from error


def _name(error: Exception) -> str:
    return type(error).__name__


def open_consumer(
    kafka: KafkaSettings, *, group: str | None, client_id: str, max_records: int = 500
) -> KafkaConsumer:
    """A consumer that commits nothing by itself and starts at a log's earliest record."""
    with broker_errors(kafka, "connecting"):
        return KafkaConsumer(
            **client_arguments(kafka, client_id),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=kafka.session_timeout_ms,
            heartbeat_interval_ms=max(kafka.session_timeout_ms // 4, 100),
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            partition_assignment_strategy=[RangePartitionAssignor],  # keeps equal numbers together
            metrics_enabled=False,
            max_poll_records=max_records,
            allow_auto_create_topics=False,
        )


def open_producer(kafka: KafkaSettings, *, client_id: str, linger_ms: int = 0) -> KafkaProducer:
    """An idempotent producer that waits for all in-sync replicas."""
    with broker_errors(kafka, "connecting"):
        return KafkaProducer(
            **client_arguments(kafka, client_id),
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            max_block_ms=MAX_BLOCK_MS,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            max_request_size=MAX_REQUEST_BYTES,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )


def open_admin(kafka: KafkaSettings, *, client_id: str) -> KafkaAdminClient:
    """A client that describes and creates topics."""
    with broker_errors(kafka, "connecting"):
        return KafkaAdminClient(**client_arguments(kafka, client_id))
