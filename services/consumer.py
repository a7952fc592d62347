"""The consumer service: Kafka's pairs, feedback and control into Redis.

Run it as ``python -m edgeseq_services.consumer``.
"""

from __future__ import annotations

import sys

import structlog

from edgeseq_core.errors import BrokerUnavailableError, ConfigError
from edgeseq_core.model.base_file import read_header
from edgeseq_core.replay.connection import check_policy, check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.replay.rules import StoreLimits
from edgeseq_core.settings import Settings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.streams.consumer import PairConsumer
from edgeseq_core.streams.events import ConsumerEvents
from edgeseq_core.streams.open_consumer import open_pair_consumer
from edgeseq_core.streams.topics import create_topics
from edgeseq_core.telemetry.metrics import ConsumerMetrics

from .runtime import Context, run_service

ROUND_MS = 200
DRAIN_MS = 5_000

log = structlog.get_logger(__name__)


class MeteredEvents(ConsumerEvents):
    """The consumer's events as Prometheus metrics."""

    def __init__(self, metrics: ConsumerMetrics) -> None:
        self._metrics = metrics

    def pairs(self, task: str, outcome: str, count: int) -> None:
        """Count pairs."""
        self._metrics.pairs.labels(self._metrics.task(task), outcome).inc(count)

    def dead_letter(self, reason: str) -> None:
        """Count a dead letter."""
        self._metrics.dead_letters.labels(reason).inc()

    def log_reset(self, topic: str) -> None:
        """Count a log that was re-created, truncated or expired."""
        self._metrics.log_resets.labels(topic).inc()

    def control(self, action: str, outcome: str) -> None:
        """Count a control message."""
        self._metrics.control.labels(action, outcome).inc()

    def batch(self, seconds: float) -> None:
        """Observe a batch."""
        self._metrics.batch_seconds.observe(seconds)

    def paused(self, partitions: int) -> None:
        """Show how many partitions wait."""
        self._metrics.paused_partitions.set(partitions)

    def lag(self, topic: str, partition: int, records: int) -> None:
        """Show how far a partition is behind."""
        self._metrics.lag_pairs.labels(topic, str(partition)).set(records)


class ConsumerService:
    """Wires the loop of the core to settings, Redis and metrics."""

    def __init__(self, settings: Settings, metrics: ConsumerMetrics) -> None:
        header = read_header(settings.base.path)
        kafka, limits = settings.kafka, settings.consumer
        self._settings = settings
        self._client = connect(settings.redis.url)
        check_policy(self._client, settings.redis.declared_policy)
        check_store(self._client, prefix=settings.redis.key_prefix, partitions=kafka.partitions)
        if created := create_topics(kafka):
            log.info("topics_created", topics=created)
        self._consumer: PairConsumer = open_pair_consumer(
            kafka,
            limits,
            vocabulary=header.vocabulary,
            digest=header.record_digest,
            max_tokens=header.config.max_tokens,
            store=RedisStore(
                self._client,
                prefix=settings.redis.key_prefix,
                partitions=kafka.partitions,
                limits=StoreLimits(
                    id_window_s=limits.id_window_s,
                    id_window_pairs=limits.id_window_pairs,
                    auto_register=limits.auto_register,
                    max_tasks=limits.max_tasks,
                ),
            ),
            registry=RedisRegistry(
                self._client, prefix=settings.redis.key_prefix, partitions=kafka.partitions
            ),
            events=MeteredEvents(metrics),
        )

    def run_once(self) -> None:
        """One round; topics that vanished (a broker came back empty) are created again."""
        self._consumer.run_once(timeout_ms=ROUND_MS)
        if self._consumer.missing_topics:
            self._create_topics()

    def _create_topics(self) -> None:
        try:
            created = create_topics(self._settings.kafka)
        except ConfigError as error:  # whoever makes topics meanwhile may still put them right
            raise BrokerUnavailableError(str(error)) from error
        log.warning("topics_created_again", topics=created)

    def drain(self) -> None:
        """Leave the group; every batch that was begun is settled or will be read again."""
        self._consumer.close(timeout_ms=DRAIN_MS)
        self._client.close()


def build(context: Context) -> ConsumerService:
    """The service, for `runtime.run_service`."""
    return ConsumerService(context.settings, ConsumerMetrics(context.registry))


def main() -> None:
    """Run until told to stop."""
    sys.exit(run_service("consumer", build))


if __name__ == "__main__":
    main()
