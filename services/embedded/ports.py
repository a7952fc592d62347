"""Free ports, ports in use, and waiting for a server to listen; loopback only."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from edgeseq_core.errors import ServiceError

LOOPBACK = "127.0.0.1"
_POLL_S = 0.02


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def claim_port(port: int, what: str) -> int:
    """``port`` if ``what`` can listen there, a free one for 0; raises ServiceError if taken."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            why = "in use" if in_use else f"not to be had ({error.strerror})"
            raise ServiceError(
                f"port {port} for {what} is {why}; stop what listens there or choose another port"
            ) from None
    return port


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), 0.5).close()
    except OSError:
        return False
    return True


def wait_until(ready: Callable[[], bool], *, timeout_s: float, alive: Callable[[], bool]) -> bool:
    """Poll ``ready`` until it holds; False when time is up or ``alive`` ends first."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline or not alive():
            return False
        time.sleep(_POLL_S)
    return True
