"""The small base that every test here learns on, and the loop in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import torch

from edgeseq_core.model.base import Base
from edgeseq_core.replay.connection import check_store, connect
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.snapshots.memory_registry import MemoryRegistry
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.testing.base import write_tiny_base
from tests.faults.bench import PARTITIONS, Bench


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As services compute."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny.safetensors")


@pytest.fixture(scope="session")
def base(base_path: Path) -> Base:
    return Base.load(base_path)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def redis_bench(base: Base, client: redis.Redis, prefix: str) -> Bench:
    check_store(client, prefix=prefix, partitions=PARTITIONS)
    buffer = RedisStore(client, prefix=prefix, partitions=PARTITIONS)
    return Bench(base, buffer, RedisRegistry(client, prefix=prefix, partitions=PARTITIONS))


@pytest.fixture
def memory_bench(base: Base) -> Bench:
    buffer = MemoryStore(partitions=PARTITIONS)
    return Bench(base, buffer, MemoryRegistry(buffer.memory))


@pytest.fixture(params=["memory", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Callable[[str], Bench] = request.getfixturevalue
    return found(f"{request.param}_bench")
