"""The consumer as a process: what it loads and weighs, how it drains, and that it can be fenced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeseq_services.embedded.ports import free_port
from tests.brokers import Broker
from tests.integration.consumer_rig import PARTITIONS, Rig, many

pytestmark = pytest.mark.timeout(120)
MAX_RESIDENT_MB = 120
Start = Callable[[Rig], "Service"]


class Service:
    """One consumer process."""

    def __init__(self, rig: Rig, log: Path) -> None:
        self.port = free_port()
        self.log = log
        kafka, env = rig.kafka, dict(os.environ)
        env |= {
            "EDGESEQ_KAFKA__BOOTSTRAP": kafka.bootstrap,
            "EDGESEQ_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
            "EDGESEQ_KAFKA__PARTITIONS": str(kafka.partitions),
            "EDGESEQ_REDIS__URL": rig.redis_url,
            "EDGESEQ_REDIS__KEY_PREFIX": rig.prefix,
            "EDGESEQ_CONSUMER__HTTP_PORT": str(self.port),
        }
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgeseq_services.consumer"], env=env, stdout=out, stderr=out
            )

    def get(self, path: str) -> str:
        """An answer of the health server; empty while there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    @property
    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def started(rig: Rig) -> Service:
        services.append(Service(rig, tmp_path / f"consumer-{len(services)}.log"))
        return services[-1]

    yield started
    for service in services:
        service.process.kill()
        service.process.wait()


def test_it_needs_neither_torch_nor_river_nor_pandas() -> None:
    code = (
        "import sys, edgeseq_services.consumer;"
        "print(sorted({'torch', 'river', 'pandas', 'scipy', 'cyclopts'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_serves_weighs_little_and_drains(rig: Rig, start: Start) -> None:
    service = start(rig)
    pairs = many([f"p{i}" for i in range(3_000)])
    for at in range(0, len(pairs), 500):
        rig.send(*pairs[at : at + 500])
    rig.send_raw(b"junk")
    rig.run(until=lambda: len(rig.stored()) == 3_000, timeout_s=60)
    rig.run(until=lambda: "true" in service.get("/readyz"))
    assert service.resident_mb <= MAX_RESIDENT_MB
    print(f"consumer service on {rig.kafka.bootstrap}: {service.resident_mb:.0f} MB resident")
    metrics = service.get("/metrics")
    assert 'edgeseq_consumer_pairs_total{outcome="accepted",task="dates"} 750.0' in metrics
    assert 'edgeseq_consumer_dead_letters_total{reason="undecodable"} 1.0' in metrics
    assert "edgeseq_consumer_lag_pairs" in metrics

    service.signal(signal.SIGTERM)
    assert service.process.wait(timeout=20) == 0
    log = service.log.read_text()
    assert "drained" in log
    assert "source p1" not in log  # no text of pairs


def test_a_process_that_slept_changes_nothing(
    make_rig: Callable[..., Rig], embedded_broker: Broker, start: Start
) -> None:
    rig = make_rig(embedded_broker.bootstrap)
    sleeper = start(rig)
    rig.send(*many([f"p{i}" for i in range(40)]))
    rig.run(until=lambda: len(rig.stored()) == 40, timeout_s=60)
    sleeper.signal(signal.SIGSTOP)
    rig.send(*many([f"q{i}" for i in range(40)]))
    heir, events = rig.open()
    rig.run(
        heir,
        until=lambda: len(heir.partitions) == PARTITIONS and len(rig.stored()) == 80,
        timeout_s=60,
    )
    assert events.outcomes["accepted"] + 40 <= 80
    sleeper.signal(signal.SIGCONT)
    rig.send(*many([f"r{i}" for i in range(40)]))
    rig.run(heir, until=lambda: len(rig.stored()) == 120, timeout_s=60)
    rig.run(heir, until=lambda: "true" in sleeper.get("/readyz"), timeout_s=60)
    stored = rig.stored()
    assert len(stored) == len(set(stored)) == 120
    for task in ("dates", "glosses"):
        ids = rig.stored(task)
        assert ids == sorted(ids, key=lambda i: (i[0], int(i[1:])))  # each once, in order


def test_it_refuses_a_redis_that_evicts(
    rig: Rig, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        service = start(rig)
        assert service.process.wait(timeout=30) == 2
        assert "maxmemory-policy is allkeys-lru" in service.log.read_text()
    finally:
        rig.client.config_set("maxmemory-policy", "noeviction")
