"""Checks a recorded history of the whole loop against the promises; finds, never repairs.

The facts come from outside: what Kafka acknowledged, what clients heard, and what the store holds in
the end.  `violations` is a pure function over them; every sentence it returns is a broken promise.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgeseq_core.replay.buffer import FRESH_PARTS, PairOutcome, Part
from edgeseq_core.snapshots.manifest import SnapshotRecord

Name = tuple[str, str, str]  # task, producer, pair id
HELD_OUT_PARTS: tuple[Part, Part] = ("recent", "probe")


@dataclass(frozen=True, kw_only=True)
class SentPair:
    """A pair that Kafka acknowledged; ``key`` holds its Kafka coordinates ("log:topic:offset")."""

    name: Name
    key: str

    @property
    def task(self) -> str:
        return self.name[0]


@dataclass(frozen=True, kw_only=True)
class HeardReply:
    """A reply as a client got it; ``sent_ms`` is when the predictor sent it."""

    request_id: str
    task: str
    snapshot_id: str | None  # None: a typed error
    answer: bytes
    sent_ms: int


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What the store holds of a task."""

    journal: Sequence[str]
    parts: Mapping[Part, Sequence[str]]  # keys, in order
    records: Sequence[SnapshotRecord]
    champions: Sequence[str]  # every pointer of this task, over all partitions
    missing: frozenset[str] = frozenset()  # snapshot ids without bytes
    damaged: frozenset[str] = frozenset()  # snapshot ids whose bytes are not their manifest's


@dataclass(kw_only=True)
class Facts:
    """One history."""

    tasks: Mapping[str, TaskFacts]
    sent: Sequence[SentPair] = ()
    outcomes: Mapping[Name, PairOutcome | None] = field(default_factory=dict)
    letters: frozenset[str] = frozenset()  # keys of records on the dead-letter topic
    asked: frozenset[str] = frozenset()  # request ids that must have an answer
    heard: Sequence[HeardReply] = ()
    earlier: Sequence[Facts] = ()  # what the registry held before the store lost its last second


def violations(facts: Facts) -> list[str]:
    """Every broken promise, as sentences; empty when the history checks out."""
    histories = {task: _Journal(task, held) for task, held in facts.tasks.items()}
    found: list[str] = []
    for journal in histories.values():
        found += journal.faults
    found += _places(facts, histories)
    for task, held in facts.tasks.items():
        found += _order(task, histories[task], held)
        found += _registry(task, histories[task], held)
    found += _replies(facts)
    return found


class _Journal:
    """A task's journal, replayed: which step trained which pair, and what is held out."""

    def __init__(self, task: str, held: TaskFacts) -> None:
        self.task = task
        self.faults: list[str] = []
        self.taken: list[str] = []  # keys that left the fresh part, in order
        self.trained: dict[str, int] = {}  # key -> step
        self.held_out: set[str] = set()
        self.served: set[str] = set()  # snapshots that a gate or a person let serve
        self._current, self._last = 0, 0
        self._steps = {r.manifest.snapshot_id: r.manifest.step for r in held.records}
        for text in held.journal:
            line = json.loads(text)
            if line["kind"] == "step":
                self._step(line)
            elif line["kind"] == "gate":
                if line["verdict"] == "promote":
                    self.served.add(line["snapshot_id"])
            elif line["kind"] in ("promote", "rollback"):
                self.served.add(line["snapshot_id"])
                if line["kind"] == "rollback":
                    self._current = self._steps.get(line["snapshot_id"], -1)

    def _step(self, line: dict[str, Any]) -> None:
        step = line["step"]
        if line["parent"] != self._current:
            self._fault(
                f"step {step} names parent {line['parent']}, but {self._current} was before"
            )
        if step <= self._last:
            self._fault(f"step {step} comes after step {self._last}")
        self._current = self._last = step
        fresh, held = [*line["corrections"], *line["bulk"]], set(line["held_out"])
        for key in fresh:
            if key in self.trained or key in self.held_out or key in self.taken:
                self._fault(f"pair {key} is taken again in step {step}")
            self.taken.append(key)
        if held - set(line["bulk"]):
            self._fault(f"step {step} holds out pairs that are no bulk pairs of it")
        self.held_out |= held
        for key in line["released"]:
            if key not in self.held_out:
                self._fault(f"step {step} releases pair {key}, which was not held out")
            self.held_out.discard(key)
        for key in (*(k for k in fresh if k not in held), *line["released"]):
            if key in self.trained:
                self._fault(f"pair {key} is trained twice: steps {self.trained[key]} and {step}")
            self.trained[key] = step

    def _fault(self, sentence: str) -> None:
        self.faults.append(f"task {self.task}: {sentence}")


def _places(facts: Facts, journals: Mapping[str, _Journal]) -> Iterator[str]:
    """Each acknowledged pair has exactly one place; nothing else has any."""
    keys: dict[Name, list[str]] = defaultdict(list)
    for pair in facts.sent:
        keys[pair.name].append(pair.key)
    for name, offsets in keys.items():
        held, journal = facts.tasks.get(name[0]), journals.get(name[0])
        places = {
            f"{place} as {key}": key
            for key in dict.fromkeys(offsets)
            for place in (_places_of(key, held, journal) if held and journal else [])
        }
        fault = _pair_fault(facts, name, offsets, places)
        if fault:
            yield f"pair {name} {fault}"
        elif journal and (outcome := facts.outcomes[name]) and outcome.state == "trained":
            step = journal.trained[next(iter(places.values()))]
            if outcome.step != step:
                yield f"pair {name} was trained in step {step}, not {outcome.step}"
    known = {key for offsets in keys.values() for key in offsets}
    for task, held in facts.tasks.items():
        stored = {key for part in held.parts.values() for key in part} | set(journals[task].taken)
        for key in sorted(stored - known):
            yield f"task {task} holds pair {key}, which nobody sent"
        for key in held.parts["reservoir"]:
            if key not in journals[task].trained:
                yield f"task {task} keeps pair {key} as learnt, but no step trained it"


def _pair_fault(facts: Facts, name: Name, offsets: Sequence[str], places: Mapping[str, str]) -> str:
    """What is wrong with the places of a pair, given what the store says of it; empty if nothing."""
    outcome = facts.outcomes.get(name)
    state = outcome.state if outcome else "unknown"
    listed = ", ".join(places)
    if state in ("shed", "quarantined", "forgotten"):
        before = [p for p in places if p.startswith("trained")] if state == "forgotten" else []
        return f"is {state}, yet {listed}" if len(places) > len(before) else ""
    if not places and all(key in facts.letters for key in offsets):
        told = state == "dead_lettered"
        return "" if told else f"is a dead letter, yet its outcome is {state}"
    if not places:
        return f"({', '.join(offsets)}) is lost: its outcome is {state}"
    if len(places) > 1:
        return f"is in {len(places)} places: {listed}"
    return "" if state == listed.split()[0] else f"is {listed}, yet its outcome is {state}"


def _places_of(key: str, held: TaskFacts, journal: _Journal) -> list[str]:
    """Where a key is; a sound pair is in one place."""
    waiting = [f"waiting in {part}" for part in FRESH_PARTS if key in held.parts[part]]
    parts = [f"held_out in {part}" for part in HELD_OUT_PARTS if key in held.parts[part]]
    if (key in journal.held_out) != bool(parts):
        parts.append("held_out in the journal or in a part, not in both,")
    trained = [f"trained in step {journal.trained[key]}"] if key in journal.trained else []
    return [*waiting, *parts, *trained]


def _order(task: str, journal: _Journal, held: TaskFacts) -> Iterator[str]:
    """A task's pairs of one topic are taken, and wait, in the order of their log."""
    for part in FRESH_PARTS:
        letter = "f" if part == "corrections" else "p"
        last: dict[str, tuple[int, str]] = {}
        for key in (*journal.taken, *held.parts[part]):
            log, of, offset = key.rsplit(":", 2)
            if of != letter:
                continue
            before = last.get(log)
            if before is not None and int(offset) <= before[0]:
                yield f"task {task}: pair {key} comes after {before[1]}"
            last[log] = (int(offset), key)


def _registry(task: str, journal: _Journal, held: TaskFacts) -> Iterator[str]:
    """One champion, promoted, journaled, with the bytes of its manifest."""
    records = {r.manifest.snapshot_id: r for r in held.records}
    for snapshot_id, record in records.items():
        if record.manifest.task != task:
            yield f"task {task} has a snapshot of task {record.manifest.task}"
        if record.promoted_ms is not None and snapshot_id not in journal.served:
            yield f"task {task}: {snapshot_id} serves, but no journal line let it"
    for snapshot_id in held.damaged:
        yield f"task {task}: the bytes of {snapshot_id} are not those of its manifest"
    promoted = any(r.promoted_ms is not None for r in held.records)
    if len(held.champions) != 1 and (promoted or held.champions):
        yield f"task {task} has {len(held.champions)} champions, not one"
    for champion in held.champions:
        if champion not in records:
            yield f"task {task}: champion {champion} is not in the registry"
        elif records[champion].promoted_ms is None:
            yield f"task {task}: champion {champion} was never promoted"
        if champion in held.missing:
            yield f"task {task}: champion {champion} has no bytes"


def _replies(facts: Facts) -> Iterator[str]:
    """One answer a request, each from a snapshot that served by then."""
    promoted_ms: dict[tuple[str, str], int] = {}
    for history in (facts, *facts.earlier):
        for task, held in history.tasks.items():
            for record in held.records:
                if record.promoted_ms is not None:
                    promoted_ms[task, record.manifest.snapshot_id] = record.promoted_ms
    answers: dict[str, set[bytes]] = defaultdict(set)
    for reply in facts.heard:
        if reply.snapshot_id is None:
            answers.setdefault(reply.request_id, set())
            continue
        answers[reply.request_id].add(reply.answer)
        since = promoted_ms.get((reply.task, reply.snapshot_id))
        if since is None:
            yield f"reply {reply.request_id} names {reply.snapshot_id}, which was never promoted"
        elif since > reply.sent_ms:
            yield f"reply {reply.request_id} names {reply.snapshot_id} before it was promoted"
    for request_id, given in answers.items():
        if len(given) > 1:
            yield f"request {request_id} got {len(given)} different answers"
    for request_id in sorted(facts.asked - answers.keys()):
        yield f"request {request_id} got no answer"
