"""The store as commands read it: replay buffer and registry, never made by looking at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgeseq_core.errors import ConfigError
from edgeseq_core.keys import version_key
from edgeseq_core.replay.connection import check_store, connect, store_errors
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.settings import Settings, redact_url
from edgeseq_core.snapshots.redis_registry import RedisRegistry


@dataclass(frozen=True)
class Store:
    """Both halves of what Redis holds."""

    buffer: RedisStore
    registry: RedisRegistry
    partitions: int


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """The store of an instance; raises ConfigError when there is none under this prefix."""
    prefix, partitions = settings.redis.key_prefix, settings.kafka.partitions
    with connect(settings.redis.url) as client:
        with store_errors("looking for the store"):
            known = client.exists(version_key(prefix))
        if not known:
            raise ConfigError(
                f"Redis at {redact_url(settings.redis.url)} holds nothing under {prefix!r}; start "
                "the services with `edgeseq up`, or correct --redis or redis.key_prefix"
            )
        check_store(client, prefix=prefix, partitions=partitions)
        yield Store(
            RedisStore(client, prefix=prefix, partitions=partitions),
            RedisRegistry(client, prefix=prefix, partitions=partitions),
            partitions,
        )
