"""Each fault a doctor should find, made on real servers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from edgeseq_core.settings import Settings, load_settings
from edgeseq_core.telemetry.health import Health, HealthServer
from edgeseq_services import doctor
from edgeseq_services.doctor import Finding, examine
from edgeseq_services.up import Instance, up


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with up(tmp_path_factory.mktemp("state"), services=(), start_timeout_s=20) as running:
        yield running


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(settings)}


def with_ports(instance: Instance, port: int) -> Settings:
    return instance.settings.model_copy(
        update={"consumer": instance.settings.consumer.model_copy(update={"http_port": port})}
    )


def test_all_is_well_with_what_up_started(instance: Instance) -> None:
    findings = found(instance.settings)
    wrong = [f for f in findings.values() if f.level == "error" and f.check not in doctor._SERVICES]
    assert wrong == []
    assert findings["redis"].detail.startswith("Valkey ")
    assert findings["topic edgeseq.pairs"].detail == "8 partitions"
    assert findings["clock"].level == "ok"


def test_a_wrong_partition_count_and_missing_topics(instance: Instance) -> None:
    kafka = instance.settings.kafka
    wrong = kafka.model_copy(update={"partitions": 3})
    findings = found(instance.settings.model_copy(update={"kafka": wrong}))
    assert findings["topic edgeseq.pairs"].level == "error"
    assert "kafka.partitions is 3" in findings["topic edgeseq.pairs"].detail
    absent = kafka.model_copy(update={"topic_prefix": "absent"})
    findings = found(instance.settings.model_copy(update={"kafka": absent}))
    assert "does not exist" in findings["topic absent.requests"].detail


def test_an_evicting_store_without_persistence(instance: Instance) -> None:
    with Redis.from_url(instance.endpoints.redis) as store:
        store.config_set("maxmemory-policy", "allkeys-lru")
        store.config_set("appendonly", "no")
        try:
            findings = found(instance.settings)
        finally:
            store.config_set("maxmemory-policy", "noeviction")
            store.config_set("appendonly", "yes")
    assert findings["redis policy"].level == "error"
    assert findings["redis persistence"].level == "warning"


def test_a_service_that_is_ready_unready_foreign_or_absent(instance: Instance) -> None:
    health = Health()
    server = HealthServer(health, CollectorRegistry(), port=0)
    settings = with_ports(instance, server.port)
    assert "the service is starting" in found(settings)["consumer"].detail
    health.ready()
    assert found(settings)["consumer"].level == "ok"
    server.close()
    assert "not running" in found(settings)["consumer"].detail
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        settings = with_ports(instance, foreign.getsockname()[1])
        assert "something else listens" in found(settings)["consumer"].detail


def test_servers_that_are_not_there() -> None:
    settings = load_settings(
        kafka={"bootstrap": "127.0.0.1:1"}, redis={"url": "redis://:hunter2@127.0.0.1:1/0"}
    )
    findings = found(settings)
    assert findings["kafka"].level == findings["redis"].level == "error"
    assert "hunter2" not in "".join(f.detail for f in findings.values())


def test_a_clock_that_is_off(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.time.time
    monkeypatch.setattr(doctor.time, "time", lambda: real() + 2)
    finding = found(instance.settings)["clock"]
    assert finding.level == "warning"
    assert "2000 ms" in finding.detail or "1999 ms" in finding.detail or "2001" in finding.detail


def test_a_missing_package(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version

    def version(name: str) -> str:
        if name in ("torch", "orjson"):
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    findings = found(instance.settings)
    assert findings["torch"].level == "warning"
    assert "edgeseq[learner]" in findings["torch"].detail
    assert findings["orjson"].level == "error"
