"""Kafka brokers for tests: every one that this machine has.

* ``kafka_broker`` runs a test on the embedded broker always; on Apache Kafka where ``KAFKA_HOME``
  names a distribution (then it may not be skipped); in a container where a Docker engine answers.
* ``embedded_broker`` and ``apache_kafka`` are one broker each, for tests that need just that one.
* ``restartable_broker`` is an embedded broker of the test's own, to stop, kill and start again.
* ``topic_prefix`` is a fresh prefix per test, so tests share a broker and no topic.

Brokers live as long as the session; topics are the test's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeseq_services.embedded.broker import EmbeddedBroker
from edgeseq_services.embedded.ports import LOOPBACK, free_port, is_listening, wait_until
from edgeseq_services.embedded.process import last_line, spawn, stop

START_TIMEOUT_S = 60.0

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={directory}
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
"""


@dataclass(frozen=True)
class Broker:
    """A running broker; ``name`` is ``embedded``, ``apache`` or ``docker``."""

    name: str
    bootstrap: str


class ApacheKafka:
    """One KRaft node from the distribution in ``home``; restarts keep its log."""

    def __init__(self, home: Path, directory: Path) -> None:
        self._bin = home / "bin"
        self._log = directory / "server.log"
        self._config = directory / "server.properties"
        self.port, controller = free_port(), free_port()
        self._env = {"LOG_DIR": str(directory / "logs")}
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            _PROPERTIES.format(port=self.port, controller=controller, directory=directory / "data")
        )
        storage = str(self._bin / "kafka-storage.sh")
        uuid = self._run(storage, "random-uuid").strip().splitlines()[-1]
        self._run(storage, "format", "-t", uuid, "-c", str(self._config))

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            pytest.fail(f"{command[0]} failed with {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def start(self) -> None:
        command = [str(self._bin / "kafka-server-start.sh"), str(self._config)]
        process = self._process = spawn(command, log=self._log, env=self._env)
        started = wait_until(
            lambda: is_listening(self.port),
            timeout_s=START_TIMEOUT_S,
            alive=lambda: process.poll() is None,
        )
        if not started:
            stop(process, grace_s=1)
            pytest.fail(f"Apache Kafka did not start: {last_line(self._log)}")

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, grace_s=15)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _docker_reason() -> str:
    """Why no Docker engine can be used; empty when one answers."""
    if shutil.which("docker") is None:
        return "no docker command on this machine"
    try:
        done = subprocess.run(
            ["docker", "info"], capture_output=True, text=True, timeout=5, check=False
        )
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer within 5 s"
    return "" if done.returncode == 0 else "no Docker engine answers on this machine"


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker") / "broker.log")
    broker.start()
    yield Broker("embedded", broker.bootstrap)
    broker.stop()


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME names no Apache Kafka distribution")
    if not (Path(home) / "bin" / "kafka-server-start.sh").is_file():
        pytest.fail(f"KAFKA_HOME is {home}, which holds no bin/kafka-server-start.sh")
    if shutil.which("java") is None:
        pytest.fail("KAFKA_HOME is set, but there is no java on PATH: install Java 17 or newer")
    server = ApacheKafka(Path(home).resolve(), tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield Broker("apache", server.bootstrap)
    finally:
        server.stop()


@pytest.fixture(scope="session")
def docker_kafka() -> Iterator[Broker]:
    reason = _docker_reason()
    if reason:
        pytest.skip(reason)
    from testcontainers.community.kafka import KafkaContainer

    with KafkaContainer().with_kraft() as container:
        yield Broker("docker", container.get_bootstrap_server())


@pytest.fixture(
    scope="session",
    params=[
        pytest.param("embedded_broker", id="embedded"),
        pytest.param("apache_kafka", id="apache"),
        pytest.param("docker_kafka", id="docker"),
    ],
)
def kafka_broker(request: pytest.FixtureRequest) -> Broker:
    broker: Broker = request.getfixturevalue(request.param)
    return broker


@pytest.fixture
def restartable_broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker(tmp_path / "broker.log")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def topic_prefix() -> str:
    return f"t{secrets.token_hex(6)}"
