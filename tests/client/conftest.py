"""A client and a responder on real brokers, each test under its own topic prefix."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeseq_core.client import Client
from edgeseq_core.settings import KafkaSettings
from tests.brokers import Broker
from tests.client.responder import Responder, create_topics


def _responder(broker: Broker, prefix: str) -> Iterator[Responder]:
    responder = Responder(broker.bootstrap, create_topics(broker.bootstrap, prefix))
    responder.start()
    yield responder
    responder.close()


@pytest.fixture
def responder(embedded_broker: Broker, topic_prefix: str) -> Iterator[Responder]:
    yield from _responder(embedded_broker, topic_prefix)


@pytest.fixture
def any_responder(kafka_broker: Broker, topic_prefix: str) -> Iterator[Responder]:
    """On every broker that this machine has."""
    yield from _responder(kafka_broker, topic_prefix)


def settings_of(responder: Responder) -> KafkaSettings:
    return KafkaSettings(bootstrap=responder.bootstrap, topic_prefix=responder.topics.prefix)


@pytest.fixture
def client(responder: Responder) -> Iterator[Client]:
    with Client(settings=settings_of(responder), producer="tests") as client:
        yield client
