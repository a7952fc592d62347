"""docs/deploy.md: the Redis user that it gives can run everything, and its ports are Compose's."""

from __future__ import annotations

import re

import pytest
import redis
import yaml

from edgeseq_core.errors import StoreError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import IncomingPair, Position, TaskSettings
from edgeseq_core.replay.connection import check_policy, check_store, connect, store_errors
from edgeseq_core.replay.record import PairRecord, pack
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.serving.replies import RedisReplyCache
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from tests.docs.pages import ROOT, section

PAGE = ROOT / "docs/deploy.md"
PARTITIONS = 8
DIGEST = bytes(8)


def test_the_redis_user_may_do_what_the_services_do_and_no_more(
    redis_url: str, prefix: str
) -> None:
    (line,) = re.findall(r"^ACL SETUSER .*$", PAGE.read_text(), re.M)
    words = line.replace("~{edgeseq*", f"~{{{prefix}*").replace("~edgeseq:", f"~{prefix}:").split()
    words[2], secret = prefix, "s3cret"
    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command(*(word.replace("SECRET", secret) for word in words))
        url = redis_url.replace("redis://", f"redis://{prefix}:{secret}@")
        try:
            with connect(url) as client:
                check_policy(client)
                check_store(client, prefix=prefix, partitions=PARTITIONS)
                _use(client, prefix)
                with pytest.raises(StoreError), store_errors("flushing"):
                    client.flushall()
                with pytest.raises(StoreError), store_errors("reading another's key"):
                    client.get("another")
        finally:
            admin.acl_deluser(prefix)


def _use(client: redis.Redis, prefix: str) -> None:
    store = RedisStore(client, prefix=prefix, partitions=PARTITIONS)
    registry = RedisRegistry(client, prefix=prefix, partitions=PARTITIONS)
    partition = partition_of("dates", PARTITIONS)
    epoch = store.acquire("consumer", partition)
    store.set_task("dates", TaskSettings())
    pair = PairRecord(
        producer="p",
        pair_id="p-1",
        arrived_ms=1,
        topic="edgeseq.pairs",
        offset=0,
        correction=False,
        source_ids=(5,),
        target_ids=(6,),
    )
    incoming = IncomingPair(
        task="dates",
        producer="p",
        pair_id="p-1",
        topic="edgeseq.pairs",
        offset=0,
        arrived_ms=1,
        correction=False,
        record=pack(pair, DIGEST),
    )
    store.ingest(
        partition,
        [incoming],
        epoch=epoch,
        topic="edgeseq.pairs",
        expected=None,
        position=Position("log", 1),
        now_ms=1,
    )
    assert store.stats("dates").pairs["bulk"] == 1
    assert len(store.draw("dates", corrections=1, bulk=1, replay=()).fresh) == 1
    assert registry.history("dates") == []
    assert registry.status("dates").champion is None
    cache = RedisReplyCache(client, prefix, window_s=5)
    assert cache.settle({"r-1": b"reply"}) == cache.lookup(["r-1"]) == {"r-1": b"reply"}


def test_published_ports() -> None:
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    published = {p.split(":")[1] for s in services.values() for p in s.get("ports", [])}
    assert set(re.findall(r"^\| (\d+) \|", section(PAGE, "Compose"), re.M)) == published


def test_everyone_who_needs_rights_is_told() -> None:
    rows = re.findall(r"^\| (\w+) \| ", section(PAGE, "Kafka: TLS and login"), re.M)
    assert rows[1:] == ["consumer", "learner", "predictor", "producer", "client", "operator"]
