"""Brokers and rigs for tests of whole services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edgeseq_core.settings import KafkaSettings
from tests.brokers import (  # noqa: F401 - fixtures
    Broker,
    apache_kafka,
    docker_kafka,
    embedded_broker,
    kafka_broker,
    restartable_broker,
    topic_prefix,
)
from tests.integration.consumer_rig import PARTITIONS, Rig


@pytest.fixture
def make_rig(redis_url: str, topic_prefix: str, prefix: str) -> Iterator[Callable[..., Rig]]:  # noqa: F811
    """Opens deployments on a broker; keyword arguments are fields of the rig."""
    rigs: list[Rig] = []

    def make(bootstrap: str, **fields: Any) -> Rig:
        kafka = KafkaSettings(
            bootstrap=bootstrap,
            topic_prefix=topic_prefix,
            partitions=PARTITIONS,
            session_timeout_ms=fields.pop("session_timeout_ms", 6_000),
        )
        rigs.append(Rig(kafka, fields.pop("redis_url", redis_url), prefix, **fields))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig], kafka_broker: Broker) -> Rig:  # noqa: F811
    """A deployment on each broker of this machine."""
    return make_rig(kafka_broker.bootstrap)
