"""The in-memory twin of the Redis store: the same promises in one process, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from edgeseq_core.errors import FencedError
from edgeseq_core.replay.buffer import (
    FRESH_PARTS,
    PARTS,
    ROLES,
    BufferStats,
    Draw,
    HeldBack,
    IncomingPair,
    IngestOutcome,
    LearnerState,
    PairOutcome,
    Part,
    Position,
    Recoded,
    Role,
    StepCommit,
    StoredPair,
    TaskSettings,
)
from edgeseq_core.replay.recall import Remembered, source_digest, unpack
from edgeseq_core.replay.record import (
    NAME_BYTES,
    TOO_LONG,
    owner_of,
    pack_quarantined,
    pair_key,
    pair_name,
    unpack_quarantined,
)
from edgeseq_core.replay.rules import (
    LARGEST_SHARE,
    PRIORITY_PARTS,
    REMEMBERED,
    StoreLimits,
    check_moves,
    check_partition,
    forget_at_once,
    held_of,
    state_in,
)
from edgeseq_core.replay.state import (
    MemoryState,
    Outcome,
    PartitionState,
    Stored,
    TaskState,
    fresh_bytes_of,
    waiting_of,
)


class MemoryStore:
    """A replay buffer in memory; `snapshots.memory_registry` shares its ``memory``."""

    def __init__(self, *, partitions: int = 1, limits: StoreLimits | None = None) -> None:
        self.memory = MemoryState(partitions)
        self._limits = limits or StoreLimits()

    def acquire(self, role: Role, partition: int) -> int:
        with self.memory.lock:
            epochs = self.memory.partitions[partition].epochs
            epochs[role] = epochs.get(role, 0) + 1
            return epochs[role]

    def confirm(self, role: Role, epochs: Mapping[int, int]) -> None:
        with self.memory.lock:
            for partition, epoch in epochs.items():
                self.memory.partitions[partition].fence(role, epoch)

    # --- consumer ---------------------------------------------------------------------------------

    def positions(self, partition: int) -> dict[str, Position]:
        return dict(self.memory.partitions[partition].positions)

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
        check_partition(list(pairs), partition, len(self.memory.partitions))
        owned = self.memory.partitions[partition]
        with self.memory.lock:
            owned.fence("consumer", epoch)
            if (found := owned.positions.get(topic)) != expected:
                raise FencedError(
                    f"the position of {topic} is {found}, not {expected}: read it again"
                )
            owned.positions[topic] = position
            outcomes = [self._place(owned, pair, position.log, now_ms) for pair in pairs]
            self._forget_ids(owned, len(pairs), now_ms)
        return outcomes

    def _place(
        self, owned: PartitionState, pair: IncomingPair, log: str, now_ms: int
    ) -> IngestOutcome:
        name = pair_name(pair.task, pair.producer, pair.pair_id)
        known = owned.outcomes.get(name)
        if known is not None and known.state in REMEMBERED:
            return "duplicate"
        registered = pair.task in owned.settings
        room = self._limits.auto_register and len(owned.settings) < self._limits.max_tasks
        if not registered and not room:
            return "unknown_task"
        if pair.quarantine:
            return self._quarantine(owned, pair, name, now_ms)
        settings = owned.settings.setdefault(pair.task, TaskSettings())
        task = owned.task(pair.task)
        if 0 < settings.fresh_quota <= sum(waiting_of(task)):
            task.shed += 1
            owned.note(name, Outcome("shed"), now_ms)
            return "shed"
        key = pair_key(log, pair.topic, pair.offset)
        part: Part = "corrections" if pair.correction else "bulk"
        task.put(key, Stored(name, pair.record, part, task.next_score()))
        owned.note(name, Outcome("waiting", key), now_ms)
        if settings.memory and pair.told:
            task.remember(pair.told, self._limits.memory_bytes)
        return "accepted"

    def _quarantine(
        self, owned: PartitionState, pair: IncomingPair, name: bytes, now_ms: int
    ) -> IngestOutcome:
        names = (pair.task, pair.producer, pair.pair_id)
        held = pack_quarantined(names, pair.quarantine, pair.record)
        others = sum(len(data) for other, data in owned.quarantine.items() if other != name)
        if others + len(held) > self._limits.quarantine_bytes:
            return "quarantine_full"
        owned.quarantine[name] = held
        owned.note(name, Outcome("quarantined", detail=pair.quarantine), now_ms)
        return "quarantined"

    def _forget_ids(self, owned: PartitionState, pairs: int, now_ms: int) -> None:
        before_ms = now_ms - 1000 * self._limits.id_window_s
        owned.forget_ids(before_ms, self._limits.id_window_pairs, forget_at_once(pairs))

    def note_dead_letter(
        self, task: str, producer: str, pair_id: str, reason: str, now_ms: int
    ) -> None:
        owned = self.memory.partition_of(task)
        name = pair_name(task, producer, pair_id)
        with self.memory.lock:
            known = owned.outcomes.get(name)
            if known is None or known.state not in REMEMBERED:
                owned.note(name, Outcome("dead_lettered", detail=reason), now_ms)
            self._forget_ids(owned, 1, now_ms)

    def fresh_bytes(self, partition: int) -> int:
        with self.memory.lock:
            return fresh_bytes_of(iter(self.memory.partitions[partition].tasks.values()))

    # --- learner ----------------------------------------------------------------------------------

    def waiting(self, partition: int) -> dict[str, tuple[int, int]]:
        with self.memory.lock:
            tasks = self.memory.partitions[partition].tasks
            return {name: waiting_of(task) for name, task in tasks.items() if any(waiting_of(task))}

    def state(self, task: str) -> LearnerState:
        with self.memory.lock:
            t = self.memory.task(task)
            return LearnerState(t.step, t.branch, t.last_step, t.checkpoints.get(t.step))

    def draw(self, task: str, *, corrections: int, bulk: int, replay: Sequence[float]) -> Draw:
        with self.memory.lock:
            t = self.memory.task(task)
            heads = t.parts["corrections"][:corrections] + t.parts["bulk"][:bulk]
            kept = t.parts["reservoir"]
            ranks = [min(int(u * len(kept)), len(kept) - 1) for u in replay] if kept else []
            return Draw(_stored(t, heads), _noted(t, [kept[rank] for rank in ranks]))

    def read(self, task: str, part: Part) -> list[StoredPair]:
        with self.memory.lock:
            t = self.memory.task(task)
            return _stored(t, t.parts[part])

    def commit(self, commit: StepCommit) -> None:
        check_moves(commit)
        with self.memory.lock:
            owned = self.memory.partition_of(commit.task)
            t = owned.task(commit.task)
            owned.fence("learner", commit.epoch)
            _fence_commit(t, commit)
            t.checkpoints[commit.step] = commit.checkpoint
            t.step = t.last_step = commit.step
            t.drop_checkpoint(commit.expected_step)
            t.journal.append(commit.journal)
            if t.noted != commit.branch:
                t.drop_notes()
                t.noted = commit.branch
            budget = owned.settings.get(commit.task, TaskSettings()).reservoir_bytes
            for move in commit.moves:
                stored = t.take(move.key)
                by_priority = move.destination in PRIORITY_PARTS
                score = move.priority if by_priority else t.next_score()
                moved = Stored(stored.name, stored.record, move.destination, score, move.note)
                if move.destination == "reservoir":
                    t.learnt += 1
                    t.learn(move.key, moved, budget)
                else:
                    t.put(move.key, moved)
                learnt_in = commit.step if move.destination == "reservoir" else 0
                owned.settle(stored.name, move.key, state_in(move.destination), learnt_in)
            t.shrink_reservoir(budget)

    def journal(self, task: str, *, after: int = 0) -> list[str]:
        return self.memory.task(task).journal[after:]

    # --- predictor --------------------------------------------------------------------------------

    def recall(self, asked: Sequence[tuple[str, str]]) -> list[Remembered | None]:
        with self.memory.lock:
            found = [self.memory.task(t).memory.get(source_digest(s)) for t, s in asked]
        return [unpack(told) if told else None for told in found]

    # --- people -----------------------------------------------------------------------------------

    def reencode(self, task: str, pairs: Sequence[Recoded], *, epochs: Mapping[Role, int]) -> int:
        with self.memory.lock:
            owned = self.memory.partition_of(task)
            t = owned.task(task)
            for role in ROLES:
                owned.fence(role, epochs[role])
            t.drop_notes()  # in the words of the other vocabulary
            budget = owned.settings.get(task, TaskSettings()).reservoir_bytes
            found = sum(self._recode(owned, t, pair, budget) for pair in pairs)
            held = {pair.name for pair in pairs if pair.destination is None}
            t.memory = {
                source: told
                for source, told in t.memory.items()
                if pair_name(task, *unpack(told)[1:]) not in held
            }
            t.shrink_reservoir(budget)
            return found

    @staticmethod
    def _recode(owned: PartitionState, t: TaskState, pair: Recoded, budget_bytes: int) -> bool:
        if pair.origin is None:
            assert pair.destination is not None
            if owned.quarantine.pop(pair.name, None) is None:
                return False
            name = pair.name[:NAME_BYTES]
            t.put(pair.key, Stored(name, pair.data, pair.destination, t.next_score()))
            if owned.outcomes.get(name) == Outcome("quarantined", detail=TOO_LONG):
                owned.outcomes[name] = Outcome("waiting", pair.key)
            return True
        if pair.key not in t.records or t.records[pair.key].part != pair.origin:
            return False
        stored = t.take(pair.key)
        if pair.destination is not None:
            t.put(pair.key, replace(stored, record=pair.data))
            if pair.origin == "reservoir" and len(pair.data) <= budget_bytes // LARGEST_SHARE:
                t.largest_bytes = max(t.largest_bytes, len(pair.data))
            return True
        field = pair.name + pair.key.encode() if pair.name in owned.quarantine else pair.name
        owned.quarantine[field] = pair.data
        if (known := owned.outcomes.get(pair.name)) is not None and known.key == pair.key:
            owned.outcomes[pair.name] = Outcome("quarantined", detail=TOO_LONG)
        return True

    def held_back(self, task: str) -> list[HeldBack]:
        with self.memory.lock:
            quarantine = dict(self.memory.partition_of(task).quarantine)
        return held_of(task, quarantine)

    def tasks(self, partition: int) -> dict[str, TaskSettings]:
        return dict(self.memory.partitions[partition].settings)

    def set_task(self, task: str, settings: TaskSettings) -> None:
        with self.memory.lock:
            owned = self.memory.partition_of(task)
            owned.settings[task] = settings
            owned.task(task).shrink_reservoir(settings.reservoir_bytes)
            if not settings.memory:
                owned.task(task).memory.clear()

    def outcome(self, task: str, producer: str, pair_id: str) -> PairOutcome | None:
        owned = self.memory.partition_of(task)
        found = owned.outcomes.get(pair_name(task, producer, pair_id))
        return PairOutcome(found.state, found.step, found.detail) if found else None

    def remove(
        self,
        task: str,
        *,
        producer: str | None = None,
        pair_id: str | None = None,
        purge: str = "",
    ) -> int:
        def wanted(names: tuple[str, str]) -> bool:
            return producer in (None, names[0]) and pair_id in (None, names[1])

        with self.memory.lock:
            owned = self.memory.partition_of(task)
            t = owned.task(task)
            t.memory = {s: told for s, told in t.memory.items() if not wanted(unpack(told)[1:])}
            fresh, taken = list[str](), list[str]()
            for key, stored in list(t.records.items()):
                if wanted(owner_of(stored.record)):
                    owned.settle(t.take(key).name, key, "forgotten")
                    (fresh if stored.part in FRESH_PARTS else taken).append(key)
            t.tainted |= bool(taken)
            if fresh or taken:
                t.journal.append(_removal(purge, fresh, taken, 0))
            t.tainted |= any(
                wanted(owner_of(one.record)) for one in held_of(task, owned.quarantine)
            )
            held = _remove_quarantined(owned, task, wanted)
            if held:
                t.journal.append(_removal(purge, [], [], held))
            removed = len(fresh) + len(taken) + held
            t.forgotten += removed
            return removed

    def add_receipt(self, task: str, receipt: str) -> None:
        with self.memory.lock:
            self.memory.task(task).receipts.append(receipt)

    def receipts(self, task: str) -> list[str]:
        with self.memory.lock:
            return list(self.memory.task(task).receipts)

    def stats(self, task: str) -> BufferStats:
        with self.memory.lock:
            t = self.memory.task(task)
            return BufferStats(
                pairs={part: len(t.parts[part]) for part in PARTS},
                bytes=dict(t.part_bytes),
                learnt=t.learnt,
                shed=t.shed,
                forgotten=t.forgotten,
                remembered=len(t.memory),
                remembered_bytes=t.memory_bytes,
            )


def _removal(purge: str, fresh: Sequence[str], taken: Sequence[str], held: int) -> str:
    line = {"kind": "remove", "purge": purge, "fresh": sorted(fresh), "taken": sorted(taken)}
    return json.dumps(line | {"held": held}, separators=(",", ":"))


def _stored(task: TaskState, entries: Sequence[tuple[float, str]]) -> list[StoredPair]:
    return [StoredPair(key, task.records[key].part, task.records[key].record) for _, key in entries]


def _noted(task: TaskState, entries: Sequence[tuple[float, str]]) -> list[StoredPair]:
    pairs = _stored(task, entries)
    if task.noted != task.branch:
        return pairs
    return [replace(pair, note=task.records[pair.key].note) for pair in pairs]


def _fence_commit(t: TaskState, commit: StepCommit) -> None:
    """Raises FencedError unless the task is as the learner saw it."""
    for what, found, given in (
        ("branch", t.branch, commit.branch),
        ("stored step", t.step, commit.expected_step),
    ):
        if found != given:
            raise FencedError(f"the {what} of task {commit.task} is {found}, not {given}")
    if commit.step <= t.last_step:
        raise FencedError(
            f"step {commit.step} of task {commit.task} does not follow step {t.last_step}"
        )
    for move in commit.moves:
        stored = t.records.get(move.key)
        if stored is None or stored.part != move.origin:
            place = stored.part if stored else "no part"
            raise FencedError(f"pair {move.key} is in {place}, not in {move.origin}")


def _remove_quarantined(
    owned: PartitionState, task: str, wanted: Callable[[tuple[str, str]], bool]
) -> int:
    names = {name: unpack_quarantined(data)[0] for name, data in owned.quarantine.items()}
    found = [n for n, (of, *pair) in names.items() if of == task and wanted((pair[0], pair[1]))]
    for name in found:
        del owned.quarantine[name]
        owned.settle(name, "", "forgotten")
    return len(found)
