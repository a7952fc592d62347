"""A correction over Kafka is answered at once: consumer and predictor are real, and no learner runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeseq_core.client import Client, Prediction
from edgeseq_core.replay.buffer import TaskSettings
from edgeseq_core.streams.open_consumer import open_pair_consumer
from tests.brokers import Broker
from tests.integration.consumer_rig import DIGEST, VOCABULARY
from tests.integration.predictor_world import WAIT_S, World, wait_for

pytestmark = pytest.mark.timeout(120)
ON = TaskSettings(memory=True)


@contextmanager
def consuming(world: World) -> Iterator[None]:
    """A consumer on a thread."""
    consumer = open_pair_consumer(
        world.settings.kafka,
        world.settings.consumer,
        vocabulary=VOCABULARY,
        digest=DIGEST,
        max_tokens=256,
        store=world.store,
        registry=world.registry,
    )
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            consumer.run_once(timeout_ms=50)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(WAIT_S)
        consumer.close(timeout_ms=1_000)


def is_stored(world: World, task: str, pair_id: str) -> bool:
    return world.store.outcome(task, "desk", pair_id) is not None


def told(prediction: Prediction) -> tuple[str | None, str | None]:
    """The answer, and the id of the pair that said so."""
    return prediction.target, prediction.memory and prediction.memory.pair_id


def test_a_correction_is_answered_before_any_training(kafka_broker: Broker, redis_url: str) -> None:
    world = World(kafka_broker, redis_url)
    for task in ("dates", "verbs"):
        world.promote(task, 1)
    world.store.set_task("dates", ON)  # before the start, so that it is known once ready
    running = world.start()
    try:
        with consuming(world), Client(settings=world.settings.kafka, producer="desk") as client:
            assert told(client.predict("dates", "abc")) == ("cba~dates1", None)
            for target in ("A", "B", "A"):
                pair_id = client.correct("dates", "abc", target)
                wait_for(lambda p=pair_id: is_stored(world, "dates", p), "the correction")  # type: ignore[misc]
                prediction = client.predict("dates", "abc")
                assert told(prediction) == (target, pair_id)
                assert prediction.snapshot_id in world.promoted
                assert client.pair_status("dates", "desk", pair_id).state == "waiting"
            assert world.store.state("dates").step == 1  # nothing was learnt since
            other = client.correct("verbs", "abc", "A")
            wait_for(lambda: is_stored(world, "verbs", other), "the other correction")
            assert told(client.predict("verbs", "abc")) == ("cba~verbs1", None)
        count = "edgeseq_predictor_requests_total"
        assert running.metric(count, task="dates", outcome="remembered") == 3
        assert running.metric(count, task="verbs", outcome="remembered") == 0
        for task in ("dates", "verbs"):
            assert running.metric("edgeseq_predictor_freshness_seconds_count", task=task) == 0
    finally:
        world.close()


def test_without_redis_the_model_answers(embedded_broker: Broker, tmp_path: Path) -> None:
    from tests.redis_server import RedisServer, debian_redis

    server = RedisServer(debian_redis(), tmp_path)
    server.start()
    world = World(embedded_broker, server.url)
    try:
        world.promote("dates", 1)
        world.store.set_task("dates", ON)
        world.start()
        with Client(settings=world.settings.kafka, producer="desk") as client:
            with consuming(world):
                pair_id = client.correct("dates", "abc", "right")
                wait_for(lambda: is_stored(world, "dates", pair_id), "the correction")
            assert told(client.predict("dates", "abc")) == ("right", pair_id)
            server.kill()
            assert told(client.predict("dates", "abc")) == ("cba~dates1", None)
    finally:
        world.close()
        server.kill()
