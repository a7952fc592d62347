"""The brokers that tests and `edgeseq up` run on: records come back; a restart is a new log."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from edgeseq_core.errors import ServiceError
from edgeseq_services.embedded.broker import EmbeddedBroker
from edgeseq_services.embedded.ports import claim_port
from tests.brokers import Broker


def _round_trip(bootstrap: str, topic: str, value: bytes) -> list[bytes]:
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])
    with KafkaProducer(bootstrap_servers=bootstrap) as producer:
        producer.send(topic, value, headers=[("edgeseq-id", b"1")]).get(10)
    with KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        return [r.value for records in consumer.poll(10_000).values() for r in records]


@pytest.mark.timeout(90)
def test_a_record_comes_back(kafka_broker: Broker, topic_prefix: str) -> None:
    assert _round_trip(kafka_broker.bootstrap, f"{topic_prefix}.x", b"hello") == [b"hello"]


def test_a_restarted_embedded_broker_is_a_new_log(restartable_broker: EmbeddedBroker) -> None:
    def cluster() -> tuple[str, list[str]]:
        with KafkaAdminClient(bootstrap_servers=restartable_broker.bootstrap) as admin:
            return admin.describe_cluster()["cluster_id"], admin.list_topics()

    _round_trip(restartable_broker.bootstrap, "x", b"hello")
    before, topics = cluster()
    assert topics == ["x"]
    restartable_broker.kill()
    restartable_broker.start()
    after, topics = cluster()
    assert after != before
    assert topics == []


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} for the embedded broker is in use"):
            EmbeddedBroker(tmp_path / "broker.log", port=port)
    assert claim_port(0, "anything") > 0
