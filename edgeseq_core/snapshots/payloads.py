"""What both registries check of a snapshot's bytes, and which they keep for the way back."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence

from edgeseq_core.errors import SnapshotError
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord, payload_digest
from edgeseq_core.snapshots.registry import Offer, Purge

KEPT_PROMOTIONS = 16  # at most, of what served: bytes and checkpoint kept for the way back
KEPT_RECENT = 3  # of them the newest, whatever their ages
KEPT_HELD = 3  # candidates that were held last: a person may still promote them
AGE_FACTOR = 10  # where others were dropped, the older neighbour's age over the younger one's
AGE_FLOOR_MS = 1_000  # ages below this are as good as equal


def thinned(
    promotions: Mapping[str, int], *, spared: Container[str | None], most: int = KEPT_PROMOTIONS
) -> list[str]:
    """Which promoted snapshots to drop, so that few cover seconds, minutes, hours and days.

    ``promotions`` maps id -> time of promotion (ms), oldest first; ``spared`` ids and the last
    ``KEPT_RECENT`` stay.  Ages are counted from the latest promotion.  From the oldest on, each is
    dropped whose neighbours can do without it, so that of any two kept neighbours, with one dropped
    between them, ``older + 1 s <= 10 * (younger + 1 s)``.  Both ages grow alike, so this holds ever
    after, while at most two that are not spared stay in each tenfold of age: 16 reach back 11 days at
    the least, and at a promotion a second about eleven are kept.  Beyond ``most`` the oldest go.

    >>> day = {f"s{at}": at * 1000 for at in range(86_400)}  # a promotion a second
    >>> for snapshot_id in thinned(day, spared=()):
    ...     del day[snapshot_id]
    >>> [86_399 - at_ms // 1000 for at_ms in day.values()]
    [86399, 8639, 863, 86, 8, 2, 1, 0]
    """
    now_ms = max(promotions.values(), default=0)
    ages = [
        (snapshot_id, now_ms - at_ms + AGE_FLOOR_MS) for snapshot_id, at_ms in promotions.items()
    ]
    kept, dropped = ages[:1], list[str]()
    for at, (snapshot_id, age) in enumerate(ages[1:], 1):
        near = at < len(ages) - KEPT_RECENT and kept[-1][1] <= AGE_FACTOR * ages[at + 1][1]
        if near and snapshot_id not in spared:
            dropped.append(snapshot_id)
        else:
            kept.append((snapshot_id, age))
    beyond = max(0, len(kept) - most)
    return dropped + [one for one, _ in kept if one not in spared][:beyond]


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


def purge_line(purge: Purge, snapshots: Sequence[str]) -> str:
    """The journal's line of a purge, with the snapshots whose bytes it deletes."""
    line = {
        "kind": "purge",
        "purge": purge.purge,
        "producer": purge.producer,
        "pair_id": purge.pair_id,
        "at_ms": purge.now_ms,
        "snapshots": snapshots,
    }
    return json.dumps(line, separators=(",", ":"))


def missing(why: str) -> SnapshotError:
    """A snapshot that cannot be used, in one sentence."""
    return SnapshotError(f"{why}; choose one that `edgeseq snapshots --kept` lists")
