"""The replay buffer in Redis: every mutation is one Lua script over the keys of one partition.

Reads are plain pipelines or scripts, never MULTI: a full Redis refuses MULTI, even to read.

Layout of a task: hash ``records`` holds key -> name digest (16 bytes) and record; each part is a
sorted set of keys, scored by a sequence number (corrections, bulk, recent) or by priority (probe,
reservoir); hash ``counters`` holds bytes per part and totals; ``state``, ``checkpoints`` and
``journal`` are the learner's.  Bytes count records and notes; a pair takes about 450 more in Redis for
its key, its part and the memory of its id.  Hash ``memory`` holds source digest -> correction, and
sorted set ``memory:ages`` the digests, the oldest first; a correction takes about 180 bytes more.
Hash ``notes`` holds key -> what the learner keeps beside a pair of the reservoir, if its objective does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any, cast

import redis

from edgeseq_core.errors import FencedError
from edgeseq_core.keys import Keys, partition_of
from edgeseq_core.replay.buffer import (
    PARTS,
    ROLES,
    BufferStats,
    Draw,
    HeldBack,
    IncomingPair,
    IngestOutcome,
    LearnerState,
    PairOutcome,
    PairState,
    Part,
    Position,
    Recoded,
    Role,
    StepCommit,
    StoredPair,
    TaskSettings,
)
from edgeseq_core.replay.connection import load_script, store_errors
from edgeseq_core.replay.recall import Remembered, source_digest, unpack
from edgeseq_core.replay.record import (
    owner_of,
    pack_quarantined,
    pair_key,
    pair_name,
    unpack_quarantined,
)
from edgeseq_core.replay.rules import (
    LARGEST_SHARE,
    StoreLimits,
    check_moves,
    check_partition,
    forget_at_once,
    held_of,
)

_REMOVED_AT_ONCE = 500  # pairs a call; Redis serves others in between
_PART_NUMBERS = {part: number for number, part in enumerate(PARTS, 1)}


class RedisStore:
    """A replay buffer in Redis; ``client`` comes from `replay.connection.connect`.

    All methods raise StoreUnavailableError without connection, StoreFullError when Redis is full.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str,
        partitions: int,
        limits: StoreLimits | None = None,
    ) -> None:
        self._client: Any = client
        self._prefix, self._partitions = prefix, partitions
        self._limits = limits or StoreLimits()
        names = (
            "ingest",
            "note_dead_letter",
            "forget",
            "draw",
            "read",
            "state",
            "commit",
            "reencode",
            "set_task",
            "remove",
        )
        self._scripts = {name: load_script(client, "edgeseq_core.replay", name) for name in names}

    def _keys(self, partition: int) -> Keys:
        return Keys(self._prefix, partition)

    def _owner(self, task: str) -> Keys:
        return Keys(self._prefix, partition_of(task, self._partitions))

    def _run(self, script: str, what: str, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
        with store_errors(what):
            return self._scripts[script](keys=keys, args=args)

    def acquire(self, role: Role, partition: int) -> int:
        with store_errors(f"becoming the {role} of partition {partition}"):
            return int(self._client.incr(self._keys(partition).epoch(role)))

    def confirm(self, role: Role, epochs: Mapping[int, int]) -> None:
        with store_errors(f"asking who is the {role}"):
            pipe = self._client.pipeline(transaction=False)
            for partition in epochs:
                pipe.get(self._keys(partition).epoch(role))
            found = pipe.execute()
        for (partition, epoch), current in zip(epochs.items(), found, strict=True):
            if epoch != int(current or 0):
                raise FencedError(
                    f"the {role}'s epoch of partition {partition} is {int(current or 0)}, "
                    f"not {epoch}: another owner has taken over"
                )

    # --- consumer ---------------------------------------------------------------------------------

    def positions(self, partition: int) -> dict[str, Position]:
        with store_errors(f"reading positions of partition {partition}"):
            stored = self._client.hgetall(self._keys(partition).positions)
        return {topic.decode(): _position(value.decode()) for topic, value in stored.items()}

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
        check_partition(list(pairs), partition, self._partitions)
        keys, limits = self._keys(partition), self._limits
        tasks = {task: n for n, task in enumerate(dict.fromkeys(pair.task for pair in pairs), 1)}
        args: list[Any] = [
            epoch,
            topic,
            _position_text(expected) if expected else "",
            _position_text(position),
            now_ms,
            *self._window(len(pairs), now_ms),
            int(limits.auto_register),
            limits.max_tasks,
            limits.quarantine_bytes,
            _settings_text(TaskSettings()),
            limits.memory_bytes,
            len(tasks),
            *tasks,
        ]
        for pair in pairs:
            names, record = (pair.task, pair.producer, pair.pair_id), pair.record
            if pair.quarantine:
                record = pack_quarantined(names, pair.quarantine, record)
            key = pair_key(position.log, pair.topic, pair.offset)
            part = _PART_NUMBERS["corrections" if pair.correction else "bulk"]
            where = (tasks[pair.task], pair_name(*names), key, part)
            args += (*where, pair.quarantine, record, pair.told)
        script_keys = [
            keys.epoch("consumer"),
            keys.positions,
            keys.tasks,
            keys.waiting,
            keys.outcomes,
            keys.seen,
            keys.quarantine,
            keys.counters,
        ]
        for task in tasks:
            script_keys += [
                keys.part(task, "corrections"),
                keys.part(task, "bulk"),
                keys.of_task(task, "records"),
                keys.of_task(task, "counters"),
                *_memory_keys(keys, task),
            ]
        what = f"placing {len(pairs)} pairs of {topic} in partition {partition}"
        return [
            cast(IngestOutcome, o.decode()) for o in self._run("ingest", what, script_keys, args)
        ]

    def _window(self, pairs: int, now_ms: int) -> tuple[int, int, int]:
        """Arguments of the id window: forget before (ms), ids to keep, ids to forget at once."""
        before_ms = now_ms - 1000 * self._limits.id_window_s
        return before_ms, self._limits.id_window_pairs, forget_at_once(pairs)

    def note_dead_letter(
        self, task: str, producer: str, pair_id: str, reason: str, now_ms: int
    ) -> None:
        keys, name = self._owner(task), pair_name(task, producer, pair_id)
        args = (name, reason, now_ms, *self._window(1, now_ms))
        what = f"noting a dead letter of task {task}"
        self._run("note_dead_letter", what, [keys.outcomes, keys.seen], args)

    def fresh_bytes(self, partition: int) -> int:
        with store_errors(f"reading counters of partition {partition}"):
            return int(self._client.hget(self._keys(partition).counters, "fresh_bytes") or 0)

    # --- learner ----------------------------------------------------------------------------------

    def waiting(self, partition: int) -> dict[str, tuple[int, int]]:
        with store_errors(f"reading what waits in partition {partition}"):
            stored = self._client.hgetall(self._keys(partition).waiting)
        counts = {task.decode(): value.split(b",") for task, value in stored.items()}
        return {task: (int(corrections), int(bulk)) for task, (corrections, bulk) in counts.items()}

    def state(self, task: str) -> LearnerState:
        keys = self._owner(task)
        script_keys = [keys.of_task(task, "state"), keys.of_task(task, "checkpoints")]
        step, branch, last_step, checkpoint = self._run(
            "state", f"reading the learner's state of task {task}", script_keys
        )
        return LearnerState(int(step), int(branch), int(last_step), checkpoint)

    def draw(self, task: str, *, corrections: int, bulk: int, replay: Sequence[float]) -> Draw:
        keys = self._owner(task)
        script_keys = [
            keys.of_task(task, "records"),
            keys.part(task, "corrections"),
            keys.part(task, "bulk"),
            keys.part(task, "reservoir"),
            keys.of_task(task, "notes"),
            keys.of_task(task, "state"),
        ]
        args = (corrections, bulk, *map(repr, replay))
        found = self._run("draw", f"drawing a batch of task {task}", script_keys, args)
        first, second, sampled, notes = found
        fresh = [*_stored("corrections", first), *_stored("bulk", second)]
        kept = list(_stored("reservoir", sampled))
        if notes:
            kept = [replace(pair, note=note) for pair, note in zip(kept, notes, strict=True)]
        return Draw(fresh, kept)

    def read(self, task: str, part: Part) -> list[StoredPair]:
        keys = self._owner(task)
        script_keys = [keys.of_task(task, "records"), keys.part(task, part)]
        return list(_stored(part, self._run("read", f"reading {part} of task {task}", script_keys)))

    def commit(self, commit: StepCommit) -> None:
        check_moves(commit)
        task, keys = commit.task, self._owner(commit.task)
        args: list[Any] = [
            task,
            commit.epoch,
            commit.branch,
            commit.expected_step,
            commit.step,
            commit.checkpoint,
            commit.journal,
            _settings_text(TaskSettings()),
            LARGEST_SHARE,
        ]
        for move in commit.moves:
            numbers = _PART_NUMBERS[move.origin], _PART_NUMBERS[move.destination]
            args += (move.key, *numbers, repr(float(move.priority)), move.note)
        own = ("state", "checkpoints", "kept", "journal", "counters", "records")
        script_keys = [
            keys.epoch("learner"),
            keys.outcomes,
            keys.waiting,
            keys.counters,
            keys.tasks,
            *(keys.of_task(task, name) for name in own),
            *(keys.part(task, part) for part in PARTS),
            keys.of_task(task, "notes"),
        ]
        self._run("commit", f"committing step {commit.step} of task {task}", script_keys, args)

    def journal(self, task: str, *, after: int = 0) -> list[str]:
        with store_errors(f"reading the journal of task {task}"):
            lines = self._client.lrange(self._owner(task).of_task(task, "journal"), after, -1)
        return [line.decode() for line in lines]

    # --- predictor --------------------------------------------------------------------------------

    def recall(self, asked: Sequence[tuple[str, str]]) -> list[Remembered | None]:
        with store_errors("recalling corrections"):
            pipe = self._client.pipeline(transaction=False)
            for task, source in asked:
                pipe.hget(self._owner(task).of_task(task, "memory"), source_digest(source))
            found = pipe.execute()
        return [unpack(told) if told else None for told in found]

    # --- people -----------------------------------------------------------------------------------

    def reencode(self, task: str, pairs: Sequence[Recoded], *, epochs: Mapping[Role, int]) -> int:
        keys = self._owner(task)
        args: list[Any] = [
            task,
            *(epochs[role] for role in ROLES),
            _settings_text(TaskSettings()),
            LARGEST_SHARE,
        ]
        held = {pair.name for pair in pairs if pair.destination is None}
        told = list[bytes]()
        if held:
            for batch in self._told(task, lambda names: pair_name(task, *names) in held):
                told += batch
        args += (len(told) // 2, *told)
        for pair in pairs:
            origin, destination = (
                _PART_NUMBERS[part] if part else 0 for part in (pair.origin, pair.destination)
            )
            args += (pair.key, origin, destination, pair.name, pair.data)
        script_keys = [
            *(keys.epoch(role) for role in ROLES),
            keys.outcomes,
            keys.waiting,
            keys.counters,
            keys.quarantine,
            keys.tasks,
            keys.of_task(task, "counters"),
            keys.of_task(task, "records"),
            *(keys.part(task, part) for part in PARTS),
            *_memory_keys(keys, task),
            keys.of_task(task, "notes"),
        ]
        return int(self._run("reencode", f"re-encoding pairs of task {task}", script_keys, args))

    def held_back(self, task: str) -> list[HeldBack]:
        held: dict[bytes, bytes] = {}
        for batch in self._scan(self._owner(task).quarantine):
            held |= batch
        return held_of(task, held)

    def tasks(self, partition: int) -> dict[str, TaskSettings]:
        with store_errors(f"reading tasks of partition {partition}"):
            stored = self._client.hgetall(self._keys(partition).tasks)
        return {task.decode(): TaskSettings(**json.loads(text)) for task, text in stored.items()}

    def set_task(self, task: str, settings: TaskSettings) -> None:
        keys = self._owner(task)
        script_keys = [
            keys.tasks,
            keys.of_task(task, "counters"),
            keys.of_task(task, "records"),
            keys.part(task, "reservoir"),
            *_memory_keys(keys, task),
            keys.of_task(task, "notes"),
        ]
        text, budget = _settings_text(settings), settings.reservoir_bytes
        args = (task, text, budget, LARGEST_SHARE, int(settings.memory))
        self._run("set_task", f"changing settings of task {task}", script_keys, args)

    def outcome(self, task: str, producer: str, pair_id: str) -> PairOutcome | None:
        with store_errors(f"reading what became of a pair of task {task}"):
            found = self._client.hget(
                self._owner(task).outcomes, pair_name(task, producer, pair_id)
            )
        if found is None:
            return None
        state, step, detail, _ = found.decode().split("|", 3)
        return PairOutcome(cast(PairState, state), int(step), detail)

    def remove(
        self,
        task: str,
        *,
        producer: str | None = None,
        pair_id: str | None = None,
        purge: str = "",
    ) -> int:
        """Forget pairs in batches; a pair that arrives meanwhile may stay."""

        def wanted(names: tuple[str, str]) -> bool:
            return producer in (None, names[0]) and pair_id in (None, names[1])

        self._forget(task, wanted)
        removed = 0
        for stored, held in self._matching(task, wanted):
            removed += self._remove(task, purge, stored, held)
        return removed

    def _matching(
        self, task: str, wanted: Callable[[tuple[str, str]], bool]
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys of matching pairs, and names of matching quarantined pairs, in batches."""
        keys = self._owner(task)
        for records in self._scan(keys.of_task(task, "records")):
            yield [key for key, value in records.items() if wanted(owner_of(value[16:]))], []
        for quarantined in self._scan(keys.quarantine):
            names = {name: unpack_quarantined(data)[0] for name, data in quarantined.items()}
            yield (
                [],
                [
                    n
                    for n, (of, *pair) in names.items()
                    if of == task and wanted((pair[0], pair[1]))
                ],
            )

    def _scan(self, key: str) -> Iterator[dict[bytes, bytes]]:
        cursor = 0
        while True:
            with store_errors(f"scanning {key}"):
                cursor, batch = self._client.hscan(key, cursor, count=_REMOVED_AT_ONCE)
            yield batch
            if not cursor:
                return

    def _remove(self, task: str, purge: str, stored: list[bytes], held: list[bytes]) -> int:
        if not stored and not held:
            return 0
        keys = self._owner(task)
        script_keys = [
            keys.outcomes,
            keys.waiting,
            keys.counters,
            keys.quarantine,
            *(keys.of_task(task, name) for name in ("counters", "records", "state", "journal")),
            *(keys.part(task, part) for part in PARTS),
            keys.of_task(task, "notes"),
        ]
        args = (task, purge, len(stored), *stored, *held)
        return int(self._run("remove", f"forgetting pairs of task {task}", script_keys, args))

    def _forget(self, task: str, wanted: Callable[[tuple[str, str]], bool]) -> None:
        """Forget corrections that the memory holds."""
        keys = self._owner(task)
        script_keys = [keys.of_task(task, "counters"), *_memory_keys(keys, task)]
        for told in self._told(task, wanted):
            self._run("forget", f"forgetting corrections of task {task}", script_keys, told)

    def _told(self, task: str, wanted: Callable[[tuple[str, str]], bool]) -> Iterator[list[bytes]]:
        """What the memory holds of matching pairs, each source and its correction, in batches."""
        memory, _ = _memory_keys(self._owner(task), task)
        for batch in self._scan(memory):
            found = [one for one in batch.items() if wanted(unpack(one[1])[1:])]
            if found:
                yield list(chain.from_iterable(found))

    def add_receipt(self, task: str, receipt: str) -> None:
        with store_errors(f"storing a receipt of task {task}"):
            self._client.rpush(self._owner(task).of_task(task, "receipts"), receipt)

    def receipts(self, task: str) -> list[str]:
        with store_errors(f"reading receipts of task {task}"):
            found = self._client.lrange(self._owner(task).of_task(task, "receipts"), 0, -1)
        return [receipt.decode() for receipt in found]

    def stats(self, task: str) -> BufferStats:
        keys = self._owner(task)
        memory, _ = _memory_keys(keys, task)
        totals = ("learnt", "shed", "forgotten", "bytes:memory")
        with store_errors(f"reading counters of task {task}"):
            pipe = self._client.pipeline(transaction=False)
            for part in PARTS:
                pipe.zcard(keys.part(task, part))
            pipe.hlen(memory)
            names = [*(f"bytes:{part}" for part in PARTS), *totals]
            pipe.hmget(keys.of_task(task, "counters"), names)
            *pairs, remembered, counters = pipe.execute()
        numbers = [int(value or 0) for value in counters]
        learnt, shed, forgotten, remembered_bytes = numbers[len(PARTS) :]
        return BufferStats(
            pairs=dict(zip(PARTS, pairs, strict=True)),
            bytes=dict(zip(PARTS, numbers, strict=False)),
            learnt=learnt,
            shed=shed,
            forgotten=forgotten,
            remembered=remembered,
            remembered_bytes=remembered_bytes,
        )


def _position_text(position: Position) -> str:
    return f"{position.log}|{position.offset}"


def _position(text: str) -> Position:
    log, _, offset = text.rpartition("|")
    return Position(log, int(offset))


def _memory_keys(keys: Keys, task: str) -> tuple[str, str]:
    """What a task remembers by source, and the sources by age."""
    return keys.of_task(task, "memory"), keys.of_task(task, "memory:ages")


def _settings_text(settings: TaskSettings) -> str:
    return json.dumps(asdict(settings))


def _stored(part: Part, flat: Sequence[bytes]) -> Iterator[StoredPair]:
    for key, record in zip(flat[::2], flat[1::2], strict=True):
        yield StoredPair(key.decode(), part, record)
