"""The reply cache: a request id repeated inside the window gets the answer it got first.

An entry is the request's fingerprint and the encoded reply.  Only answers are kept, abstentions
included; a request that got an error (overloaded, expired, ...) may be tried again under its id.
Two caches pass one contract suite; both look up and settle a whole batch in one round trip.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

import redis

from edgeseq_core.clock import Clock
from edgeseq_core.keys import reply_key
from edgeseq_core.messages import Request
from edgeseq_core.replay.connection import store_errors
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.patience import Patience

FINGERPRINT_BYTES = 16


class ReplyCache(Protocol):
    """Entries by request id, for a stated window."""

    def lookup(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        """The entries that exist."""

    def settle(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """Store each entry unless its id has one; returns the entry that counts for every id."""


class MemoryReplyCache:
    """The twin: one process, bounded, the oldest entries go first."""

    def __init__(self, clock: Clock, *, window_s: float, max_entries: int = 4096) -> None:
        self._clock = clock
        self._window_s = window_s
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # expiry, entry

    def lookup(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        """The entries that exist."""
        with self._lock:
            now_s = self._clock.monotonic()
            found = {i: self._entries[i] for i in request_ids if i in self._entries}
            return {i: entry for i, (expires_s, entry) in found.items() if now_s < expires_s}

    def settle(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """Store each entry unless its id has one; returns the entry that counts for every id."""
        counts = {**entries, **self.lookup(list(entries))}
        with self._lock:
            expires_s = self._clock.monotonic() + self._window_s
            for request_id, entry in counts.items():
                held = self._entries.get(request_id)
                if held is None or held[1] is not entry:
                    self._entries[request_id] = (expires_s, entry)
                    self._entries.move_to_end(request_id)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)
        return counts


class RedisReplyCache:
    """One key an id, set once and expiring by itself; shared by all predictors."""

    def __init__(self, client: redis.Redis, prefix: str, *, window_s: float) -> None:
        self._client = client
        self._prefix = prefix
        self._window_ms = int(window_s * 1000)

    def lookup(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        """The entries that exist; raises StoreError."""
        if not request_ids:
            return {}
        with self._client.pipeline(transaction=False) as pipe:  # not MGET: keys of many slots
            for request_id in request_ids:
                pipe.get(reply_key(self._prefix, request_id))
            found = _run(pipe)
        return {i: e for i, e in zip(request_ids, found, strict=True) if isinstance(e, bytes)}

    def settle(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """Store each entry unless its id has one; returns what counts; raises StoreError."""
        if not entries:
            return {}
        with self._client.pipeline(transaction=False) as pipe:
            for request_id, entry in entries.items():
                key = reply_key(self._prefix, request_id)
                pipe.set(key, entry, nx=True, px=self._window_ms)
                pipe.get(key)
            found = _run(pipe)[1::2]
        return {
            request_id: kept if isinstance(kept, bytes) else entry
            for (request_id, entry), kept in zip(entries.items(), found, strict=True)
        }


def _run(pipe: redis.client.Pipeline) -> list[object]:
    with store_errors("the reply cache"):
        return list(pipe.execute())


class SteadyReplyCache:
    """Serves on without the shared cache: this process's memory stands in while it fails.

    A repeat that reaches this predictor still gets the same answer; one that reaches another may
    not.  Answers that the shared cache did not take are counted.
    """

    def __init__(
        self,
        shared: ReplyCache,
        local: MemoryReplyCache,
        clock: Clock,
        *,
        meter: Meter | None = None,
    ) -> None:
        self._shared = shared
        self._local = local
        self._meter = meter or Meter()
        self._patience = Patience(clock, lost="replies are remembered only in this process")

    def lookup(self, request_ids: Sequence[str]) -> dict[str, bytes]:
        """The entries that exist here or there."""
        if not request_ids:
            return {}
        shared = self._patience.ask(lambda: self._shared.lookup(request_ids))
        return {**self._local.lookup(request_ids), **(shared or {})}

    def settle(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """Store there and here; what is there already counts."""
        if not entries:
            return {}
        counts = self._patience.ask(lambda: self._shared.settle(entries))
        if counts is None:
            self._meter.uncached(len(entries))
            return self._local.settle(entries)
        self._local.settle(counts)
        return counts


def fingerprint(request: Request) -> bytes:
    """What makes two requests the same question: task, source, n_best and constrained."""
    question = request.model_dump_json(include={"task", "source", "n_best", "constrained"})
    return hashlib.sha256(question.encode()).digest()[:FINGERPRINT_BYTES]


def pack(question: bytes, reply: bytes) -> bytes:
    """An entry: fingerprint and encoded reply."""
    return question + reply


def unpack(entry: bytes) -> tuple[bytes, bytes]:
    """Fingerprint and encoded reply of an entry."""
    return entry[:FINGERPRINT_BYTES], entry[FINGERPRINT_BYTES:]
