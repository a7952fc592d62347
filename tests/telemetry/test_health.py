"""A service that has stalled says so; one that waits says for what."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from edgeseq_core.errors import ServiceError
from edgeseq_core.telemetry.health import Health, HealthServer
from edgeseq_core.telemetry.metrics import ConsumerMetrics
from edgeseq_core.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock=clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    ConsumerMetrics(registry).pairs.labels("dates", "accepted").inc(3)
    server = HealthServer(health, registry, port=0)
    yield server
    server.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_loop_that_stalls_makes_healthz_fail_and_a_beat_mends_it(
    health: Health, clock: FakeClock, server: HealthServer
) -> None:
    health.watch("poll", limit_s=5)
    clock.advance(4.9)
    assert get(server, "/healthz")[0] == 200
    clock.advance(0.2)
    status, body = get(server, "/healthz")
    assert status == 503
    assert json.loads(body)["reasons"] == ["poll has not beaten for 5.1 s (limit 5 s)"]
    health.beat("poll")
    assert get(server, "/healthz")[0] == 200


def test_a_loop_that_died_stays_dead(
    health: Health, clock: FakeClock, server: HealthServer
) -> None:
    health.watch("poll", limit_s=5)
    health.fail("poll", "KeyError")
    health.beat("poll")
    assert get(server, "/healthz")[0] == 503
    health.ready()
    assert get(server, "/readyz")[0] == 503
    clock.advance(100)
    assert health.faults() == ["poll has died: KeyError"]


def test_readiness_names_every_reason(health: Health, server: HealthServer) -> None:
    status, body = get(server, "/readyz")
    assert (status, json.loads(body)["reasons"]) == (503, ["the service is starting"])
    health.wait_for("assignment", "no partition is assigned yet")
    health.ready()
    assert json.loads(get(server, "/readyz")[1])["reasons"] == ["no partition is assigned yet"]
    health.ready("assignment")
    assert get(server, "/readyz")[0] == 200


def test_metrics_and_beat_age(health: Health, clock: FakeClock, server: HealthServer) -> None:
    health.watch("poll", limit_s=5)
    clock.advance(1.5)
    status, text = get(server, "/metrics")
    assert status == 200
    assert 'edgeseq_consumer_pairs_total{outcome="accepted",task="dates"} 3.0' in text
    assert 'edgeseq_service_loop_beat_age_seconds{loop="poll"} 1.5' in text
    assert get(server, "/elsewhere")[0] == 404


def test_an_unwatched_loop_cannot_beat_and_an_ended_one_is_not_missed(
    health: Health, clock: FakeClock
) -> None:
    with pytest.raises(KeyError):
        health.beat("typo")
    health.watch("poll", limit_s=1)
    health.unwatch("poll")
    clock.advance(10)
    assert health.faults() == []


def test_a_port_in_use_is_one_sentence(health: Health, server: HealthServer) -> None:
    with pytest.raises(ServiceError, match=rf"port {server.port} for metrics and health"):
        HealthServer(health, CollectorRegistry(), port=server.port)
