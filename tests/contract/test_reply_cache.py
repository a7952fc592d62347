"""Reply caches: the twin and Redis keep the same contract."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import pytest

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import StoreError, StoreUnavailableError
from edgeseq_core.replay.connection import connect
from edgeseq_core.serving.replies import MemoryReplyCache, RedisReplyCache, ReplyCache

Make = Callable[[float], ReplyCache]


class ReplyCacheContract(ABC):
    @pytest.fixture
    @abstractmethod
    def make(self) -> Make:
        """A function from the window (seconds) to a cache; all share their entries."""

    def test_the_first_entry_of_an_id_counts(self, make: Make) -> None:
        cache = make(60)
        assert cache.lookup(["a", "b"]) == {}
        assert cache.settle({"a": b"1"}) == {"a": b"1"}
        assert cache.settle({"a": b"2", "b": b"3"}) == {"a": b"1", "b": b"3"}
        assert cache.lookup(["b", "a", "c", "a"]) == {"a": b"1", "b": b"3"}

    def test_nothing_asked_is_nothing_answered(self, make: Make) -> None:
        cache = make(60)
        assert cache.lookup([]) == {}
        assert cache.settle({}) == {}

    def test_an_entry_leaves_after_its_window(self, make: Make) -> None:
        cache = make(0.2)
        cache.settle({"a": b"1"})
        deadline_s = time.monotonic() + 10
        while cache.lookup(["a"]):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert cache.settle({"a": b"2"}) == {"a": b"2"}

    def test_a_repeat_does_not_prolong_the_window(self, make: Make) -> None:
        cache = make(0.3)
        cache.settle({"a": b"first"})
        deadline_s = time.monotonic() + 10
        while cache.settle({"a": b"again"})["a"] == b"first":
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    def test_any_bytes_are_kept(self, make: Make) -> None:
        entry = bytes(range(256)) * 40
        assert make(60).settle({"a": entry}) == {"a": entry}

    def test_of_many_that_race_one_counts_for_all(self, make: Make) -> None:
        cache = make(60)
        answers: list[bytes] = []
        start = threading.Barrier(8)

        def race(number: int) -> None:
            start.wait()
            answers.append(cache.settle({"a": b"%d" % number})["a"])

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        assert len({*answers, cache.lookup(["a"])["a"]}) == 1


class TestMemory(ReplyCacheContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda window_s: MemoryReplyCache(SystemClock(), window_s=window_s)

    def test_the_oldest_entries_make_room(self) -> None:
        cache = MemoryReplyCache(SystemClock(), window_s=60, max_entries=2)
        for name in "abc":
            cache.settle({name: b"x"})
        assert cache.lookup(["a", "b", "c"]).keys() == {"b", "c"}


class TestRedis(ReplyCacheContract):
    @pytest.fixture
    def make(self, redis_url: str, prefix: str) -> Make:
        return lambda window_s: RedisReplyCache(connect(redis_url), prefix, window_s=window_s)

    def test_another_predictor_sees_the_entry(self, make: Make) -> None:
        make(60).settle({"a": b"1"})
        assert make(60).lookup(["a"]) == {"a": b"1"}

    def test_a_batch_is_one_round_trip_each_way(self, redis_url: str, prefix: str) -> None:
        client = connect(redis_url)
        cache = RedisReplyCache(client, prefix, window_s=60)
        cache.lookup(["warm"])
        sent: list[int] = []
        connection = client.connection_pool.get_connection()
        real = connection.send_packed_command

        def counted(command: object, check_health: bool = True) -> None:
            sent.append(1)
            real(command, check_health)

        connection.send_packed_command = counted  # type: ignore[method-assign]
        client.connection_pool.release(connection)
        cache.lookup([f"r{n}" for n in range(50)])
        cache.settle({f"r{n}": b"x" for n in range(50)})
        assert len(sent) == 2

    def test_a_store_that_is_full_is_a_store_error(self, redis_url: str, prefix: str) -> None:
        client = connect(redis_url)
        cache = RedisReplyCache(client, prefix, window_s=60)
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(StoreError):
                cache.settle({"a": b"1"})
        finally:
            client.config_set("maxmemory", 0)


def test_a_server_that_is_gone_is_unavailable() -> None:
    cache = RedisReplyCache(connect("redis://127.0.0.1:1/0"), "p", window_s=60)
    with pytest.raises(StoreUnavailableError):
        cache.lookup(["a"])
    with pytest.raises(StoreUnavailableError):
        cache.settle({"a": b"1"})
