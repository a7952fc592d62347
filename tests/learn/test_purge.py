"""Forgetting on request: the pair is nowhere in the store, nor in what learnt it, and a receipt says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.change_base import change_base
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.learn.purge import Purging, Receipt, receipts
from edgeseq_core.model.base import Base
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.replay.buffer import IncomingPair, PairOutcome, Position, TaskSettings
from edgeseq_core.replay.connection import connect
from edgeseq_core.replay.record import PairRecord, pack
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.serving.residents import Residents
from edgeseq_core.serving.watch import SnapshotWatch
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.testing.clock import FakeClock
from tests.learn.rig import SMALL, numbered

TASK = "numbers"
SECRET = ("Jane Roe of 7 Elm Lane", "Ж-number")  # Ж becomes a symbol of the task's own


class World:
    """A learner on a real Redis, and what the tests ask of it."""

    def __init__(self, url: str, prefix: str, base: Base) -> None:
        self.client: redis.Redis = connect(url)
        self.prefix, self.clock = prefix, FakeClock()
        self.buffer = RedisStore(self.client, prefix=prefix, partitions=1)
        self.registry = RedisRegistry(self.client, prefix=prefix, partitions=1)
        self.epoch, self.offset = self.buffer.acquire("consumer", 0), 0
        self.start(base)

    def start(self, base: Base) -> None:
        """A learner with this base, or another one instead."""
        self.base = base
        config = SMALL.model_copy(update={"relearn_least_steps": 6, "relearn_passes": 1})
        self.loop = LearnerLoop(
            self.buffer,
            self.registry,
            base,
            config,
            partitions=[0],
            partition_count=1,
            clock=self.clock,
        )

    def ingest(self, pairs: list[tuple[str, str]], producer: str = "p") -> None:
        before = Position("log", self.offset) if self.offset else None
        incoming = [self.incoming(source, target, producer) for source, target in pairs]
        self.buffer.ingest(
            0,
            incoming,
            epoch=self.epoch,
            topic="pairs",
            expected=before,
            position=Position("log", self.offset),
            now_ms=self.clock.wall_ms(),
        )

    def incoming(self, source: str, target: str, producer: str) -> IncomingPair:
        number, self.offset = self.offset, self.offset + 1
        record = PairRecord(
            producer=producer,
            pair_id=str(number),
            arrived_ms=1,
            topic="pairs",
            offset=number,
            correction=False,
            source_ids=self.ids(source),
            target_ids=self.ids(target),
        )
        return IncomingPair(
            task=TASK,
            producer=producer,
            pair_id=str(number),
            topic="pairs",
            offset=number,
            arrived_ms=1,
            correction=False,
            record=pack(record, self.base.header.record_digest),
        )

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.base.vocabulary.encode(text))

    def run(self) -> None:
        for _ in range(2):  # a turn that was fenced ends the first round
            while self.loop.run_once() is not None:
                pass

    def purge(self, **asked: str | None) -> Purging:
        fields: dict[str, Any] = {"partitions": 1, "clock": self.clock}
        return Purging.begin(self.buffer, self.registry, TASK, **fields, **asked)

    def finish(self, purging: Purging) -> Receipt:
        self.loop.look()
        self.run()
        assert purging.done
        return purging.receipt()

    def holds(self, *needles: bytes) -> list[str]:
        """Where in all of Redis one of these stands: key, and field where there is one."""
        found = []
        for key in self.client.scan_iter(match=f"*{self.prefix}*", count=1000):
            for where, value in self._values(key):
                if any(needle in part for needle in needles for part in (key, where, value)):
                    found.append(f"{key.decode()} {where!r}")
        return found

    def _values(self, key: bytes) -> list[tuple[bytes, bytes]]:
        client: Any = self.client
        kind = client.type(key).decode()
        if kind == "hash":
            return list(client.hgetall(key).items())
        if kind == "list":
            return [(b"", value) for value in client.lrange(key, 0, -1)]
        if kind == "zset":
            return [(b"", value) for value in client.zrange(key, 0, -1)]
        assert kind == "string", kind
        return [(b"", client.get(key))]


@pytest.fixture
def world(redis_url: str, prefix: str, base: Base) -> World:
    return World(redis_url, prefix, base)


def traces(world: World) -> list[bytes]:
    """What a pair leaves: its text, its tokens in a record, its own symbol in a header."""
    ids = [b"".join(i.to_bytes(2, "little") for i in world.ids(text)) for text in SECRET]
    return [*(text.encode() for text in SECRET), *ids, b"u0416"]


def test_a_purged_pair_is_nowhere_and_the_receipt_holds(world: World) -> None:
    world.ingest([SECRET], producer="jane")
    world.ingest(numbered(1, 50))
    world.run()
    assert world.buffer.outcome(TASK, "jane", "0") == PairOutcome("trained", 1)
    found = " ".join(world.holds(*traces(world)))
    assert all(name in found for name in ("records", "checkpoints", "payloads"))
    before, kept = world.registry.status(TASK).champion, world.registry.kept(TASK)

    purging = world.purge(producer="jane", pair_id="0")
    assert not purging.done
    assert world.registry.status(TASK).champion == before  # it serves until a clean one does
    receipt = world.finish(purging)

    assert world.holds(*traces(world)) == []
    champion = world.registry.status(TASK).champion
    assert champion not in (None, before)
    assert world.registry.kept(TASK) <= {
        r.manifest.snapshot_id for r in world.registry.history(TASK)
    }
    assert not world.registry.kept(TASK) & kept
    assert world.buffer.outcome(TASK, "jane", "0") == PairOutcome("forgotten")
    assert receipt.removed == ("log:p:0",)
    assert set(receipt.snapshots_deleted) == kept
    assert receipt.snapshot_id == champion
    assert receipt.relearnt
    assert receipt.faults(world.buffer, world.registry) == []
    assert receipts(world.buffer, TASK) == [receipt]


def test_the_predictor_follows_to_the_clean_snapshot(world: World) -> None:
    world.ingest(numbered(0, 40))
    world.run()
    engine = TorchEngine(world.base)
    residents = Residents(engine, budget_bytes=64 << 20, clock=world.clock)
    watch = SnapshotWatch(
        engine, residents, world.registry, world.buffer, partitions=[0], clock=world.clock
    )
    watch.poll()
    before = engine.snapshot_id(TASK)
    purging = world.purge(producer="p", pair_id="3")
    watch.poll()
    assert engine.snapshot_id(TASK) == before is not None
    receipt = world.finish(purging)
    watch.poll()
    assert engine.snapshot_id(TASK) == receipt.snapshot_id


def test_a_receipt_that_was_altered_or_does_not_hold_is_found_out(world: World) -> None:
    world.ingest(numbered(0, 30))
    world.run()
    receipt = world.finish(world.purge(producer="p", pair_id="3"))
    altered = receipt.model_copy(update={"removed": ()})
    assert altered.faults(world.buffer, world.registry) == [
        "the receipt was altered: its digest differs"
    ]
    champion = world.registry.status(TASK).champion
    lying = receipt.model_copy(
        update={"removed": ("log:p:4",), "snapshots_deleted": (str(champion),)}
    ).sealed()
    assert len(lying.faults(world.buffer, world.registry)) == 3
    world.buffer.remove(TASK, producer="p", pair_id="5")
    assert receipt.faults(world.buffer, world.registry) == [
        "a pair was removed since, and its calibrations stand yet"
    ]


def test_a_pair_that_still_waits_costs_no_calibration(world: World) -> None:
    world.ingest(numbered(0, 30))
    world.run()
    kept, champion = world.registry.kept(TASK), world.registry.status(TASK).champion
    world.ingest([SECRET], producer="jane")
    purging = world.purge(producer="jane", pair_id="30")
    assert purging.done
    receipt = purging.receipt()
    assert (receipt.relearnt, receipt.removed) == (False, ("log:p:30",))
    assert receipt.snapshot_id == champion
    assert world.registry.kept(TASK) == kept
    assert world.holds(*traces(world)) == []
    assert receipt.faults(world.buffer, world.registry) == []


def test_a_producer_whose_pairs_the_reservoir_let_go_is_unlearnt_too(world: World) -> None:
    world.buffer.set_task(TASK, TaskSettings(reservoir_bytes=1200))
    world.ingest([SECRET], producer="jane")
    world.ingest(numbered(1, 60))
    world.run()
    stats = world.buffer.stats(TASK)
    assert stats.learnt > stats.pairs["reservoir"]
    purging = world.purge(producer="jane")
    assert not purging.done
    receipt = world.finish(purging)
    assert world.holds(*traces(world)) == []
    assert receipt.faults(world.buffer, world.registry) == []


def test_a_task_that_is_purged_whole_is_served_no_more(world: World) -> None:
    world.ingest([SECRET, *numbered(1, 30)])
    world.run()
    purging = world.purge()
    assert purging.done
    receipt = purging.receipt()
    assert len(receipt.removed) == 30
    assert (receipt.snapshot_id, world.registry.champions([0])) == (None, {})
    assert world.holds(*traces(world)) == []
    assert receipt.faults(world.buffer, world.registry) == []
    world.ingest(numbered(30, 60))
    world.loop.look()
    world.run()
    assert world.registry.status(TASK).champion is not None


def test_a_purge_that_died_half_way_is_asked_again(world: World) -> None:
    world.ingest([SECRET, *numbered(1, 30)])
    world.run()
    world.buffer.remove(TASK, producer="p", pair_id="0", purge="died")
    purging = world.purge(producer="p", pair_id="0")
    assert not purging.done
    receipt = world.finish(purging)
    assert world.holds(*traces(world)) == []
    assert receipt.faults(world.buffer, world.registry) == []


def test_a_learner_in_the_middle_of_a_step_with_the_pair_commits_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ingest([SECRET, *numbered(1, 30)])
    world.run()
    real, asked = world.buffer.commit, list[Purging]()

    def interrupted(commit: Any) -> None:
        if not asked:
            asked.append(world.purge(producer="p", pair_id="0"))
        real(commit)

    monkeypatch.setattr(world.buffer, "commit", interrupted)
    world.ingest(numbered(30, 34))
    world.loop.run_once()
    world.finish(asked[0])
    assert world.holds(*traces(world)) == []


def test_a_receipt_can_be_fetched_later(world: World) -> None:
    world.ingest([SECRET, *numbered(1, 30)])
    world.run()
    begun = world.purge(producer="p", pair_id="0")
    assert not begun.wait(0.0)
    fields: dict[str, Any] = {"partitions": 1, "clock": world.clock}
    resumed = Purging.resume(world.buffer, world.registry, TASK, purge=begun.asked.purge, **fields)
    receipt = world.finish(resumed)
    assert resumed.wait(0.0)
    assert receipt.log_free_ms is None
    later = resumed.receipt(kept_ms=1_000)
    assert later.log_free_ms == later.asked_ms + 1_000
    assert (receipt.producer, receipt.pair_id, receipt.removed) == ("p", "0", ("log:p:0",))
    assert receipt.faults(world.buffer, world.registry) == []
    with pytest.raises(ConfigError, match="has no purge 0123"):
        Purging.resume(world.buffer, world.registry, TASK, purge="0123", **fields)


def test_what_a_former_base_learnt_is_purged_too(world: World, tmp_path: Path) -> None:
    former, short = world.base, tiny_base(tmp_path, seed=2, max_tokens=20)
    world.ingest([SECRET, *numbered(1, 30)])
    world.run()
    (changed,) = change_base(
        world.buffer,
        world.registry,
        old=former.header,
        new=short.header,
        partitions=1,
        clock=world.clock,
    )
    assert changed.too_long == 1
    needles = traces(world)
    world.start(short)
    world.run()
    found = " ".join(world.holds(*needles))
    assert "quarantine" in found
    assert "payloads" in found  # the way back
    receipt = world.finish(world.purge(producer="p", pair_id="0"))
    assert (receipt.held, receipt.relearnt) == (1, True)
    assert receipt.base == short.digest
    assert world.holds(*needles) == []
    assert receipt.faults(world.buffer, world.registry) == []


def test_a_pair_that_is_learnt_and_let_go_while_it_is_asked_for_is_unlearnt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.buffer.set_task(TASK, TaskSettings(reservoir_bytes=0))
    world.ingest([SECRET, *numbered(1, 12)])
    real = world.buffer.remove

    def late(*args: Any, **named: Any) -> int:
        world.run()
        return real(*args, **named)

    monkeypatch.setattr(world.buffer, "remove", late)
    receipt = world.finish(world.purge(producer="p", pair_id="0"))
    assert (receipt.removed, receipt.relearnt) == ((), True)
    assert world.holds(*traces(world)) == []
