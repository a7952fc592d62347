"""A predictor that has memory for few of its tasks, on real brokers and a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq_core.messages import Request
from edgeseq_core.snapshots.manifest import SnapshotManifest
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_core.testing.engine import fake_payload
from tests.brokers import Broker
from tests.integration.predictor_world import World, wait_for
from tests.serving.examples import request

pytestmark = pytest.mark.timeout(120)

TASKS = [f"task{n:02}" for n in range(12)]
BUDGET = 4 * len(fake_payload(TASKS[0], f"{TASKS[0]}1"))


@pytest.fixture
def world(kafka_broker: Broker, redis_url: str) -> Iterator[World]:
    """Twelve tasks, and a budget of four."""
    world = World(kafka_broker, redis_url, tasks_budget_bytes=BUDGET)
    for task in TASKS:
        world.promote(task, 1)
    yield world
    world.close()


def fresh(source: str = "abc", **fields: object) -> Request:
    made = request(source, **fields)
    return made.model_copy(update={"sent_at_ms": time.time_ns() // 1_000_000})


def test_every_task_is_answered_and_few_are_held(world: World) -> None:
    running = world.start()
    expected = {}
    for turn in range(5):
        for task in TASKS:
            name = world.ask(fresh(f"s{turn}", task=task))
            expected[name] = (f"{turn}s~{task}1", task)
    for name, (target, task) in expected.items():
        (reply,) = world.replies(name)
        assert reply.error is None
        assert reply.hypotheses[0].target == target
        assert (reply.snapshot_id or "").startswith(f"{task}-1-")
    wait_for(
        lambda: running.metric("edgeseq_predictor_resident_bytes") <= BUDGET, "room to be made"
    )
    held = running.metric("edgeseq_predictor_tasks", state="resident")
    assert 0 < held <= 4
    assert held + running.metric("edgeseq_predictor_tasks", state="cold") == len(TASKS)
    assert running.metric("edgeseq_predictor_cold_load_seconds_count") >= len(TASKS) - 4
    assert sum(running.engine.held_bytes(task) for task in TASKS) <= BUDGET


def test_tasks_are_inferred_whether_held_or_not(world: World) -> None:
    world.start()
    names = {task: world.ask(fresh(f"{task}:x", task=None)) for task in TASKS}
    for task, name in names.items():
        (reply,) = world.replies(name)
        assert (reply.task, reply.hypotheses[0].target) == (task, f"x:{task[::-1]}~{task}1")


def test_the_champion_of_a_cold_task_is_what_answers_next(world: World) -> None:
    running = world.start()
    cold = next(task for task in TASKS if running.engine.snapshot_id(task) is None)
    second = world.promote(cold, 2)
    wait_for(
        lambda: running.metric("edgeseq_predictor_swaps_total", task=cold) == 2, "the new champion"
    )
    assert running.engine.snapshot_id(cold) is None  # nobody asked
    (reply,) = world.replies(world.ask(fresh(task=cold)))
    assert reply.snapshot_id == second


def test_requests_of_other_tasks_pass_one_that_is_being_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = world.start()
    held = next(task for task in TASKS if running.engine.snapshot_id(task))
    cold = next(task for task in TASKS if not running.engine.snapshot_id(task))
    go_on, reading, real = threading.Event(), threading.Event(), RedisRegistry.payload

    def slow(registry: RedisRegistry, manifest: SnapshotManifest) -> bytes:
        reading.set()
        assert go_on.wait(40)
        return real(registry, manifest)

    monkeypatch.setattr(RedisRegistry, "payload", slow)
    waiting = world.ask(fresh("w", task=cold))
    late = world.ask(fresh("l", task=cold, timeout_ms=200))
    assert reading.wait(20)
    for at in range(5):
        assert world.codes(world.ask(fresh(f"h{at}", task=held))) == [None]
    assert world.codes(late) == ["expired"]
    assert waiting not in world.ear.heard
    go_on.set()
    (reply,) = world.replies(waiting)
    assert reply.hypotheses[0].target == f"w~{cold}1"
    assert reply.timings.queue_ms >= 200


def test_a_predictor_that_stops_loads_what_it_accepted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = world.start()
    cold = next(task for task in TASKS if not running.engine.snapshot_id(task))
    reading, real = threading.Event(), RedisRegistry.payload

    def slow(registry: RedisRegistry, manifest: SnapshotManifest) -> bytes:
        reading.set()
        time.sleep(0.5)
        return real(registry, manifest)

    monkeypatch.setattr(RedisRegistry, "payload", slow)
    name = world.ask(fresh(task=cold))
    assert reading.wait(20)
    running.close()
    assert world.codes(name) == [None]


def test_without_the_store_cold_tasks_get_an_error_and_held_ones_answer(
    kafka_broker: Broker, tmp_path: Path
) -> None:
    from tests.redis_server import RedisServer, debian_redis

    server = RedisServer(debian_redis(), tmp_path)
    server.start()
    world = World(kafka_broker, server.url, tasks_budget_bytes=BUDGET)
    try:
        for task in TASKS:
            world.promote(task, 1)
        running = world.start()
        held = next(task for task in TASKS if running.engine.snapshot_id(task))
        cold = next(task for task in TASKS if not running.engine.snapshot_id(task))
        server.stop()
        assert world.codes(*[world.ask(fresh(task=task)) for task in (held, cold)]) == [
            None,
            "internal",
        ]
        server.start()
        wait_for(
            lambda: world.codes(world.ask(fresh(task=cold))) == [None], "the store to be read again"
        )
    finally:
        world.close()
        server.stop()
