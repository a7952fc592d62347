"""The replay buffer: where a pair waits, is held out, and is kept after it was learnt.

Parts of a task's buffer; a pair is stored once and only its key moves between them:

* ``corrections`` and ``bulk`` together are the *fresh* part, each in Kafka order.
* ``recent`` is the held-out slice the gate scores, ``probe`` the older held-out set.
* ``reservoir`` is a uniform sample of all the task has learnt, under a byte budget: each pair has a
  priority in [0, 1) (a hash, so the log decides it), and the smallest priorities stay.

Two stores pass one contract suite: `replay.memory.MemoryStore` and `replay.redis.RedisStore`.
Every mutation is one method and, in Redis, one Lua script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edgeseq_core.replay.recall import Remembered

Part = Literal["corrections", "bulk", "recent", "probe", "reservoir"]
FRESH_PARTS: tuple[Part, Part] = ("corrections", "bulk")
PARTS: tuple[Part, ...] = ("corrections", "bulk", "recent", "probe", "reservoir")

PairState = Literal[
    "waiting", "held_out", "trained", "shed", "forgotten", "quarantined", "dead_lettered"
]
Role = Literal["consumer", "learner"]
ROLES: tuple[Role, Role] = ("consumer", "learner")


@dataclass(frozen=True)
class Position:
    """The next offset to read of one topic, and the identity of the log it counts in."""

    log: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What an operator may set for a task; stored beside it."""

    abstain_below: float = 0.0  # confidence under which a reply abstains
    reservoir_bytes: int = 4 << 20
    fresh_quota: int = 0  # waiting pairs above which new ones are shed; 0: never shed
    memory: bool = False  # whether a source is answered with what it was last corrected to


@dataclass(frozen=True, kw_only=True)
class IncomingPair:
    """One valid record on its way into the store."""

    task: str
    producer: str
    pair_id: str
    topic: str
    offset: int
    arrived_ms: int
    correction: bool
    record: bytes  # `replay.record.pack`; for a quarantined pair the message as it arrived
    quarantine: str = ""  # the reason, for a pair that is held and not to be learnt
    told: bytes = b""  # `replay.recall.pack`, for a correction that the memory may keep


IngestOutcome = Literal[
    "accepted", "duplicate", "shed", "quarantined", "unknown_task", "quarantine_full"
]


@dataclass(frozen=True)
class StoredPair:
    """A pair in the buffer; ``key`` names it for ever ("log:topic letter:offset")."""

    key: str
    part: Part
    record: bytes
    note: bytes = b""  # of a replayed pair: what the learner keeps beside it


@dataclass(frozen=True)
class Move:
    """One pair changes its part; ``priority`` is used by ``probe`` and ``reservoir``.

    A ``note`` is kept beside a pair of the reservoir, within its budget, and goes with it.  All notes of a
    task go when its learner leaves their branch (rollback, purge, learning anew) or its pairs are re-encoded.
    """

    key: str
    origin: Part
    destination: Part
    priority: float
    note: bytes = b""


@dataclass(frozen=True, kw_only=True)
class StepCommit:
    """All effects of one learner step; applied as a whole or not at all."""

    task: str
    epoch: int
    branch: int  # `LearnerState.branch` the step started from; a rollback bumps it
    expected_step: int  # the stored step the learner started from
    step: int  # the new one; larger than any before, also across rollbacks
    checkpoint: bytes
    journal: str  # one JSON line
    moves: Sequence[Move] = ()


@dataclass(frozen=True, kw_only=True)
class Recoded:
    """A stored pair for another vocabulary: written anew, held because it does not fit, or let out."""

    key: str
    origin: Part | None  # None: it was held by an earlier change
    destination: Part | None  # the same part, or where it waits again; None: it is held now
    name: bytes  # `record.pair_name`; of one that was held, `HeldBack.field`
    data: bytes  # the new record; of a pair that is held, `record.pack_quarantined` of the old one


@dataclass(frozen=True)
class HeldBack:
    """A pair that did not fit the base of an earlier change: its key and its record of before."""

    key: str
    field: bytes  # under which the quarantine has it
    record: bytes


@dataclass(frozen=True)
class LearnerState:
    """What a learner needs to resume a task."""

    step: int  # 0: never trained
    branch: int
    last_step: int  # the largest step ever committed; differs from ``step`` after a rollback
    checkpoint: bytes | None


@dataclass(frozen=True)
class Draw:
    """A batch: the heads of the fresh parts (corrections first) and a replay sample."""

    fresh: list[StoredPair]
    replay: list[StoredPair]


@dataclass(frozen=True)
class PairOutcome:
    """What became of a pair; ``step`` is set once trained."""

    state: PairState
    step: int = 0
    detail: str = ""


@dataclass(frozen=True)
class BufferStats:
    """Pairs and bytes per part of a task, how many were ever learnt, shed and forgotten, its memory."""

    pairs: Mapping[Part, int] = field(default_factory=dict)
    bytes: Mapping[Part, int] = field(default_factory=dict)
    learnt: int = 0
    shed: int = 0
    forgotten: int = 0
    remembered: int = 0  # sources in the memory of corrections
    remembered_bytes: int = 0


class ReplayBuffer(Protocol):
    """Pairs from Kafka's position to the reservoir; ``partition`` owns tasks (`keys.partition_of`)."""

    def acquire(self, role: Role, partition: int) -> int:
        """Become the owner; returns the new epoch and fences the former owner."""

    def confirm(self, role: Role, epochs: Mapping[int, int]) -> None:
        """Raises FencedError when another owner has taken over one of these (partition -> epoch)."""

    # --- consumer ----------------------------------------------------------------------------------
    def positions(self, partition: int) -> dict[str, Position]:
        """Stored position per topic; a topic without one has never been read."""

    def ingest(
        self,
        partition: int,
        pairs: Sequence[IncomingPair],
        *,
        epoch: int,
        topic: str,
        expected: Position | None,
        position: Position,
        now_ms: int,
    ) -> list[IngestOutcome]:
        """Deduplicate, append, remember corrections and move one topic's position, in one step.

        ``pairs`` may be empty (only the position moves).  Raises FencedError when the epoch or the
        expected position is stale, StoreFullError when the store is out of memory.
        """

    def note_dead_letter(
        self, task: str, producer: str, pair_id: str, reason: str, now_ms: int
    ) -> None:
        """Remember that a pair with a readable id went to the dead-letter topic."""

    def fresh_bytes(self, partition: int) -> int:
        """Bytes of fresh pairs in the partition, for back-pressure."""

    # --- learner -----------------------------------------------------------------------------------
    def waiting(self, partition: int) -> dict[str, tuple[int, int]]:
        """Per task the waiting (corrections, bulk) pairs; tasks without any may be absent."""

    def state(self, task: str) -> LearnerState:
        """The learner's resumable state."""

    def draw(self, task: str, *, corrections: int, bulk: int, replay: Sequence[float]) -> Draw:
        """Read (not remove) a batch in one round trip.

        At most ``corrections`` and ``bulk`` pairs from the heads of the fresh parts; one reservoir pair
        per number in ``replay``: u in [0, 1) reads the pair at rank ``floor(u * size)`` in priority
        order, so the caller's random state decides the sample.  An empty reservoir gives none.  Notes
        come with replayed pairs, unless another branch wrote them.
        """

    def read(self, task: str, part: Part) -> list[StoredPair]:
        """All pairs of a part, in its order (``recent``: oldest first; ``probe``: by priority)."""

    def commit(self, commit: StepCommit) -> None:
        """Checkpoint, journal and moves in one step; raises FencedError when stale."""

    def journal(self, task: str, *, after: int = 0) -> list[str]:
        """Journal lines from index ``after`` on; a negative one counts from the end."""

    # --- predictor ---------------------------------------------------------------------------------
    def recall(self, asked: Sequence[tuple[str, str]]) -> list[Remembered | None]:
        """What the memory holds for each (task, source), in one round trip."""

    # --- people ------------------------------------------------------------------------------------
    def reencode(self, task: str, pairs: Sequence[Recoded], *, epochs: Mapping[Role, int]) -> int:
        """Replace records by those of another vocabulary, in one step; returns how many there were.

        ``epochs`` are of the consumer and the learner: nobody else may write meanwhile, else
        FencedError.  A pair keeps its key, its part and its place there.  One that is held leaves its
        part for the quarantine (reason "too_long"), and the memory of corrections.  Pairs that are gone
        are passed over, so a call may be repeated.  Records that have grown may push others out of the
        reservoir.
        """

    def held_back(self, task: str) -> list[HeldBack]:
        """The pairs that `reencode` holds."""

    def tasks(self, partition: int) -> dict[str, TaskSettings]:
        """Registered tasks and their settings."""

    def set_task(self, task: str, settings: TaskSettings) -> None:
        """Register a task or change its settings; without ``memory``, what it remembered is gone."""

    def outcome(self, task: str, producer: str, pair_id: str) -> PairOutcome | None:
        """What became of a pair; None when it was never seen or left the window."""

    def remove(
        self,
        task: str,
        *,
        producer: str | None = None,
        pair_id: str | None = None,
        purge: str = "",
    ) -> int:
        """Forget a pair, a producer's pairs, or (neither given) a whole task's; returns how many.

        Their keys are journaled under the ``purge`` id.  Where the learner may have taken one of them,
        the task is tainted (`TaskStatus.tainted`): its calibrations may have learnt it.  What the
        memory of corrections holds of them goes first, and is not counted.
        """

    def add_receipt(self, task: str, receipt: str) -> None:
        """Keep the receipt of a purge (`learn.purge`), a JSON line."""

    def receipts(self, task: str) -> list[str]:
        """All receipts of a task, oldest first."""

    def stats(self, task: str) -> BufferStats:
        """Counts and bytes."""
