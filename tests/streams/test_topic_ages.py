"""How long Kafka keeps a pair: what a purge's receipt tells."""

from __future__ import annotations

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from edgeseq_core.keys import Topics
from edgeseq_core.settings import KafkaSettings
from edgeseq_core.streams.connect import open_admin
from edgeseq_core.streams.topics import create_topics, kept_ms
from tests.brokers import Broker

HOUR_MS = 3_600_000


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_retention_and_the_age_of_a_segment(apache_kafka: Broker, topic_prefix: str) -> None:
    kafka = KafkaSettings(bootstrap=apache_kafka.bootstrap, topic_prefix=topic_prefix)
    create_topics(kafka)
    topics = Topics(topic_prefix)

    def keep(retention_ms: int) -> None:
        admin = open_admin(kafka, client_id="test")
        ages = {"retention.ms": str(retention_ms), "segment.ms": str(HOUR_MS)}
        names = (topics.pairs, topics.feedback)
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, configs=ages) for name in names]
        )
        admin.close()

    keep(24 * HOUR_MS)
    assert kept_ms(kafka) == 25 * HOUR_MS
    keep(-1)
    assert kept_ms(kafka) is None


def test_a_broker_that_does_not_tell(embedded_broker: Broker, topic_prefix: str) -> None:
    kafka = KafkaSettings(bootstrap=embedded_broker.bootstrap, topic_prefix=topic_prefix)
    create_topics(kafka)
    assert kept_ms(kafka) is None
    assert create_topics(kafka) == []  # and it goes on
