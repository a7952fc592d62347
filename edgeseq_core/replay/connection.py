"""The connection to the Redis store: how it is opened, checked, and how its errors are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from edgeseq_core.errors import (
    ConfigError,
    EdgeSeqError,
    FencedError,
    SnapshotError,
    StateVersionError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from edgeseq_core.keys import STATE_VERSION, partitions_key, version_key

TIMEOUT_S = 10.0
OLDEST_SERVER = (6, 2)
SAFE_POLICY = "noeviction"
_REFUSALS: dict[str, type[EdgeSeqError]] = {"FENCED": FencedError, "SNAPSHOT": SnapshotError}


def connect(url: str, *, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """A client for ``url``, binary-safe, and without hidden retries.

    A call that is repeated behind the caller's back after a lost reply would be refused as stale;
    callers see StoreUnavailableError and read the state again.
    """
    try:
        return redis.Redis.from_url(
            url,
            decode_responses=False,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ConfigError(f"the Redis URL is not valid: {error}") from error


@contextmanager
def store_errors(what: str) -> Iterator[None]:
    """Turn errors of the Redis client into EdgeSeq's; ``what`` names the operation."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise ConfigError(
            f"{what}: Redis refused the login: check user and password in the Redis URL"
        ) from error
    except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError) as error:
        raise StoreUnavailableError(
            f"{what}: Redis cannot be reached ({error}): start it or `edgeseq up`, or correct redis.url"
        ) from error
    except redis.RedisError as error:
        raise _translated(what, str(error)) from error


def _translated(what: str, text: str) -> EdgeSeqError:
    code, _, rest = text.partition(" ")
    if code in _REFUSALS:
        return _REFUSALS[code](f"{what} was refused: {rest}")
    if code == "OOM" or "-OOM " in text or "command not allowed when used memory" in text:
        return StoreFullError(
            f"{what}: Redis has reached maxmemory and wrote nothing: wait, or raise it"
        )
    if code in ("MISCONF", "LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "READONLY"):
        return StoreUnavailableError(f"{what}: Redis cannot serve it now ({text})")
    return StoreError(f"{what}: Redis answered: {text}")


def load_script(client: redis.Redis, package: str, name: str) -> Any:
    """A script by package and file name, behind the shared Lua of its folder; survives NOSCRIPT."""
    parts = [files("edgeseq_core.replay").joinpath("lua", "lib.lua").read_text("utf-8")]
    folder = files(package).joinpath("lua")
    if package != "edgeseq_core.replay":
        parts.append(folder.joinpath("lib.lua").read_text("utf-8"))
    parts.append(folder.joinpath(f"{name}.lua").read_text("utf-8"))
    return client.register_script("\n".join(parts))


def check_store(client: redis.Redis, *, prefix: str, partitions: int) -> None:
    """Mark a new store with state version and partition count; refuse one that has others.

    Raises StateVersionError for another version, ConfigError for another partition count.
    """
    version, count = version_key(prefix), partitions_key(prefix)
    with store_errors("checking the store's version"):
        for key, value in ((version, STATE_VERSION), (count, partitions)):
            if not client.exists(key):  # a full store that is marked can still be opened
                client.set(key, value, nx=True)
        found_version, found_count = (_number(client.get(key)) for key in (version, count))
    if found_version != STATE_VERSION:
        raise StateVersionError(
            f"the store under {prefix!r} has state version {found_version}, this program knows "
            f"{STATE_VERSION}: use the program version that wrote it, or another key prefix"
        )
    if found_count != partitions:
        raise ConfigError(
            f"the store under {prefix!r} was made for {found_count} partitions, the settings say "
            f"{partitions}: set kafka.partitions to {found_count}, or use another key prefix"
        )


def _number(value: object) -> int:
    return int(value) if isinstance(value, bytes) and value.isdigit() else -1


def check_policy(client: redis.Redis, declared: str | None = None) -> None:
    """ConfigError unless the server is new enough and never evicts keys.

    ``declared`` is the policy as the operator states it, used where CONFIG is forbidden.
    """
    with store_errors("checking the Redis server"):
        version = str(client.info("server")["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise ConfigError(f"Redis {version} is too old: EdgeSeq needs {oldest} or newer")
    policy = _policy(client) or declared
    if policy is None:
        raise ConfigError(
            "Redis forbids CONFIG GET, so maxmemory-policy is unknown: "
            f"make sure it is {SAFE_POLICY} and set redis.declared_policy to that"
        )
    if policy != SAFE_POLICY:
        raise ConfigError(
            f"Redis may evict keys (maxmemory-policy is {policy}), which would lose pairs: "
            f"set it to {SAFE_POLICY}"
        )


def _policy(client: redis.Redis) -> str | None:
    """The server's eviction policy; None when it will not say."""
    try:
        with store_errors("reading maxmemory-policy"):
            answer: Any = client.config_get("maxmemory-policy")
    except StoreUnavailableError:
        raise
    except StoreError:
        return None
    value = answer.get("maxmemory-policy")
    return None if value is None else str(value)
