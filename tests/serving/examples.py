"""Requests, snapshots and predictors for tests, made in one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from edgeseq_core.clock import Clock
from edgeseq_core.messages import Reply, Request
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.serving.meter import Meter
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.queued import QueuedRequest, expires_at_s
from edgeseq_core.serving.recall import Asked
from edgeseq_core.serving.replies import MemoryReplyCache, ReplyCache
from edgeseq_core.serving.residents import Residents
from edgeseq_core.settings import PredictorSettings
from edgeseq_core.snapshots.manifest import (
    GateReport,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.registry import Offer
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.testing.engine import BASE_DIGEST, FakeEngine, fake_payload

SENT_MS = 1_700_000_000_000
_numbers = count()


def request(source: Any = "abc", *, task: str | None = "dates", **fields: Any) -> Request:
    name = fields.pop("request_id", f"r{next(_numbers)}")
    return Request(request_id=name, task=task, source=source, sent_at_ms=SENT_MS, **fields)


def queued(clock: Clock, **fields: Any) -> QueuedRequest:
    made = request(**fields)
    now_s, wall_ms = clock.monotonic(), clock.wall_ms()
    return QueuedRequest(
        request=made,
        priority=made.priority,
        received_s=now_s,
        expires_s=expires_at_s(made, received_s=now_s, received_wall_ms=wall_ms),
        source_tokens=len(made.source) if isinstance(made.source, str) else 0,
    )


def serving(**marks: str) -> FakeEngine:
    """An engine that serves each named task under a mark."""
    engine = FakeEngine()
    for task, mark in marks.items():
        engine.swap(task, f"{task}-1-{mark}", fake_payload(task, mark))
    return engine


class CountingMeter(Meter):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str | None, str]] = []
        self.fresh: list[tuple[str, float]] = []
        self.swaps: list[str] = []
        self.failures: list[str] = []
        self.uncached_replies = 0
        self.rows: list[int] = []
        self.resident = (0, 0, 0)
        self.cold_loads: list[float] = []
        self.failed_loads = 0

    def request(self, task: str | None, outcome: str) -> None:
        self.outcomes.append((task, outcome))

    def batch(self, rows: int) -> None:
        self.rows.append(rows)

    def swap(self, task: str) -> None:
        self.swaps.append(task)

    def swap_failed(self, task: str) -> None:
        self.failures.append(task)

    def residents(self, held: int, cold: int, held_bytes: int) -> None:
        self.resident = (held, cold, held_bytes)

    def cold_load(self, seconds: float) -> None:
        self.cold_loads.append(seconds)

    def cold_loads_failed(self, tasks: int) -> None:
        self.failed_loads += tasks

    def freshness(self, task: str, seconds: float) -> None:
        self.fresh.append((task, round(seconds, 3)))

    def uncached(self, replies: int) -> None:
        self.uncached_replies += replies


def predictor_of(
    engine: FakeEngine,
    clock: FakeClock,
    *,
    cache: ReplyCache | None = None,
    recall: Callable[[Sequence[Asked]], Mapping[Asked, Remembered]] = lambda _asked: {},
    is_cancelled: Callable[[str], bool] = lambda _id: False,
    abstain_below: float = 0.0,
    max_tokens: int = 96,
    max_n_best: int = 8,
    meter: Meter | None = None,
    residents: Residents | None = None,
) -> Predictor:
    return Predictor(
        engine,
        cache=cache or MemoryReplyCache(clock, window_s=600),
        clock=clock,
        recall=recall,
        abstain_below=lambda _task: abstain_below,
        is_cancelled=is_cancelled,
        residents=residents,
        settings=PredictorSettings(max_tokens=max_tokens, max_n_best=max_n_best),
        meter=meter,
    )


def ask(predictor: Predictor, *requests: Request) -> list[Reply]:
    """Replies to requests of tasks that need not be loaded first."""
    found = predictor.answer([predictor.receive(one) for one in requests])
    replies = [one for one in found if isinstance(one, Reply)]
    assert len(replies) == len(found)
    return replies


def offer(
    task: str,
    step: int,
    *,
    parent: str | None,
    mark: str,
    now_ms: int,
    epoch: int = 1,
    branch: int = 0,
    base: str = BASE_DIGEST,
    arrivals_ms: tuple[int, ...] = (),
    confidence: float = 0.9,
    payload: bytes | None = None,
) -> Offer:
    """A candidate that the gate let pass."""
    payload = payload or fake_payload(task, mark, confidence=confidence)
    manifest = SnapshotManifest(
        task=task,
        base=base,
        parent=parent,
        step=step,
        positions={},
        payload_digest=payload_digest(payload),
        payload_bytes=len(payload),
        checkpoint_digest="0" * 64,
        config={},
    )
    gate = GateReport(verdict="promote", reasons=("test",), candidate={}, champion={})
    return Offer(
        task=task,
        epoch=epoch,
        branch=branch,
        record=SnapshotRecord(
            manifest=manifest, gate=gate, created_ms=now_ms, arrivals_ms=arrivals_ms
        ),
        payload=payload,
        expected_champion=parent,
        journal='{"kind": "gate"}',
    )
