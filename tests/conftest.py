"""Fixtures that all tests share: real servers, and a key prefix per test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.brokers import (  # noqa: F401 - fixtures; imported once, so that a session has one of each
    apache_kafka,
    docker_kafka,
    embedded_broker,
    kafka_broker,
    restartable_broker,
    topic_prefix,
)
from tests.redis_server import RedisServer, debian_redis, embedded_valkey

# As the services do, before torch is imported: two threads on two busy cores wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's redis-server, for the whole session; use ``prefix`` to share it."""
    server = RedisServer(debian_redis(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Valkey server of the embedded default, for the whole session."""
    server = RedisServer(embedded_valkey(), tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def prefix() -> str:
    """A fresh prefix of keys and topics, so that tests share servers and no state."""
    return f"t{secrets.token_hex(6)}"
