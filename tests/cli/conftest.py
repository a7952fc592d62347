"""Commands run in this process on a real broker and store, with what they print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_services.cli import main
from tests.brokers import Broker
from tests.client.responder import PARTITIONS, Responder, create_topics


@dataclass(frozen=True)
class Ran:
    """An exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.err)["error"]
        return document


Run = Callable[..., Ran]


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> Run:
    monkeypatch.setenv("EDGESEQ_DIR", f"{tmp_path}/none")
    monkeypatch.setenv("COLUMNS", "200")

    def run_command(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        printed = capfd.readouterr()
        return Ran(code, printed.out, printed.err)

    return run_command


@pytest.fixture
def responder(
    embedded_broker: Broker, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Responder]:
    """A responder, which commands find by their environment."""
    monkeypatch.setenv("EDGESEQ_KAFKA__BOOTSTRAP", embedded_broker.bootstrap)
    monkeypatch.setenv("EDGESEQ_KAFKA__TOPIC_PREFIX", topic_prefix)
    responder = Responder(
        embedded_broker.bootstrap, create_topics(embedded_broker.bootstrap, topic_prefix)
    )
    responder.start()
    yield responder
    responder.close()


@dataclass(frozen=True)
class Stored:
    """The store that commands read, and a registry on it."""

    buffer: RedisStore
    registry: RedisRegistry


@pytest.fixture
def stored(redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    """An empty store, which commands find by their environment."""
    monkeypatch.setenv("EDGESEQ_REDIS__URL", redis_url)
    monkeypatch.setenv("EDGESEQ_REDIS__KEY_PREFIX", prefix)
    monkeypatch.setenv("EDGESEQ_KAFKA__PARTITIONS", str(PARTITIONS))
    monkeypatch.setenv("EDGESEQ_LEARNER__HTTP_PORT", "1")  # no learner of another instance is asked
    with connect(redis_url) as client:
        check_store(client, prefix=prefix, partitions=PARTITIONS)
        yield Stored(
            RedisStore(client, prefix=prefix, partitions=PARTITIONS),
            RedisRegistry(client, prefix=prefix, partitions=PARTITIONS),
        )
