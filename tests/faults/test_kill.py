"""kill -9, paused owners and a lost second of Redis: the history checks out."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import Broker
from tests.faults.deployment import SERVICES, Deployment, wait_for
from tests.faults.history import violations
from tests.redis_server import RedisServer, debian_redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
PAIRS = 110  # of one stream


@pytest.fixture(scope="module")
def running(
    kafka_broker: Broker,
    redis_url: str,
    base_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """The loop at work; every test adds to the one history."""
    deployment = Deployment(
        kafka_broker.bootstrap, redis_url, base_path, tmp_path_factory.mktemp("services")
    )
    try:
        deployment.start(*SERVICES)
        with deployment.streaming("first", 30):
            pass
        deployment.drain()
        yield deployment
    finally:
        deployment.close()


@pytest.mark.parametrize("victim", SERVICES)
def test_a_killed_service_loses_nothing_and_repeats_nothing(
    running: Deployment, victim: str
) -> None:
    before = len(running.asked)
    with running.streaming(f"kill-{victim}", PAIRS) as stream:
        stream.until(0.4)
        running.kill(victim)
        stream.until(0.6)
        running.start(victim)
    running.drain()
    assert violations(running.facts()) == []
    assert len(running.asked) > before
    assert running.served
    assert running.errors == {}


def test_a_paused_learner_is_fenced(running: Deployment) -> None:
    with running.streaming("pause-learner", PAIRS) as stream:
        stream.until(0.3)
        running.signal("learner", signal.SIGSTOP)
        running.start("learner-2")
    running.drain()
    running.signal("learner-2", signal.SIGSTOP)
    with running.streaming("fenced", 20):
        pass
    wait_for(lambda: "unknown" not in running.states(), "the pairs to be in the store")
    before = running.everything()
    running.signal("learner", signal.SIGCONT)
    wait_for(lambda: running.processes["learner"].poll() is not None, "the fenced learner to end")
    assert "another owner has taken over" in running.log("learner")
    assert running.everything() == before
    running.signal("learner-2", signal.SIGCONT)
    running.drain()
    assert violations(running.facts()) == []
    running.kill("learner-2")
    running.start("learner")
    with running.streaming("after-pause", 20):
        pass
    running.drain()
    assert violations(running.facts()) == []


def test_a_learner_that_idles_ends_when_another_takes_over(running: Deployment) -> None:
    running.drain()
    running.start("learner-2")
    wait_for(lambda: running.processes["learner"].poll() is not None, "the idle learner to end")
    assert "another owner has taken over" in running.log("learner")
    running.kill("learner-2")
    running.start("learner")


def test_a_paused_consumer_is_fenced(running: Deployment) -> None:
    with running.streaming("pause-consumer", PAIRS) as stream:
        stream.until(0.3)
        running.signal("consumer", signal.SIGSTOP)
        running.start("consumer-2")
    running.drain()
    running.signal("consumer", signal.SIGCONT)
    with running.streaming("both", 40):  # both are members now, and share or take over
        pass
    running.drain()
    assert violations(running.facts()) == []
    running.kill("consumer-2")


def test_a_redis_that_lost_its_last_second_is_read_again(
    kafka_broker: Broker, base_path: Path, tmp_path: Path
) -> None:
    """The store comes back as it was before; the consumer rewinds with it, though nothing comes in."""
    server = RedisServer(debian_redis(), tmp_path / "redis", appendfsync="always")
    server.start()
    deployment = Deployment(kafka_broker.bootstrap, server.url, base_path, tmp_path)
    try:
        deployment.start(*SERVICES)
        with deployment.streaming("early", 60) as stream:
            stream.until(0.8)
            shutil.copytree(tmp_path / "redis", tmp_path / "copy")
        deployment.drain()
        lost = deployment.facts()
        assert violations(lost) == []
        server.kill()
        shutil.rmtree(tmp_path / "redis" / "appendonlydir")
        shutil.copytree(tmp_path / "copy" / "appendonlydir", tmp_path / "redis" / "appendonlydir")
        server.start()
        assert "unknown" in deployment.states()
        deployment.drain()
        assert violations(deployment.facts(earlier=(lost,))) == []
        with deployment.streaming("late", 30):
            pass
        deployment.drain()
        assert violations(deployment.facts(earlier=(lost,))) == []
    finally:
        deployment.close()
        server.kill()
