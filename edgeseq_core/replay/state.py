"""Plain in-memory state of partitions and tasks, shared by the twins of buffer and registry."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeseq_core.errors import FencedError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import FRESH_PARTS, PARTS, PairState, Part, Position, TaskSettings
from edgeseq_core.replay.recall import SOURCE_BYTES
from edgeseq_core.replay.rules import LARGEST_SHARE


@dataclass
class Outcome:
    """What became of a pair id; ``key`` tells which pair of that id is meant."""

    state: PairState
    key: str = ""
    step: int = 0
    detail: str = ""


@dataclass
class Stored:
    """A record and where it is."""

    name: bytes
    record: bytes
    part: Part
    score: float
    note: bytes = b""

    @property
    def bytes(self) -> int:
        """What it takes of its part's budget."""
        return len(self.record) + len(self.note)


@dataclass
class TaskState:
    """All that is stored for one task."""

    records: dict[str, Stored] = field(default_factory=dict)
    parts: dict[Part, list[tuple[float, str]]] = field(
        default_factory=lambda: {part: [] for part in PARTS}
    )
    part_bytes: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))
    sequence: int = 0
    learnt: int = 0
    shed: int = 0
    forgotten: int = 0
    threshold: float = 1.0  # priorities from here on are not sampled
    largest_bytes: int = 0  # the largest record the reservoir was offered
    memory: dict[bytes, bytes] = field(default_factory=dict)  # source -> correction, oldest first
    # --- learner
    step: int = 0
    branch: int = 0
    last_step: int = 0
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    # --- registry
    payloads: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)  # id -> record JSON, oldest first
    promoted_ms: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)  # id -> step, snapshots with bytes
    promotions: list[str] = field(default_factory=list)  # with bytes, oldest first
    held: list[str] = field(default_factory=list)
    forks: list[tuple[int, int]] = field(default_factory=list)  # (last step before, base step)
    pinned_ms: int | None = None
    chosen: str | None = None  # what a person promoted, rolled back to or pinned last
    reference: str | None = None  # what the gate compared the latest offer with
    base: str | None = None  # digest of the base it was changed to
    tainted: bool = False  # a pair that its learner had taken was forgotten
    purging: str | None = None  # the champion that may have learnt it, until a clean one is offered
    receipts: list[str] = field(default_factory=list)
    noted: int = 0  # the branch that wrote the notes
    left: dict[str, str] = field(default_factory=dict)  # base -> champion when it was restarted

    def next_score(self) -> float:
        self.sequence += 1
        return float(self.sequence)

    def put(self, key: str, stored: Stored) -> None:
        self.records[key] = stored
        insort(self.parts[stored.part], (stored.score, key))
        self.part_bytes[stored.part] += stored.bytes

    def take(self, key: str) -> Stored:
        stored = self.records.pop(key)
        entries = self.parts[stored.part]
        del entries[bisect_left(entries, (stored.score, key))]
        self.part_bytes[stored.part] -= stored.bytes
        return stored

    def learn(self, key: str, stored: Stored, budget_bytes: int) -> None:
        """Offer a learnt pair to the reservoir; call `shrink_reservoir` after the last one."""
        size = stored.bytes
        if size <= budget_bytes // LARGEST_SHARE:
            self.largest_bytes = max(self.largest_bytes, size)
            if stored.score < self.threshold:
                self.put(key, stored)

    def shrink_reservoir(self, budget_bytes: int) -> None:
        """Evict the largest priorities.

        A pair stays while the bytes before it leave room for the largest record: then whether it
        stays does not depend on its own size, and the sample is uniform over pairs of all sizes.
        """
        room = budget_bytes - min(self.largest_bytes, budget_bytes // LARGEST_SHARE)
        entries = self.parts["reservoir"]
        while entries:
            priority, key = entries[-1]
            held = self.part_bytes["reservoir"]
            if held <= budget_bytes and held - self.records[key].bytes <= room:
                return
            self.take(key)
            self.threshold = priority  # all that is left is below it

    def drop_notes(self) -> None:
        """Drop all that a learner kept beside the pairs of the reservoir."""
        for _, key in self.parts["reservoir"]:
            stored = self.records[key]
            self.part_bytes["reservoir"] -= len(stored.note)
            stored.note = b""

    @property
    def memory_bytes(self) -> int:
        return sum(SOURCE_BYTES + len(told) for told in self.memory.values())

    def remember(self, told: bytes, budget_bytes: int) -> None:
        """Keep a correction as its source's latest; the oldest make room."""
        source = told[:SOURCE_BYTES]
        self.memory.pop(source, None)
        self.memory[source] = told[SOURCE_BYTES:]
        while self.memory_bytes > budget_bytes:
            del self.memory[next(iter(self.memory))]

    def drop_checkpoint(self, step: int) -> None:
        """Delete a checkpoint unless the learner or a kept snapshot stands on it."""
        if step != self.step and step not in self.kept.values():
            self.checkpoints.pop(step, None)


@dataclass
class PartitionState:
    """All that is stored for one partition."""

    positions: dict[str, Position] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    settings: dict[str, TaskSettings] = field(default_factory=dict)
    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    seen_ms: dict[bytes, int] = field(default_factory=dict)
    quarantine: dict[bytes, bytes] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    relearning: dict[str, int] = field(default_factory=dict)  # task -> branch
    tasks: dict[str, TaskState] = field(default_factory=dict)

    def task(self, task: str) -> TaskState:
        return self.tasks.setdefault(task, TaskState())

    def fence(self, role: str, epoch: int) -> None:
        """Raises FencedError unless ``epoch`` is the current owner's."""
        current = self.epochs.get(role, 0)
        if epoch != current:
            raise FencedError(
                f"the {role}'s epoch is {current}, not {epoch}: another owner has taken over"
            )

    def note(self, name: bytes, outcome: Outcome, now_ms: int) -> None:
        """Remember what became of a pair id from ``now_ms`` on."""
        if name in self.seen_ms:
            del self.seen[bisect_left(self.seen, (self.seen_ms[name], name))]
        self.outcomes[name] = outcome
        self.seen_ms[name] = now_ms
        insort(self.seen, (now_ms, name))

    def settle(self, name: bytes, key: str, state: PairState, step: int = 0) -> None:
        """Change what became of a pair, if its id is still remembered for this very pair."""
        outcome = self.outcomes.get(name)
        if outcome is not None and outcome.key == key:
            self.outcomes[name] = Outcome(state, key, step)

    def forget_ids(self, before_ms: int, keep: int, at_once: int) -> None:
        """Drop at most ``at_once`` ids older than a time, and as many above a count."""
        self._drop_ids(min(at_once, bisect_left(self.seen, (before_ms, b""))))
        self._drop_ids(max(0, min(at_once, len(self.seen) - keep)))

    def _drop_ids(self, count: int) -> None:
        for _, name in self.seen[:count]:
            del self.outcomes[name], self.seen_ms[name]
        del self.seen[:count]


class MemoryState:
    """All partitions; the twins lock it, so that each of their methods is one step."""

    def __init__(self, partitions: int = 1) -> None:
        self.partitions = [PartitionState() for _ in range(partitions)]
        self.lock = threading.RLock()

    def partition_of(self, task: str) -> PartitionState:
        return self.partitions[partition_of(task, len(self.partitions))]

    def task(self, task: str) -> TaskState:
        return self.partition_of(task).task(task)


def waiting_of(task: TaskState) -> tuple[int, int]:
    """Waiting (corrections, bulk) pairs."""
    return len(task.parts["corrections"]), len(task.parts["bulk"])


def fresh_bytes_of(tasks: Iterator[TaskState]) -> int:
    """Bytes of the fresh pairs of some tasks."""
    return sum(task.part_bytes[part] for task in tasks for part in FRESH_PARTS)
