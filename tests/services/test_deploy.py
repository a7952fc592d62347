"""What can be checked of compose, image and Prometheus without a Docker engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeseq_core.settings import Settings, load_settings
from edgeseq_services.embedded.ports import free_port, is_listening, wait_until
from edgeseq_services.embedded.process import spawn, stop

ROOT = Path(__file__).parents[2]
SERVICES = ("consumer", "learner", "predictor")


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_its_settings_exist(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose()["services"][name]
    assert service["command"] == [name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    for variable, value in service["environment"].items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.kafka.bootstrap == "kafka:19092"
    port = getattr(Settings(), name).http_port
    assert f"127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]
    targets = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text())
    listed = [t for s in targets["scrape_configs"][0]["static_configs"] for t in s["targets"]]
    assert f"{name}:{port}" in listed


def test_only_loopback_ports_are_published_and_mounted_files_exist() -> None:
    for service in compose()["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            host = volume.split(":")[0]
            if host.startswith("."):
                assert (ROOT / "deploy" / host).exists(), host


def test_the_image_targets_that_compose_builds_exist() -> None:
    stages = [
        line.split()[-1]
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM ")
    ]
    for name in SERVICES:
        assert compose()["services"][name]["build"]["target"] in stages
    assert stages[-1] == "services"


def test_a_real_redis_takes_the_configuration(tmp_path: Path) -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    config = str(ROOT / "deploy/redis/redis.conf")
    command = [server, config, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = spawn(command, log=tmp_path / "redis.log")
    try:
        assert wait_until(
            lambda: is_listening(port), timeout_s=10, alive=lambda: process.poll() is None
        )
        # It listens before it has made the folder.
        assert wait_until(
            (tmp_path / "appendonlydir").is_dir,
            timeout_s=10,
            alive=lambda: process.poll() is None,
        )
    finally:
        assert stop(process, grace_s=5) == 0


def test_promtool_accepts_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    config = str(ROOT / "monitoring/prometheus/prometheus.yml")
    subprocess.run([promtool, "check", "config", config], check=True, timeout=20)


def test_the_image_command_refuses_what_is_no_service() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "edgeseq_services", "baker"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "name one service: consumer, learner, predictor\n",
    )
