"""A defect of kafka-python is there on a real broker, and our way around it works."""

from __future__ import annotations

import secrets
import time

from kafka import KafkaConsumer

from edgeseq_core.keys import Topics
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import open_admin, open_consumer
from edgeseq_core.streams.kafka_defects import finish_join
from edgeseq_core.streams.topics import create_topics
from tests.brokers import Broker

WAIT_S = 20.0
NEVER_S = 4.0  # many times what a join takes


def owns(consumer: KafkaConsumer, partitions: int, *, finish: bool, wait_s: float) -> bool:
    """Whether the member owned so many partitions in time, with polls shorter than a join."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        consumer.poll(timeout_ms=1)
        if finish:
            finish_join(consumer)
        if len(consumer.assignment()) == partitions:
            return True
    return False


def test_a_join_that_outlasts_its_poll_is_completed(apache_kafka: Broker) -> None:
    prefix = f"t{secrets.token_hex(6)}"
    kafka = KafkaSettings(bootstrap=apache_kafka.bootstrap, topic_prefix=prefix, partitions=4)
    create_topics(kafka)
    pairs = Topics(prefix).pairs
    member = open_consumer(kafka, group=f"{prefix}.group", client_id="member")
    member.subscribe([pairs])
    admin = open_admin(kafka, client_id="admin")
    try:
        assert owns(member, 4, finish=True, wait_s=WAIT_S)
        admin.create_partitions({pairs: 8})
        member._client.cluster.request_update()  # the leader sees it, and rejoins
        assert not owns(member, 8, finish=False, wait_s=NEVER_S)  # once mended: drop `finish_join`
        assert owns(member, 8, finish=True, wait_s=WAIT_S)
    finally:
        member.close(autocommit=False)
        admin.close()
