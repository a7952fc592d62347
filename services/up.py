"""`edgeseq up`: broker, store and the three services as supervised children on loopback."""

from __future__ import annotations

import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from edgeseq_core.errors import ServiceError, StoreError
from edgeseq_core.replay.connection import check_policy, connect, store_errors
from edgeseq_core.settings import Section, Settings, load_settings
from edgeseq_core.streams.topics import create_topics

from .embedded.broker import broker_binary, broker_command
from .embedded.ports import LOOPBACK, claim_port, free_port, is_listening
from .embedded.process import resident_bytes
from .embedded.store import store_binary, store_command
from .embedded.topics import create_on_empty_broker
from .present_base import PresentBase
from .runtime import ServiceName
from .state_dir import Endpoints, StateDir, default_directory
from .supervisor import Backoff, Child, Supervisor

SERVICES: tuple[ServiceName, ...] = ("consumer", "learner", "predictor")
MEMORY_NOTICE = (
    "the embedded broker keeps its log in memory and does not enforce read_committed: pairs that "
    "the consumer has not yet stored are lost when it stops, what was learnt is not"
)
START_TIMEOUT_S = 120.0
_BROKER_PORT = 9092
_STORE_PORT = 6379
_PROBE_TIMEOUT_S = 1.0
_WATCH_S = 0.2


@contextmanager
def stop_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal act as Ctrl-C does: KeyboardInterrupt in the main thread.

    A shell lets what a script puts in the background ignore SIGINT, and Python keeps to that; whoever sends
    it means it, so it stops that too.  With ``nohup`` a closed terminal stops nothing.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A running `edgeseq up`; ``with`` it, or call ``stop``."""

    endpoints: Endpoints
    settings: Settings
    directory: Path
    supervisor: Supervisor
    _state: StateDir

    def stop(self) -> None:
        """Drain the services, then stop broker and store; state stays in the folder."""
        self.supervisor.stop()
        self._state.__exit__(None, None, None)

    def resident_bytes(self) -> dict[str, int]:
        """Resident memory of each child."""
        status = self.supervisor.status()
        return {name: resident_bytes(s.pid) for name, s in status.items() if s.pid is not None}

    def wait(self) -> None:
        """Wait for KeyboardInterrupt; raises ServiceError once a child cannot run."""
        while not (failed := self.supervisor.failed()):
            time.sleep(_WATCH_S)
        raise ServiceError(failed[0])

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def up(
    directory: Path | None = None,
    *,
    kafka: str | None = None,
    redis: str | None = None,
    services: Sequence[ServiceName] = SERVICES,
    settings: Settings | None = None,
    on_event: Callable[[str], None] = lambda _sentence: None,
    backoff: Backoff | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
) -> Instance:
    """Start everything in ``directory`` and return when all is ready.

    ``kafka`` (HOST:PORT) and ``redis`` (URL) name servers that already run; without them, and
    without such a setting, embedded ones start.  Ports are the settings' where chosen, else the
    usual ones when free.  ``on_event`` gets one sentence for each thing a person should know.
    Raises ConfigError, MissingExtraError or ServiceError; then nothing is left running.
    """
    chosen = settings or load_settings()
    if kafka is None and chosen.chosen("kafka", "bootstrap"):
        kafka = chosen.kafka.bootstrap
    if redis is None and chosen.chosen("redis", "url"):
        redis = chosen.redis.url
    state = StateDir(directory or default_directory())
    with _ReleasedOnError(state):
        store_port = embedded_port = 0
        if redis is None:
            store_binary()
            store_port = _usual_or_free(_STORE_PORT)
            redis = f"redis://{LOOPBACK}:{store_port}/0"
        else:
            _check_store(redis, chosen)
        if kafka is None:
            broker_binary()
            embedded_port = _usual_or_free(_BROKER_PORT)
            kafka = f"{LOOPBACK}:{embedded_port}"
        names = services
        if services and chosen.consolidator.automatic:
            names = (*services, "consolidator")
        endpoints = Endpoints(
            kafka=kafka, redis=redis, http={name: _http_port(chosen, name) for name in names}
        )
        resolved = _with_endpoints(chosen, endpoints, bases=state.bases)
        base, tiers = PresentBase(resolved, state.bases, on_event=on_event), list[list[Child]]()
        if store_port:
            tiers.append([_store(store_port, state.store, redis, prepare=base.settle)])
        else:
            base.settle()
        if embedded_port:
            on_event(MEMORY_NOTICE)
            tiers.append([_broker(embedded_port, resolved)])
        else:
            create_topics(resolved.kafka)
        tiers.append([_service(name, resolved, base) for name in names])
        supervisor = Supervisor(
            tiers, logs=state.logs, backoff=backoff, on_event=on_event, keeper=base
        )
        supervisor.start(timeout_s=start_timeout_s)
        state.publish(endpoints)
    return Instance(
        endpoints=endpoints,
        settings=resolved,
        directory=state.path,
        supervisor=supervisor,
        _state=state,
    )


class _ReleasedOnError:
    """Owns the state folder; lets go of it only if starting fails."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._state.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._state.__exit__(None, None, None)


def _usual_or_free(usual: int) -> int:
    """The usual port, or another when it is taken."""
    try:
        return claim_port(usual, "a server")
    except ServiceError:
        return free_port()


def _http_port(settings: Settings, name: ServiceName) -> int:
    port: int = getattr(settings, name).http_port
    if settings.chosen(name, "http_port"):
        return claim_port(port, f"metrics of the {name}")
    return _usual_or_free(port)


def _with_endpoints(settings: Settings, endpoints: Endpoints, *, bases: Path) -> Settings:
    """The settings that the children get."""
    changed: dict[str, Section] = {
        "kafka": settings.kafka.model_copy(update={"bootstrap": endpoints.kafka}),
        "redis": settings.redis.model_copy(update={"url": endpoints.redis}),
        "consolidator": settings.consolidator.model_copy(update={"folder": bases}),
    }
    for name, port in endpoints.http.items():
        section = changed.get(name, getattr(settings, name))
        changed[name] = section.model_copy(update={"http_port": port})
    return settings.model_copy(update=changed)


def _broker(port: int, settings: Settings) -> Child:
    """Topics are made each time the broker has become ready: a restarted one is empty."""
    return Child(
        name="broker",
        command=lambda: broker_command(port),
        unready=lambda: "" if is_listening(port) else f"nothing listens on port {port}",
        prepare=lambda: create_on_empty_broker(settings.kafka),
        grace_s=5,
    )


def _store(port: int, directory: Path, url: str, *, prepare: Callable[[], object]) -> Child:
    return Child(
        name="store",
        command=lambda: store_command(port, directory),
        unready=lambda: _store_unready(url),
        prepare=prepare,
        grace_s=20,
    )


def _store_unready(url: str) -> str:
    try:
        with (
            connect(url, timeout_s=_PROBE_TIMEOUT_S) as client,
            store_errors("waiting for the store"),
        ):
            client.ping()
    except StoreError as error:
        return str(error)
    return ""


def _check_store(url: str, settings: Settings) -> None:
    """Refuse a server that is not there or may evict, before anything starts."""
    with connect(url) as client:
        check_policy(client, settings.redis.declared_policy)


def _service(name: ServiceName, settings: Settings, base: PresentBase) -> Child:
    port = getattr(settings, name).http_port
    command = [sys.executable, "-P", "-m", f"edgeseq_services.{name}"]
    return Child(
        name=name,
        command=lambda: command,
        env=base.environment,
        unready=lambda: _service_unready(port),
        grace_s=15,
    )


def _service_unready(port: int) -> str:
    url = f"http://{LOOPBACK}:{port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return _reasons(error, port)
    except (OSError, HTTPException):
        return f"nothing answers on port {port}"


def _reasons(error: urllib.error.HTTPError, port: int) -> str:
    """Why a service is not ready, as it says; it may die while it says it."""
    try:
        with error:
            reasons: list[str] = json.load(error)["reasons"]
    except (OSError, HTTPException, ValueError):
        return f"what answers on port {port} broke off"
    return "; ".join(reasons)
