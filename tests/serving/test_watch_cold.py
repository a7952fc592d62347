"""Champions of tasks that are not in memory: noted, read when they are asked for, and forgotten."""

from __future__ import annotations

import threading
import time

import pytest

from edgeseq_core.errors import StoreUnavailableError
from edgeseq_core.serving.residents import Residents
from edgeseq_core.snapshots.manifest import SnapshotManifest
from edgeseq_core.testing.engine import fake_payload
from tests.serving.test_watch import World

ROOM = (
    3 * len(fake_payload("dates", "m1")) + 10
)  # for two tasks: before one is loaded, it counts twice


class ColdWorld(World):
    """Room for ``dates`` and ``verbs``; every reading of a snapshot's bytes is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.residents = Residents(
            self.engine, budget_bytes=ROOM, clock=self.clock, meter=self.meter
        )
        self.watch = self.watch_of(self.residents)
        self.read: list[str] = []
        self.real = self.registry.payload
        self.registry.payload = self._payload  # type: ignore[method-assign]
        self.fault: Exception | None = None

    def _payload(self, manifest: SnapshotManifest) -> bytes:
        self.read.append(manifest.snapshot_id)
        if self.fault is not None:
            raise self.fault
        return self.real(manifest)

    def fill(self) -> str:
        """Two tasks in memory, and a cold third; returns the id of its snapshot."""
        for task in ("dates", "verbs", "cold"):
            self.promote(task, 1)
            self.watch.poll()
        assert [self.residents.is_held(task) for task in self.champion] == [True, True, False]
        self.read.clear()
        return self.champion["cold"]

    def ask(self, task: str | None) -> None:
        """Ask, and grant what was wished."""
        self.residents.blocked([task])
        while (wish := self.residents.next_wish(0)) is not None:
            self.watch.grant(wish)


@pytest.fixture
def world() -> ColdWorld:
    return ColdWorld()


def test_a_cold_champion_is_noted_and_read_when_it_is_asked_for(world: ColdWorld) -> None:
    first = world.fill()
    assert world.residents.snapshot_id("cold") == first
    second = world.promote("cold", 2)
    assert world.watch.poll() == [second]
    assert world.watch.poll() == []
    assert (world.read, world.residents.snapshot_id("cold")) == ([], second)
    assert world.meter.swaps.count("cold") == 2
    world.ask("cold")
    assert world.read == [second]
    assert world.engine.snapshot_id("cold") == second


def test_the_champion_of_a_task_in_memory_is_swapped_in_at_once(world: ColdWorld) -> None:
    world.fill()
    second = world.promote("verbs", 2)
    world.watch.poll()
    assert (world.read, world.engine.snapshot_id("verbs")) == ([second], second)


def test_freshness_counts_what_a_cold_task_is_served_with(world: ColdWorld) -> None:
    world.fill()
    now_ms = world.clock.wall_ms()
    world.promote("cold", 2, arrivals_ms=(now_ms - 500,))
    world.watch.poll()
    assert world.meter.fresh == [("cold", 0.5)]


def test_places_are_read_once_for_requests_without_task(world: ColdWorld) -> None:
    first = world.fill()
    world.ask(None)
    assert world.read == [first]
    assert not world.residents.is_held("cold")
    assert world.engine.infer(["cold:"])[0].task == "cold"
    world.ask(None)
    assert world.read == [first]
    second = world.promote("cold", 2)
    world.watch.poll()
    world.ask(None)
    assert world.read == [first, second]


def test_a_rollback_of_a_cold_task_serves_the_earlier_snapshot(world: ColdWorld) -> None:
    first = world.fill()
    second = world.promote("cold", 2)
    world.watch.poll()
    world.registry.rollback("cold", first, expected_champion=second, now_ms=1, journal="{}")
    world.watch.poll()
    world.ask("cold")
    assert world.engine.snapshot_id("cold") == first


def test_a_cold_task_without_champion_is_no_longer_served(
    world: ColdWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fill()
    world.ask(None)
    left = {task: name for task, name in world.champion.items() if task != "cold"}
    monkeypatch.setattr(world.registry, "champions", lambda _partitions: left)
    world.watch.poll()
    assert world.residents.snapshot_id("cold") is None
    assert world.engine.infer(["cold:"])[0].task is None


def test_a_cold_task_serves_on_while_its_champion_is_of_another_base(world: ColdWorld) -> None:
    first = world.fill()
    world.promote("cold", 2, base="another")
    world.watch.poll()
    assert world.residents.snapshot_id("cold") == first
    world.ask("cold")
    assert world.engine.snapshot_id("cold") == first


def test_bytes_that_moved_on_while_they_were_asked_for_are_looked_up_anew(world: ColdWorld) -> None:
    world.fill()
    second = world.promote("cold", 2)  # not polled yet; of the first, the bytes are gone
    real = world.real
    world.real = lambda m: real(m) if m.step > 1 else b"gone"  # type: ignore[method-assign]
    world.ask("cold")
    assert world.engine.snapshot_id("cold") == second
    assert world.meter.failures == []


def test_damaged_bytes_of_a_cold_task_are_an_error_until_they_are_mended(world: ColdWorld) -> None:
    first = world.fill()
    real = world.real
    world.real = lambda manifest: real(manifest) + b" "  # type: ignore[method-assign]
    world.ask("cold")
    assert world.watch.cannot_load("cold")
    assert world.residents.snapshot_id("cold") is None
    assert (world.meter.failures, world.meter.failed_loads) == (["cold"], 1)
    world.watch.poll()
    assert world.read == [first]  # left alone for a while
    world.clock.advance(1)
    world.real = real  # type: ignore[method-assign]
    assert world.watch.poll() == [first]
    assert not world.watch.cannot_load("cold")
    assert world.engine.snapshot_id("cold") == first  # loaded, to know that it can be


def test_a_store_that_fails_while_loading_loses_nothing(world: ColdWorld) -> None:
    first = world.fill()
    world.fault = StoreUnavailableError("down")
    world.residents.blocked(["cold"])
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: world.watch.run(stop, poll_ms=1, beat=lambda: None), daemon=True
    )
    thread.start()
    until_s = time.monotonic() + 20
    while not world.residents.store_is_away():
        assert time.monotonic() < until_s
        time.sleep(0.005)
    assert world.residents.blocked(["cold"]) == set()  # who waits gets an error, and may ask again
    assert world.residents.snapshot_id("cold") == first
    world.fault = None
    world.clock.advance(2)
    while world.residents.is_cold("cold"):
        world.residents.blocked(["cold"])
        assert time.monotonic() < until_s
        time.sleep(0.005)
    stop.set()
    thread.join()
    assert world.engine.snapshot_id("cold") == first
    assert world.meter.failures == []
