"""What both registries check of a snapshot's bytes, and how many they keep."""

from __future__ import annotations

from edgeseq_core.errors import SnapshotError
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord, payload_digest
from edgeseq_core.snapshots.registry import Offer

KEPT_PROMOTIONS = 5  # snapshots that served last: bytes and checkpoint kept for the way back
KEPT_HELD = 3  # candidates that were held last: a person may still promote them


def check_offer(offer: Offer) -> None:
    """SnapshotError unless the candidate's bytes and task are those of its manifest."""
    manifest = offer.record.manifest
    if manifest.task != offer.task:
        raise SnapshotError(f"a snapshot of task {manifest.task} was offered for task {offer.task}")
    verified(manifest, offer.payload)


def verified(manifest: SnapshotManifest, payload: bytes | None) -> bytes:
    """The bytes if they are the manifest's; raises SnapshotError."""
    if payload is None:
        raise missing(f"the bytes of snapshot {manifest.snapshot_id} are not kept")
    if len(payload) != manifest.payload_bytes or payload_digest(payload) != manifest.payload_digest:
        raise SnapshotError(
            f"the {len(payload)} bytes of snapshot {manifest.snapshot_id} do not match its "
            f"manifest ({manifest.payload_bytes} bytes): they are damaged, roll back to another"
        )
    return payload


def wants_to_serve(offer: Offer) -> bool:
    """Whether the gate let the candidate pass."""
    return offer.record.gate is not None and offer.record.gate.verdict == "promote"


def promotion_ms(record: SnapshotRecord) -> int:
    """When a snapshot that is promoted as it is offered begins to serve."""
    return record.created_ms if record.promoted_ms is None else record.promoted_ms


def missing(why: str) -> SnapshotError:
    """A snapshot that cannot be used, in one sentence."""
    return SnapshotError(f"{why}: choose another")
