"""Runs one service: settings, health, loop, signals, drain, exit code.

A service module is ``build(context) -> Service`` and ``sys.exit(run_service("consumer", build))``.
Exit codes: 0 drained, an EdgeSeqError's own (2: a restart will not help), 70 for a defect.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog
from prometheus_client import CollectorRegistry

from edgeseq_core.errors import EdgeSeqError, ServiceError
from edgeseq_core.settings import Settings, load_settings
from edgeseq_core.telemetry import logs
from edgeseq_core.telemetry.health import Health, HealthServer

ServiceName = Literal["consumer", "learner", "predictor", "consolidator"]
MAIN_LOOP = "main"
EXIT_DEFECT = 70
_RETRY_FIRST_S = 0.1
_RETRY_LAST_S = 5.0

_log = structlog.get_logger(__name__)


class Service(Protocol):
    """What a service does between start and stop."""

    def run_once(self) -> None:
        """One bounded round, at most about a second when idle.

        Raising a retryable EdgeSeqError means: call again after a while.
        """

    def drain(self) -> None:
        """Finish accepted work, take no more, let go of connections; called once."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a service is built from."""

    settings: Settings
    health: Health = field(default_factory=Health)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    stopping: threading.Event = field(default_factory=threading.Event)


def run_service(
    name: ServiceName, build: Callable[[Context], Service], *, stall_limit_s: float = 30.0
) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code.

    The service is ready after its first round, unless it waits for more (``Health.wait_for``).
    ``/healthz`` fails when a round takes longer than ``stall_limit_s``.
    """
    try:
        settings = load_settings()
        logs.configure(name, level=settings.log.level, form=settings.log.format)
        context = Context(settings=settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: context.stopping.set())
        server = HealthServer(
            context.health,
            context.registry,
            port=getattr(settings, name).http_port,
            host=settings.http.host,
        )
        try:
            _run(context, build, stall_limit_s=stall_limit_s)
        finally:
            server.close()
    except EdgeSeqError as error:
        print(f"edgeseq {name}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except Exception as error:
        _log.exception("defect", error=type(error).__name__)
        return EXIT_DEFECT
    return 0


def _run(context: Context, build: Callable[[Context], Service], *, stall_limit_s: float) -> None:
    health, stopping = context.health, context.stopping
    health.watch(MAIN_LOOP, limit_s=stall_limit_s)
    try:
        service = build(context)
        _log.info("started")
        retry_s = _RETRY_FIRST_S
        while not stopping.is_set():
            health.beat(MAIN_LOOP)
            try:
                service.run_once()
            except EdgeSeqError as error:
                if not error.retryable:
                    raise
                _log.warning("waiting", reason=str(error), retry_s=retry_s)
                health.wait_for("retry", str(error))
                stopping.wait(retry_s)
                retry_s = min(retry_s * 2, _RETRY_LAST_S)
            else:
                retry_s = _RETRY_FIRST_S
                health.ready("retry")
                health.ready()
            if health.died():
                raise ServiceError(f"{health.died()[0]}; see the log above")
        health.wait_for("drain", "the service is stopping")
        _log.info("draining")
        service.drain()
        _log.info("drained")
    except BaseException as error:
        health.fail(MAIN_LOOP, type(error).__name__)
        raise
