"""Whether a service lives and is ready, and a small HTTP server that says so.

``/healthz`` is 503 once a loop has died or has not beaten within its limit, ``/readyz`` is 503
with the reasons while something is awaited, ``/metrics`` is for Prometheus.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgeseq_core.clock import Clock, SystemClock
from edgeseq_core.errors import ServiceError

STARTING = "starting"
_REQUEST_TIMEOUT_S = 5.0


class Health:
    """Beats of named loops and reasons not to be ready; thread-safe.

    A new one is not ready: the service says ``ready()`` when it has started.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._limits: dict[str, float] = {}
        self._beats: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._waits: dict[str, str] = {STARTING: "the service is starting"}

    def watch(self, loop: str, *, limit_s: float) -> None:
        """Expect ``loop`` to beat at least every ``limit_s`` seconds from now on."""
        with self._lock:
            self._limits[loop] = limit_s
            self._beats[loop] = self._clock.monotonic()

    def beat(self, loop: str) -> None:
        """The loop is alive; one that is not watched is a KeyError."""
        with self._lock:
            if loop not in self._limits:
                raise KeyError(loop)
            self._beats[loop] = self._clock.monotonic()

    def unwatch(self, loop: str) -> None:
        """The loop has ended as it should."""
        with self._lock:
            self._limits.pop(loop, None)
            self._beats.pop(loop, None)

    def fail(self, loop: str, reason: str) -> None:
        """The loop has died; stays so."""
        with self._lock:
            self._failed[loop] = reason

    def wait_for(self, what: str, reason: str) -> None:
        """Not ready until ``ready(what)``."""
        with self._lock:
            self._waits[what] = reason

    def ready(self, what: str = STARTING) -> None:
        """``what`` is awaited no longer."""
        with self._lock:
            self._waits.pop(what, None)

    def ages_s(self) -> dict[str, float]:
        """Seconds since each watched loop's last beat."""
        now = self._clock.monotonic()
        with self._lock:
            return {loop: now - at for loop, at in self._beats.items()}

    def died(self) -> list[str]:
        """Loops that died."""
        with self._lock:
            return [f"{loop} has died: {reason}" for loop, reason in self._failed.items()]

    def faults(self) -> list[str]:
        """Loops that died or stalled; empty when all is well."""
        ages, died = self.ages_s(), self.died()
        with self._lock:
            return died + [
                f"{loop} has not beaten for {age:.1f} s (limit {self._limits[loop]:g} s)"
                for loop, age in ages.items()
                if loop not in self._failed and age > self._limits.get(loop, age)
            ]

    def reasons(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        with self._lock:
            waits = list(self._waits.values())
        return self.faults() + waits


class _BeatAges(Collector):
    """The age of each loop's last beat, read when Prometheus asks."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "edgeseq_service_loop_beat_age_seconds", "Time since a loop last beat.", labels=["loop"]
        )
        for loop, age in self._health.ages_s().items():
            family.add_metric([loop], age)
        yield family


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, health: Health, registry: CollectorRegistry) -> None:
        self.health = health
        self.registry = registry
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own also asks the resolver for this host's name, which may take seconds
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _REQUEST_TIMEOUT_S
    server_version = "EdgeSeq"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(self.server.registry), CONTENT_TYPE_PLAIN_0_0_4)
        elif path == "/healthz":
            self._verdict(self.server.health.faults())
        elif path == "/readyz":
            self._verdict(self.server.health.reasons())
        else:
            self._answer(404, b"there are /metrics, /healthz and /readyz\n", "text/plain")

    def _verdict(self, reasons: list[str]) -> None:
        body = json.dumps({"ok": not reasons, "reasons": reasons}).encode()
        self._answer(503 if reasons else 200, body, "application/json")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: probes are no events."""


class HealthServer:
    """Serves a Health and a registry over HTTP until closed; port 0 takes a free one."""

    def __init__(
        self,
        health: Health,
        registry: CollectorRegistry,
        *,
        port: int,
        host: str = "127.0.0.1",
    ) -> None:
        registry.register(_BeatAges(health))
        try:
            self._server = _Server(host, port, health, registry)
        except OSError as error:
            raise ServiceError(
                f"port {port} for metrics and health cannot be opened on {host} "
                f"({error.strerror}); stop what listens there or set another http_port"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="health-http",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
