"""The snapshot registry: who serves, who was offered, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A candidate and the gate's decision; stored, journaled and (if promoted) served in one step."""

    task: str
    epoch: int
    branch: int
    record: SnapshotRecord
    payload: bytes  # the int8 bytes
    expected_champion: str | None
    journal: str  # one JSON line with the gate's decision
    reference: str | None = None  # the snapshot the gate compared with


@dataclass(frozen=True, kw_only=True)
class Restart:
    """The learner of a task begins anew, from nothing or from a kept snapshot of another base."""

    task: str
    branch: int  # the one it leaves
    expected_champion: str | None
    now_ms: int
    journal: str  # one JSON line
    base: str | None = None  # digest of the base it learns on from now on; None: as before
    snapshot_id: str | None = None  # which serves at once, and whose checkpoint the learner takes


@dataclass(frozen=True, kw_only=True)
class Purge:
    """All that a task has learnt is to be deleted."""

    task: str
    branch: int
    expected_champion: str | None
    purge: str  # its id
    producer: str | None  # whose pairs, None: everybody's
    pair_id: str | None  # which, None: all of them
    now_ms: int


@dataclass(frozen=True)
class TaskStatus:
    """A task's serving state."""

    champion: str | None
    pinned: bool
    branch: int
    base: str | None = None  # digest of the base it was changed to; None: never changed
    tainted: bool = False  # a pair that may be in its calibrations was removed, and they stand yet
    purging: bool = False  # its champion may have learnt such a pair, and goes with the next offer


class SnapshotRegistry(Protocol):
    """One champion a task at all times; bytes before pointer; every move names what it expects."""

    def offer(self, offer: Offer) -> bool:
        """Store a candidate; promote it if the gate said so and the task is not pinned.

        Returns whether it serves now.  Raises FencedError when epoch, branch or champion is stale.
        Bytes and checkpoints are kept of the last few held candidates, and of promotions thinned by
        age (`payloads.thinned`); always of the champion, of what a person promoted, rolled back to
        or pinned last, and of the latest offer's reference.
        """

    def champions(self, partitions: Sequence[int]) -> dict[str, str]:
        """Task -> serving snapshot id, in one round trip."""

    def status(self, task: str) -> TaskStatus:
        """Champion, pin and branch of a task."""

    def record(self, task: str, snapshot_id: str) -> SnapshotRecord:
        """The manifest with its gate report; raises SnapshotError when unknown."""

    def payload(self, manifest: SnapshotManifest) -> bytes:
        """The int8 bytes, verified against the manifest; raises SnapshotError."""

    def kept(self, task: str) -> set[str]:
        """Ids of the snapshots whose bytes are kept: what a person may choose."""

    def history(self, task: str, *, last: int | None = None) -> list[SnapshotRecord]:
        """The manifests of a task (kept always), oldest first: all, or the ``last`` ones."""

    def promote(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        """Serve a stored candidate by a person's decision."""

    def rollback(
        self,
        task: str,
        snapshot_id: str,
        *,
        expected_champion: str | None,
        now_ms: int,
        journal: str,
    ) -> None:
        """Serve an earlier champion, pin the task, and fork the learner to that snapshot's checkpoint."""

    def restart(self, restart: Restart) -> None:
        """Let the learner begin anew on what the buffer holds; the champion serves until it is done.

        Steps are not counted anew, and the branch moves on: a learner that runs is fenced.  With a
        ``base``, a pin is lifted, and only its snapshots can be promoted or rolled back to from now
        on.  The champion's bytes stay (`left`).  Raises FencedError when branch or
        champion is stale, SnapshotError when ``snapshot_id`` cannot serve.
        """

    def purge(self, purge: Purge) -> None:
        """Delete every calibration of a task, and let its learner begin anew on what is left.

        Bytes and checkpoints go at once, whoever chose them, and so does a pin.  The champion serves
        until the learner's next offer, which takes its place or, held, leaves the task without one;
        where the reservoir is empty it goes at once.  Manifests stay: they tell nothing of a pair.
        The journal gets the line and the ids.  Raises FencedError when branch or champion is stale.
        """

    def left(self, task: str, base: str) -> str | None:
        """The champion of a base when the task was restarted last: the way back; its bytes are kept."""

    def relearning(self, partitions: Sequence[int]) -> dict[str, int]:
        """Task -> branch of those that were restarted and whose learner has offered nothing since."""

    def pin(self, task: str, pinned: bool, *, now_ms: int, journal: str) -> None:
        """Hold the champion against promotions, or let the gate decide again."""

    def is_learnt(self, task: str, step: int) -> bool:
        """Whether the champion has learnt what step ``step`` trained (rollback forks considered)."""
