"""What only a real server can show: lost scripts, full memory, kill -9, damage, start checks."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from edgeseq_core.errors import (
    ConfigError,
    FencedError,
    SnapshotError,
    StateVersionError,
    StoreFullError,
    StoreUnavailableError,
)
from edgeseq_core.keys import STATE_VERSION, Keys, version_key
from edgeseq_core.replay.buffer import Move, Recoded, Role, TaskSettings
from edgeseq_core.replay.connection import check_policy, check_store, connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.snapshots.registry import Purge, Restart
from tests.contract.stores import PARTITION, PARTITIONS, TASK, Stores, ids, incoming, redis_stores
from tests.redis_server import RedisServer, debian_redis, embedded_valkey


@pytest.fixture(params=["redis", "valkey"])
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own that writes its log before it answers."""
    binary = debian_redis() if request.param == "redis" else embedded_valkey()
    server = RedisServer(binary, tmp_path / "redis", appendfsync="always")
    server.start()
    yield server
    server.kill()


def test_scripts_survive_a_lost_script_cache(redis_url: str, prefix: str) -> None:
    stores = redis_stores(redis_url, prefix)
    stores.ingest([incoming(0)])
    connect(redis_url).script_flush()
    assert stores.ingest([incoming(1)]) == ["accepted"]
    connect(redis_url).script_flush()
    stores.learn(priorities=random.Random(1))
    assert stores.offer() == stores.registry.status(TASK).champion


def test_every_key_of_a_partition_has_its_hash_tag(redis_url: str, prefix: str) -> None:
    stores = redis_stores(redis_url, prefix)
    stores.buffer.set_task(TASK, TaskSettings(memory=True))
    stores.ingest([incoming(0), incoming(1, quarantine="series")])
    stores.ingest([incoming(0, correction=True, pair_id="c")])
    stores.serve_step()
    stores.registry.rollback(
        TASK, stores.offer(), expected_champion=stores.offer(), now_ms=1, journal="{}"
    )
    found = [key.decode() for key in connect(redis_url).scan_iter(match=f"*{prefix}*")]
    assert len(found) > 15
    assert {key.split("}")[0] for key in found} == {f"{{{prefix}:p{PARTITION}"}


def test_a_correction_that_comes_during_a_removal_is_still_recalled(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = redis_stores(redis_url, prefix)
    stores.buffer.set_task(TASK, TaskSettings(memory=True))
    stores.ingest([incoming(0, correction=True, producer="p0", target="A")])
    look: Callable[..., Any] = RedisStore._scan

    def look_and_learn(store: RedisStore, key: str) -> Iterator[dict[bytes, bytes]]:
        for batch in look(store, key):
            if key.endswith("memory"):
                stores.ingest([incoming(1, correction=True, target="B")])
            yield batch

    monkeypatch.setattr(RedisStore, "_scan", look_and_learn)
    assert stores.buffer.remove(TASK, producer="p0") == 1
    (told,) = stores.buffer.recall([(TASK, "abc")])
    assert told is not None
    assert told.target == "B"
    assert stores.buffer.stats(TASK).remembered == 1


def test_no_checkpoint_or_payload_is_kept_for_nothing(redis_url: str, prefix: str) -> None:
    stores = redis_stores(redis_url, prefix, kept_promotions=2, kept_held=1)
    client, keys = connect(redis_url), Keys(prefix, PARTITION)

    def kept(name: str) -> set[bytes]:
        found: Any = client.hkeys(keys.of_task(TASK, name))
        return set(found)

    for _ in range(4):
        stores.serve_step()
        stores.commit()
        stores.offer(verdict="hold")
        stores.commit()
    assert kept("checkpoints") == {b"7", b"10", b"11", b"12"}  # promoted, held, current
    first = stores.registry.history(TASK)[4].manifest.snapshot_id  # step 7
    champion = stores.registry.status(TASK).champion
    stores.registry.rollback(TASK, first, expected_champion=champion, now_ms=1, journal="{}")
    assert kept("checkpoints") == {b"7", b"10", b"11"}
    assert kept("payloads") == kept("kept")
    assert len(kept("manifests")) == 8


def test_scripts_name_no_key_but_those_they_are_given() -> None:
    for package in ("edgeseq_core.replay", "edgeseq_core.snapshots"):
        for script in files(package).joinpath("lua").iterdir():
            text = script.read_text()
            assert not re.search(r"redis\.call\('[A-Z]+',\s*['\"]", text), script.name


# --- full memory ----------------------------------------------------------------------------------


def everything(stores: Stores) -> tuple[Any, ...]:
    parts = [stores.part(part) for part in ("corrections", "bulk", "recent", "probe", "reservoir")]
    return (
        stores.buffer.positions(PARTITION),
        stores.buffer.stats(TASK),
        stores.buffer.state(TASK),
        stores.buffer.journal(TASK),
        stores.buffer.waiting(PARTITION),
        stores.buffer.fresh_bytes(PARTITION),
        stores.registry.status(TASK),
        stores.registry.history(TASK),
        parts,
    )


def test_full_memory_refuses_writes_whole_and_people_keep_their_way_back(
    own_server: RedisServer, prefix: str
) -> None:
    stores = redis_stores(own_server.url, prefix)
    stores.ingest([incoming(n) for n in range(4)])
    first, second = stores.serve_step(), stores.serve_step()
    client = connect(own_server.url)
    before = everything(stores)
    drawn = stores.buffer.draw(TASK, corrections=0, bulk=2, replay=()).fresh
    moves = [Move(pair.key, pair.part, "reservoir", 0.5) for pair in drawn]
    client.config_set("maxmemory", "1mb" if client.info("memory")["used_memory"] > 1 << 20 else 1)
    restart = Restart(
        task=TASK, branch=0, expected_champion=second, now_ms=1, journal="{}", base="d" * 64
    )
    owners: dict[Role, int] = {"consumer": stores.consumer, "learner": stores.learner}
    recoded = Recoded(
        key=drawn[0].key, origin="bulk", destination="bulk", name=bytes(16), data=b"other"
    )
    refused = [
        lambda: stores.buffer.reencode(TASK, [recoded], epochs=owners),
        lambda: stores.registry.restart(restart),
        lambda: stores.ingest([incoming(9)]),
        lambda: stores.commit(moves),
        stores.offer,
        lambda: stores.registry.promote(
            TASK, first, expected_champion=second, now_ms=1, journal="{}"
        ),
    ]
    for call in refused:
        with pytest.raises(StoreFullError, match="maxmemory and wrote nothing"):
            call()
        assert everything(stores) == before
    stores.registry.rollback(TASK, first, expected_champion=second, now_ms=1, journal="{}")
    assert stores.registry.status(TASK).champion == first
    assert stores.buffer.state(TASK).step == 1
    assert stores.buffer.remove(TASK, pair_id="id3") == 1
    asked = {"purge": "asked", "producer": None, "pair_id": "id3", "now_ms": 1}
    stores.registry.purge(Purge(task=TASK, branch=1, expected_champion=first, **asked))  # type: ignore[arg-type]
    assert stores.registry.champions([PARTITION]) == {}
    client.config_set("maxmemory", "0")
    assert stores.ingest([incoming(9)]) == ["accepted"]
    assert stores.part("bulk") == ["id0", "id1", "id2", "id9"]


def test_a_store_that_fills_up_in_mid_stream_loses_nothing(
    own_server: RedisServer, prefix: str
) -> None:
    stores, client = redis_stores(own_server.url, prefix), connect(own_server.url)
    client.config_set("maxmemory", str(client.info("memory")["used_memory"] + (1 << 20)))
    placed = 0
    full = False
    while not full:
        try:
            stores.ingest([incoming(n) for n in range(placed, placed + 100)])
            placed += 100
        except StoreFullError:
            full = True
    assert 100 <= placed < 100_000
    assert stores.buffer.stats(TASK).pairs["bulk"] == placed
    assert stores.buffer.positions(PARTITION)["t.pairs"].offset == placed
    client.config_set("maxmemory", "0")
    stores.ingest([incoming(n) for n in range(placed, placed + 100)])
    assert stores.buffer.stats(TASK).pairs["bulk"] == placed + 100


# --- a killed server ------------------------------------------------------------------------------


def test_kill_9_leaves_position_and_pairs_alike(own_server: RedisServer, prefix: str) -> None:
    stores = redis_stores(own_server.url, prefix)
    acknowledged, ended = 0, threading.Event()

    def produce() -> None:
        nonlocal acknowledged
        try:
            for first in range(0, 10**6, 20):
                stores.ingest([incoming(n) for n in range(first, first + 20)])
                acknowledged = first + 20
                if first % 100 == 0:
                    stores.learn(priorities=random.Random(first), count=15)
        except StoreUnavailableError:
            ended.set()

    producer = threading.Thread(target=produce)
    producer.start()
    while acknowledged < 1000 and producer.is_alive():
        producer.join(0.01)
    own_server.kill()
    producer.join(20)
    assert ended.is_set()
    own_server.start()

    stores.own()
    position = stores.buffer.positions(PARTITION)["t.pairs"]
    stats, state = stores.buffer.stats(TASK), stores.buffer.state(TASK)
    assert position.offset in (acknowledged, acknowledged + 20)
    assert stats.learnt + stats.pairs["bulk"] == position.offset
    assert stats.pairs["reservoir"] == stats.learnt
    assert state.step == len(stores.buffer.journal(TASK))
    assert state.checkpoint == b"checkpoint-%d" % state.step
    stored = {*stores.part("bulk"), *stores.part("reservoir")}
    assert stored == {f"id{n}" for n in range(position.offset)}
    stores.positions["t.pairs"] = position
    assert stores.ingest([incoming(position.offset)]) == ["accepted"]


def test_a_server_that_is_away_is_unavailable(own_server: RedisServer, prefix: str) -> None:
    stores = redis_stores(own_server.url, prefix)
    own_server.kill()
    for call in (
        lambda: stores.ingest([incoming(0)]),
        lambda: stores.buffer.waiting(PARTITION),
        lambda: stores.registry.champions([0]),
        lambda: check_policy(connect(own_server.url)),
    ):
        with pytest.raises(StoreUnavailableError, match="Redis cannot be reached"):
            call()


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"int8 dates 9", b"int8", b""])
def test_damaged_snapshot_bytes_are_found(redis_url: str, prefix: str, damaged: bytes) -> None:
    stores = redis_stores(redis_url, prefix)
    champion = stores.serve_step()
    key = Keys(prefix, PARTITION).of_task(TASK, "payloads")
    connect(redis_url).hset(key, champion, damaged)
    with pytest.raises(SnapshotError, match="do not match its manifest"):
        stores.registry.payload(stores.registry.record(TASK, champion).manifest)


def test_binary_records_and_checkpoints_come_back_unchanged(redis_url: str, prefix: str) -> None:
    stores = redis_stores(redis_url, prefix)
    stores.ingest([incoming(n, source="\x00|:\r\n" * n) for n in range(1, 30)])
    assert ids(stores.buffer.read(TASK, "bulk")) == [f"id{n}" for n in range(1, 30)]
    stores.commit(checkpoint=bytes(range(256)) * 4096)
    assert stores.buffer.state(TASK).checkpoint == bytes(range(256)) * 4096


# --- the checks at start --------------------------------------------------------------------------


def test_a_new_store_is_marked_and_an_old_one_recognised(redis_url: str, prefix: str) -> None:
    client = connect(redis_url)
    for _ in range(2):
        check_store(client, prefix=prefix, partitions=8)
    with pytest.raises(ConfigError, match="made for 8 partitions, the settings say 4"):
        check_store(client, prefix=prefix, partitions=4)
    client.set(version_key(prefix), STATE_VERSION + 1)
    with pytest.raises(StateVersionError, match="has state version 2, this program knows 1"):
        check_store(client, prefix=prefix, partitions=8)


def test_a_full_store_that_is_marked_can_be_opened(own_server: RedisServer, prefix: str) -> None:
    client = connect(own_server.url)
    check_store(client, prefix=prefix, partitions=8)
    client.config_set("maxmemory", "1")
    check_store(client, prefix=prefix, partitions=8)
    with pytest.raises(StoreFullError):
        check_store(client, prefix="another", partitions=8)


def test_a_policy_that_evicts_is_refused(own_server: RedisServer) -> None:
    client = connect(own_server.url)
    check_policy(client)
    client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match=r"allkeys-lru.* set it to noeviction"):
        check_policy(client)
    with pytest.raises(ConfigError, match="allkeys-lru"):
        check_policy(client, "noeviction")  # what the server says counts


def test_where_config_is_forbidden_the_declared_policy_counts(own_server: RedisServer) -> None:
    connect(own_server.url).execute_command(
        "ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all", "-config"
    )
    client = connect(own_server.url)
    with pytest.raises(ConfigError, match=r"forbids CONFIG GET.* set redis\.declared_policy"):
        check_policy(client)
    check_policy(client, "noeviction")
    with pytest.raises(ConfigError, match="volatile-lru"):
        check_policy(client, "volatile-lru")


def test_an_old_server_is_refused(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(redis_url)
    monkeypatch.setattr(client, "info", lambda _section: {"redis_version": "6.0.16"})
    with pytest.raises(ConfigError, match=r"Redis 6\.0\.16 is too old.* 6\.2 or newer"):
        check_policy(client)


def test_a_bad_url_or_login_is_a_matter_of_settings(own_server: RedisServer) -> None:
    with pytest.raises(ConfigError, match="Redis URL is not valid"):
        connect("http://localhost")
    connect(own_server.url).config_set("requirepass", "secret")
    with pytest.raises(ConfigError, match="refused the login"):
        check_policy(connect(own_server.url))
    with pytest.raises(ConfigError, match="refused the login"):
        check_policy(connect(own_server.url.replace("//", "//:wrong@")))


def test_a_paused_owner_changes_nothing_when_it_wakes(redis_url: str, prefix: str) -> None:
    old = redis_stores(redis_url, prefix)
    old.ingest([incoming(0)])
    champion = old.serve_step()
    new = redis_stores(redis_url, prefix)
    new.positions = dict(old.positions)
    new.ingest([incoming(1)])
    before = everything(new)
    for call in (lambda: old.ingest([incoming(2)]), old.commit, old.offer):
        with pytest.raises(FencedError, match="epoch is 2, not 1: another owner has taken over"):
            call()
    assert everything(new) == before
    assert new.registry.status(TASK).champion == champion
    assert PARTITIONS > PARTITION
