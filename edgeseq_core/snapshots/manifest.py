"""What a snapshot is: the digest of its bytes and where it came from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["promote", "hold"]


class GateScore(BaseModel):
    """Mean loss (nats a token) and exact matches of one snapshot on one held-out set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pairs: int
    loss: float
    exact: int


class GateReport(BaseModel):
    """The gate's decision with its reasons and the scores that led to it, by held-out set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    verdict: Verdict
    reasons: tuple[str, ...]
    candidate: dict[str, GateScore] = {}  # "recent", "probe", and "learnt" while these are few
    champion: dict[str, GateScore] = {}
    reference: dict[str, GateScore] = {}  # the best recent champion: what the candidate must equal
    reference_id: str | None = None  # None: the bare base
    leads: bool = True  # at least as good as the reference: once it serves, it is the next one


class SnapshotManifest(BaseModel):
    """Immutable description of a snapshot; its id is the digest of its content, time excluded."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: Literal[1] = 1
    task: str
    base: str  # digest of the base
    parent: str | None  # champion when it was offered
    step: int
    positions: dict[str, str]  # topic -> "log|offset" up to which the task's pairs were taken
    payload_digest: str  # sha256 of the int8 bytes
    payload_bytes: int
    checkpoint_digest: str
    config: dict[str, Any]  # learner settings that shaped it; "calibration": its shape

    @property
    def snapshot_id(self) -> str:
        """ "<task>-<step>-<12 hex digits of the content's sha256>": never reused."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()
        return f"{self.task}-{self.step}-{hashlib.sha256(content).hexdigest()[:12]}"


class SnapshotRecord(BaseModel):
    """A snapshot in the registry: its manifest, what the gate said, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    manifest: SnapshotManifest
    gate: GateReport | None
    created_ms: int
    promoted_ms: int | None = None  # None: held, or never served
    arrivals_ms: tuple[int, ...] = ()  # arrival of the pairs it learnt and no earlier champion had


def payload_digest(payload: bytes) -> str:
    """The sha256 of a snapshot's bytes, in hex."""
    return hashlib.sha256(payload).hexdigest()
