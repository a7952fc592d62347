"""A broker that is not there, goes away, or lacks the topics: one clear sentence each."""

from __future__ import annotations

import threading

import pytest

from edgeseq_core.client import Client
from edgeseq_core.errors import BrokerError, BrokerUnavailableError, ConfigError, NoReplyError
from edgeseq_core.messages import Request
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams import connect
from edgeseq_services.embedded.broker import EmbeddedBroker
from edgeseq_services.embedded.ports import free_port
from tests.brokers import Broker
from tests.client.responder import Responder, create_topics, silent


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "BOOTSTRAP_TIMEOUT_MS", 1_000)
    monkeypatch.setattr(connect, "MAX_BLOCK_MS", 1_000)
    monkeypatch.setattr(connect, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(connect, "DELIVERY_TIMEOUT_MS", 1_500)


def test_no_broker_is_said_with_the_address_and_the_remedy() -> None:
    with Client(f"127.0.0.1:{free_port()}") as client:
        for call in (
            lambda: client.predict("dates", "abc"),
            lambda: client.predict("dates", ["abc"]),
            lambda: client.teach("dates", [("a", "b")]),
            lambda: client.correct("dates", "a", "b"),
        ):
            with pytest.raises(BrokerUnavailableError, match=r"127.0.0.1:\d+.*edgeseq up"):
                call()


def test_an_address_that_is_none() -> None:
    with Client("nonsense:port") as client, pytest.raises(ConfigError, match="nonsense:port"):
        client.predict("dates", "abc")


def test_missing_topics_are_named(embedded_broker: Broker, topic_prefix: str) -> None:
    settings = KafkaSettings(bootstrap=embedded_broker.bootstrap, topic_prefix=topic_prefix)
    with Client(settings=settings) as client:
        with pytest.raises(BrokerError, match=rf"no topic {topic_prefix}\."):
            client.predict("dates", "abc")
        with pytest.raises(BrokerError, match=rf"no topic {topic_prefix}\."):
            client.teach("dates", [("a", "b")])


def test_a_broker_that_dies_is_no_silence(
    restartable_broker: EmbeddedBroker, topic_prefix: str
) -> None:
    bootstrap = restartable_broker.bootstrap
    responder = Responder(bootstrap, create_topics(bootstrap, topic_prefix))
    responder.start()
    settings = KafkaSettings(bootstrap=bootstrap, topic_prefix=topic_prefix)
    with Client(settings=settings) as client:
        assert client.predict("dates", "abc").target == "cba"
        assert client.teach("dates", [("a", "b")]).count == 1
        responder.close()
        restartable_broker.kill()
        with pytest.raises(BrokerUnavailableError):
            client.predict("dates", "abc", timeout_s=1)
        with pytest.raises(BrokerUnavailableError, match="0 of 1"):
            client.teach("dates", [("a", "b")])


def test_a_client_works_on_after_the_broker_came_back_empty(
    restartable_broker: EmbeddedBroker, topic_prefix: str
) -> None:
    bootstrap = restartable_broker.bootstrap
    topics = create_topics(bootstrap, topic_prefix)
    first = Responder(bootstrap, topics)
    first.start()
    with Client(settings=KafkaSettings(bootstrap=bootstrap, topic_prefix=topic_prefix)) as client:
        assert len(client.predict("dates", [str(n) for n in range(50)])) == 50
        first.close()
        restartable_broker.kill()
        restartable_broker.start()
        create_topics(bootstrap, topic_prefix)
        second = Responder(bootstrap, topics)
        second.start()
        assert client.predict("dates", "abc", timeout_s=15).target == "cba"
        second.close()


def test_an_overdue_answer_alone_is_no_new_log(
    responder: Responder, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(client.predict("dates", [str(n) for n in range(50)])) == 50  # answered in batches
    responder.answer = silent
    with pytest.raises(NoReplyError):
        client.predict("dates", "abc", timeout_s=3)
    assert "new one" not in caplog.text


def test_closing_frees_those_who_still_wait(responder: Responder, client: Client) -> None:
    responder.answer = silent
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            client.predict("dates", "abc", timeout_s=20)
        except BrokerError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    responder.wait_for(1, Request)
    client.close()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert "closed" in str(caught[0])
