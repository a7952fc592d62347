"""Control messages reach the registry once, and their senders get an answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgeseq_core.keys import HEADER_REPLY_PARTITION, HEADER_REPLY_TOPIC, Topics
from edgeseq_core.messages import Control, ControlResult, decode
from edgeseq_core.replay.buffer import StepCommit
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.snapshots.manifest import (
    GateReport,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.memory_registry import MemoryRegistry
from edgeseq_core.snapshots.registry import Offer
from edgeseq_core.streams.controls import ControlDesk, ReplyAddress
from edgeseq_core.streams.producer import OutRecord
from edgeseq_core.testing.clock import FakeClock

NOW_MS = 1_700_000_000_000


@dataclass
class Outbox:
    """Keeps what would be sent."""

    sent: list[OutRecord] = field(default_factory=list)

    def send_all(self, records: list[OutRecord]) -> None:
        self.sent += records


@dataclass
class FakeRecord:
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    topic: str = "e.control"
    partition: int = 0
    offset: int = 0
    key: bytes | None = None
    value: bytes | None = None


@dataclass
class Deployment:
    store: MemoryStore = field(default_factory=MemoryStore)
    outbox: Outbox = field(default_factory=Outbox)

    def __post_init__(self) -> None:
        self.registry = MemoryRegistry(self.store.memory)
        self.epoch = self.store.acquire("learner", 0)
        self.desk = self.new_desk()

    def new_desk(self) -> ControlDesk:
        address = ReplyAddress(Topics("e"), lambda topic: 16 if topic == "e.replies" else 0)
        return ControlDesk(
            self.registry,
            self.store,
            self.outbox,  # type: ignore[arg-type]
            address=address,
            clock=FakeClock(),
        )

    def offer(self, step: int, *, verdict: str = "promote") -> str:
        status, state = self.registry.status("dates"), self.store.state("dates")
        self.store.commit(
            StepCommit(
                task="dates",
                epoch=self.epoch,
                branch=state.branch,
                expected_step=state.step,
                step=step,
                checkpoint=b"c%d" % step,
                journal="{}",
            )
        )
        payload = b"payload %d" % step
        manifest = SnapshotManifest(
            task="dates",
            base="b",
            parent=status.champion,
            step=step,
            positions={},
            payload_digest=payload_digest(payload),
            payload_bytes=len(payload),
            checkpoint_digest=payload_digest(b"c%d" % step),
            config={},
        )
        gate = GateReport(verdict=verdict, reasons=(), candidate={}, champion={})  # type: ignore[arg-type]
        record = SnapshotRecord(manifest=manifest, gate=gate, created_ms=NOW_MS)
        self.registry.offer(
            Offer(
                task="dates",
                epoch=self.epoch,
                branch=state.branch,
                record=record,
                payload=payload,
                expected_champion=status.champion,
                journal="{}",
            )
        )
        return manifest.snapshot_id

    def handle(
        self, action: str, control_id: str = "c1", *, reply: str = "e.replies", **fields: Any
    ) -> ControlResult | None:
        fields = {"task": "dates"} | fields
        control = Control(
            control_id=control_id,
            action=action,  # type: ignore[arg-type]
            operator="ann",
            sent_at_ms=NOW_MS,
            **fields,
        )
        headers = [(HEADER_REPLY_TOPIC, reply.encode()), (HEADER_REPLY_PARTITION, b"3")]
        before = len(self.outbox.sent)
        self.outcomes = self.desk.handle(FakeRecord(headers), control)
        new = self.outbox.sent[before:]
        return decode(new[0].value, ControlResult) if new else None


@pytest.fixture
def at() -> Deployment:
    return Deployment()


def test_rollback_without_a_target_goes_to_the_parent_once(at: Deployment) -> None:
    ids = [at.offer(step) for step in (1, 2, 3)]
    result = at.handle("rollback")
    assert result is not None
    assert (result.ok, result.champion) == (True, ids[1])
    assert at.registry.status("dates").pinned
    assert at.outbox.sent[0].topic == "e.replies"
    assert at.outbox.sent[0].partition == 3
    again = at.handle("rollback")  # redelivered to the same process
    assert again == result
    at.desk = at.new_desk()  # and after a restart, when only the journal knows
    after = at.handle("rollback")
    assert after is not None
    assert (after.ok, after.champion) == (True, ids[1])
    further = at.handle("rollback", "c2")
    assert further is not None
    assert further.champion == ids[0]


def test_promote_pin_and_unpin(at: Deployment) -> None:
    first = at.offer(1)
    held = at.offer(2, verdict="hold")
    promoted = at.handle("promote", snapshot_id=held)
    assert promoted is not None
    assert (promoted.ok, promoted.champion) == (True, held)
    assert at.handle("pin", "c2")
    assert at.registry.status("dates").pinned
    assert at.handle("unpin", "c3")
    assert not at.registry.status("dates").pinned
    lines = [json.loads(line) for line in at.store.journal("dates")]
    by_id = {line["control_id"]: line for line in lines if "control_id" in line}
    assert [by_id[c]["action"] for c in ("c1", "c2", "c3")] == ["promote", "pin", "unpin"]
    assert first != held


def test_what_cannot_be_done_is_answered(at: Deployment) -> None:
    result = at.handle("rollback")
    assert result is not None
    assert not result.ok
    assert "no earlier champion" in result.error
    assert at.outcomes == ["refused"]
    unknown = at.handle("promote", "c2", snapshot_id="dates-9-000000000000")
    assert unknown is not None
    assert not unknown.ok
    assert "dates-9-000000000000" in unknown.error


@pytest.mark.parametrize("topic", ["evil", "e.pairs", "e.repliesx", "e.replies.absent"])
def test_a_reply_topic_outside_the_list_is_refused(at: Deployment, topic: str) -> None:
    at.offer(1)
    assert at.handle("pin", reply=topic) is None
    assert at.outcomes == ["applied", "reply_refused"]
    assert at.outbox.sent == []


def test_cancel_is_left_to_the_predictors(at: Deployment) -> None:
    assert at.handle("cancel", task=None, request_id="r1") is None
    assert at.outcomes == ["passed"]
