"""The same random operations on the twin and on Redis: all that can be observed stays equal.

And whatever happens, every accepted pair is in exactly one state.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edgeseq_core.errors import EdgeSeqError, FencedError, SnapshotError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import (
    FRESH_PARTS,
    PARTS,
    Move,
    Position,
    Recoded,
    Role,
    TaskSettings,
)
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.replay.recall import pack as pack_told
from edgeseq_core.replay.record import owner_of, pack_held, pair_name
from edgeseq_core.replay.rules import StoreLimits
from edgeseq_core.snapshots.manifest import SnapshotManifest
from edgeseq_core.snapshots.registry import Purge, Restart
from tests.contract.stores import (
    FEEDBACK,
    NOW_MS,
    PAIRS,
    PARTITION,
    PARTITIONS,
    Stores,
    incoming,
    memory_stores,
    redis_stores,
)

TASKS = [n for n in (f"t{i}" for i in range(99)) if partition_of(n, PARTITIONS) == PARTITION][:3]
PRODUCERS = ["p1", "p2"]
LIMITS = StoreLimits(
    id_window_s=100, id_window_pairs=40, max_tasks=2, quarantine_bytes=150, memory_bytes=90
)
KEPT = {"kept_promotions": 2, "kept_held": 1}
SOURCES = ["a" * length for length in range(31)]
STATE_OF = {"corrections": "waiting", "bulk": "waiting", "reservoir": "trained"}

tasks = st.sampled_from(TASKS)
priorities = st.floats(0, 1, exclude_max=True, width=32)
batches = st.lists(
    st.tuples(
        tasks,
        st.sampled_from(PRODUCERS),
        st.integers(0, 12),  # the pair id
        st.one_of(st.integers(0, 3), st.integers(0, 30)),  # length of the source
        st.sampled_from(["", "", "", "", "series"]),
    ),
    max_size=6,
)


class StoreMachine(RuleBasedStateMachine):
    url: ClassVar[str]

    @initialize()
    def open(self) -> None:
        both = memory_stores, lambda *a, **k: redis_stores(self.url, secrets.token_hex(6), *a, **k)
        self.twin, self.real = (make(LIMITS, **KEPT) for make in both)
        self.now_ms, self.offset = NOW_MS, 0
        self.accepted: dict[tuple[str, str, str], str] = {}  # name -> key of its last pair
        self.keys: dict[str, set[str]] = {task: set() for task in TASKS}
        # What each source was last corrected to, while its task has a memory.
        self.told: dict[str, dict[str, Remembered]] = {task: {} for task in TASKS}

    def both(self, act: Callable[[Stores], Any]) -> Any:
        """Do it on both; the results, or the kinds of refusal, must be equal."""
        results = []
        for stores in (self.twin, self.real):
            try:
                results.append(act(stores))
            except (EdgeSeqError, ValueError) as error:
                results.append(type(error))
        assert results[0] == results[1]
        return results[0]

    # --- consumer

    @rule(
        batch=batches, correction=st.booleans(), skip_ms=st.sampled_from([0, 1, 1, 30_000, 101_000])
    )
    def ingest(self, batch: list[Any], correction: bool, skip_ms: int) -> None:
        self.now_ms += skip_ms
        pairs = [
            incoming(
                self.offset + at,
                task=task,
                producer=producer,
                pair_id=f"id{number}",
                correction=correction,
                source="a" * length,
                target=f"target {self.offset + at}",
                quarantine=reason,
            )
            for at, (task, producer, number, length, reason) in enumerate(batch)
        ]
        self.offset += len(batch)
        topic = FEEDBACK if correction else PAIRS
        outcomes = self.both(lambda s: s.ingest(pairs, topic=topic, now_ms=self.now_ms))
        has_memory = {t for t, s in self.twin.buffer.tasks(PARTITION).items() if s.memory}
        for pair, outcome, (*_, length, _) in zip(pairs, outcomes, batch, strict=True):
            if outcome == "accepted":
                if correction and pair.task in has_memory:
                    said = Remembered(f"target {pair.offset}", pair.producer, pair.pair_id)
                    self.told[pair.task]["a" * length] = said
                key = f"log1:{topic[2]}:{pair.offset}"
                self.accepted[pair.task, pair.producer, pair.pair_id] = key
                self.keys[pair.task].add(key)

    @rule(topic=st.sampled_from([PAIRS, FEEDBACK]), offset=st.integers(0, 20))
    def ingest_from_a_stale_position(self, topic: str, offset: int) -> None:
        def act(s: Stores) -> Any:
            return s.buffer.ingest(
                PARTITION,
                [incoming(10**6, task=TASKS[0])],
                epoch=s.consumer,
                topic=topic,
                expected=Position("stale", offset),
                position=Position("stale", offset + 1),
                now_ms=self.now_ms,
            )

        self.both(act)

    @rule(task=tasks, producer=st.sampled_from(PRODUCERS), number=st.integers(0, 12))
    def note_dead_letter(self, task: str, producer: str, number: int) -> None:
        self.both(
            lambda s: s.buffer.note_dead_letter(task, producer, f"id{number}", "clock", self.now_ms)
        )

    @rule(role=st.sampled_from(["consumer", "learner"]), told=st.booleans())
    def change_owner(self, role: Any, told: bool) -> None:
        epoch = self.both(lambda s: s.buffer.acquire(role, PARTITION))
        for stores in (self.twin, self.real):
            setattr(stores, role, epoch)

    # --- learner

    @rule(task=tasks, data=st.data())
    def step(self, task: str, data: st.DataObject) -> None:
        fresh = self.twin.buffer.draw(task, corrections=4, bulk=4, replay=()).fresh
        held = [*self.twin.buffer.read(task, "recent"), *self.twin.buffer.read(task, "probe")]
        moves = []
        for pair in (*fresh, *held):
            to = data.draw(st.sampled_from(["stay", "recent", "probe", "reservoir", "reservoir"]))
            if to != "stay":
                moves.append(Move(pair.key, pair.part, to, data.draw(priorities)))
        self.both(lambda s: s.commit(moves, task=task))

    @rule(task=tasks, data=st.data())
    def stale_step(self, task: str, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.keys[task]) or ["log1:p:999999"]))
        origin = data.draw(st.sampled_from(PARTS[:4]))
        changed: dict[str, Any] = data.draw(
            st.sampled_from([{}, {"epoch": 99}, {"branch": 99}, {"expected_step": 99}, {"step": 0}])
        )
        if not changed and any(p.key == key for p in self.twin.buffer.read(task, origin)):
            return
        moves = [Move(key, origin, "reservoir", 0.5)]
        assert isinstance(self.both(lambda s: s.commit(moves, task=task, **changed)), type)

    @rule(task=tasks, verdict=st.sampled_from(["promote", "promote", "hold", None]))
    def offer(self, task: str, verdict: str | None) -> None:
        self.both(lambda s: s.offer(task=task, verdict=verdict))

    @rule(
        task=tasks,
        changed=st.sampled_from([{"epoch": 99}, {"branch": 99}, {"expected_champion": "x"}]),
    )
    def stale_offer(self, task: str, changed: dict[str, Any]) -> None:
        assert isinstance(self.both(lambda s: s.offer(task=task, **changed)), type)

    # --- people

    @rule(
        task=tasks,
        reservoir_bytes=st.sampled_from([0, 150, 400, 4000]),
        fresh_quota=st.sampled_from([0, 0, 3]),
        memory=st.sampled_from([True, True, True, False]),
    )
    def set_task(self, task: str, reservoir_bytes: int, fresh_quota: int, memory: bool) -> None:
        changed = TaskSettings(
            reservoir_bytes=reservoir_bytes, fresh_quota=fresh_quota, memory=memory
        )
        self.both(lambda s: s.buffer.set_task(task, changed))
        if not memory:
            self.told[task].clear()

    @rule(
        task=tasks,
        producer=st.sampled_from([None, *PRODUCERS]),
        number=st.one_of(st.none(), st.integers(0, 12)),
    )
    def remove(self, task: str, producer: str | None, number: int | None) -> None:
        pair_id = None if number is None else f"id{number}"
        self.both(lambda s: s.buffer.remove(task, producer=producer, pair_id=pair_id))
        for source, said in list(self.told[task].items()):
            if producer in (None, said.producer) and pair_id in (None, said.pair_id):
                del self.told[task][source]

    @precondition(lambda self: any(self.twin.registry.history(task) for task in TASKS))
    @rule(data=st.data(), how=st.sampled_from(["promote", "rollback"]), stale=st.booleans())
    def move_champion(self, data: st.DataObject, how: str, stale: bool) -> None:
        task = data.draw(st.sampled_from([t for t in TASKS if self.twin.registry.history(t)]))
        record = data.draw(st.sampled_from(self.twin.registry.history(task)))
        champion = "stale" if stale else self.twin.registry.status(task).champion
        self.both(
            lambda s: getattr(s.registry, how)(
                task,
                record.manifest.snapshot_id,
                expected_champion=champion,
                now_ms=self.now_ms,
                journal=f'{{"kind":"{how}"}}',
            )
        )

    @rule(task=tasks, data=st.data(), stale=st.sampled_from(["", "", "", "consumer", "learner"]))
    def reencode(self, task: str, data: st.DataObject, stale: str) -> None:
        recoded = []
        for pair in [pair for part in PARTS for pair in self.twin.buffer.read(task, part)]:
            how = data.draw(st.sampled_from(["stay", "same", "longer", "shorter", "held"]))
            names = (task, *owner_of(pair.record))
            source = {"longer": "abc" * 20, "shorter": ""}.get(how, "abc")
            number = int(pair.key.rpartition(":")[2])
            new = incoming(number, task=task, producer=names[1], pair_id=names[2], source=source)
            if how != "stay":
                recoded.append(
                    Recoded(
                        key=pair.key,
                        origin=pair.part,
                        destination=None if how == "held" else pair.part,
                        name=pair_name(*names),
                        data=pack_held(names, pair.key, pair.record)
                        if how == "held"
                        else new.record,
                    )
                )
        for held in self.twin.buffer.held_back(task):
            if data.draw(st.booleans()):
                part = data.draw(st.sampled_from(FRESH_PARTS))
                recoded.append(
                    Recoded(
                        key=held.key,
                        origin=None,
                        destination=part,
                        name=held.field,
                        data=held.record,
                    )
                )

        def act(s: Stores) -> int:
            epochs: dict[Role, int] = {"consumer": s.consumer, "learner": s.learner}
            if stale:
                epochs[stale] = 99  # type: ignore[index]
            return s.buffer.reencode(task, recoded, epochs=epochs)

        assert self.both(act) == (FencedError if stale else len(recoded))

    @rule(
        task=tasks,
        base=st.sampled_from([None, "b" * 64, "d" * 64]),
        stale=st.sampled_from([{}, {}, {"branch": 99}, {"expected_champion": "x"}]),
        data=st.data(),
    )
    def restart(
        self, task: str, base: str | None, stale: dict[str, Any], data: st.DataObject
    ) -> None:
        kept = sorted(self.twin.registry.kept(task))
        snapshot_id = data.draw(st.sampled_from([None, None, "gone", *kept]))
        status = self.twin.registry.status(task)
        fields: dict[str, Any] = {
            "task": task,
            "branch": status.branch,
            "expected_champion": status.champion,
            "now_ms": self.now_ms,
            "journal": '{"kind":"restart"}',
            "base": base,
            "snapshot_id": snapshot_id,
        }
        self.both(lambda s: s.registry.restart(Restart(**(fields | stale))))

    @rule(task=tasks, stale=st.sampled_from([{}, {}, {"branch": 99}]))
    def purge(self, task: str, stale: dict[str, Any]) -> None:
        status = self.twin.registry.status(task)
        fields: dict[str, Any] = {
            "task": task,
            "branch": status.branch,
            "expected_champion": status.champion,
            "purge": "asked",
            "producer": "p",
            "pair_id": None,
            "now_ms": self.now_ms,
        }
        self.both(lambda s: s.registry.purge(Purge(**(fields | stale))))

    @rule(task=tasks, pinned=st.booleans())
    def pin(self, task: str, pinned: bool) -> None:
        self.both(lambda s: s.registry.pin(task, pinned, now_ms=self.now_ms, journal="{}"))

    # --- what must hold

    @invariant()
    def both_show_the_same(self) -> None:
        self.both(_observe_partition)
        for task in TASKS:
            self.both(lambda s, t=task: _observe_task(s, t))  # type: ignore[misc]

    @invariant()
    def every_accepted_pair_is_in_exactly_one_state(self) -> None:
        where: dict[tuple[str, str], str] = {}
        for task in TASKS:
            stored = [(part, p.key) for part in PARTS for p in self.real.buffer.read(task, part)]
            where |= {(task, key): part for part, key in stored}
            assert len({key for _, key in stored}) == len(stored)  # one part each
            assert {key for _, key in stored} <= self.keys[task]
            stats = self.real.buffer.stats(task)
            evicted = stats.learnt - stats.pairs["reservoir"]
            gone = evicted + stats.forgotten + len(self.real.buffer.held_back(task))
            assert 0 <= len(self.keys[task]) - len(stored) <= gone
            limit = self.real.buffer.tasks(PARTITION).get(task, TaskSettings()).reservoir_bytes
            assert stats.bytes["reservoir"] <= limit
        for name, key in self.accepted.items():
            outcome = self.both(lambda s, n=name: s.buffer.outcome(*n))  # type: ignore[misc]
            part = where.get((name[0], key))
            if outcome is None or outcome.state in ("shed", "dead_lettered", "quarantined"):
                continue  # the id left the window, and maybe came again
            if part is not None:
                assert outcome.state == STATE_OF.get(part, "held_out")
            else:
                assert outcome.state in ("trained", "forgotten")
            assert (outcome.step > 0) == (outcome.state == "trained")

    @invariant()
    def a_memory_recalls_the_latest_correction_or_nothing(self) -> None:
        for task in TASKS:
            found = dict(zip(SOURCES, _recall(self.real, task), strict=True))
            recalled = {source: said for source, said in found.items() if said is not None}
            assert recalled.items() <= self.told[task].items()
            stats = self.real.buffer.stats(task)
            assert len(recalled) == stats.remembered
            assert stats.remembered_bytes <= LIMITS.memory_bytes
            kept = sum(len(pack_told(source, said)) for source, said in recalled.items())
            assert kept == stats.remembered_bytes

    @invariant()
    def the_champion_has_its_bytes(self) -> None:
        for task in TASKS:
            champion = self.real.registry.status(task).champion
            if champion is not None:
                manifest = self.real.registry.record(task, champion).manifest
                assert self.real.registry.payload(manifest)
                assert self.real.registry.record(task, champion).promoted_ms is not None

    @invariant()
    def the_journal_holds_every_step(self) -> None:
        for task in TASKS:
            lines = [json.loads(line) for line in self.real.buffer.journal(task)]
            steps = [line["step"] for line in lines if line.get("kind") == "step"]
            assert steps == list(range(1, self.real.buffer.state(task).last_step + 1))


def _observe_partition(s: Stores) -> tuple[Any, ...]:
    return (
        s.buffer.positions(PARTITION),
        s.buffer.waiting(PARTITION),
        s.buffer.fresh_bytes(PARTITION),
        s.buffer.tasks(PARTITION),
        s.registry.champions(range(PARTITIONS)),
        s.registry.relearning(range(PARTITIONS)),
    )


def _observe_task(s: Stores, task: str) -> tuple[Any, ...]:
    history = s.registry.history(task)
    return (
        s.buffer.state(task),
        s.buffer.stats(task),
        s.buffer.journal(task),
        [s.buffer.read(task, part) for part in PARTS],
        s.buffer.draw(task, corrections=2, bulk=2, replay=[0.0, 0.3, 0.99]),
        _recall(s, task),
        s.registry.status(task),
        [s.registry.left(task, base) for base in ("b" * 64, "d" * 64)],
        s.buffer.held_back(task),
        history,
        [s.registry.is_learnt(task, step) for step in range(1, 5)],
        [_payload(s, record.manifest) for record in history[-6:]],
    )


def _recall(s: Stores, task: str) -> list[Remembered | None]:
    return s.buffer.recall([(task, source) for source in SOURCES])


def _payload(s: Stores, manifest: SnapshotManifest) -> bytes | None:
    try:
        return s.registry.payload(manifest)
    except SnapshotError:
        return None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("server", ["redis", "valkey"])
def test_twin_and_server_agree(request: pytest.FixtureRequest, server: str) -> None:
    class Machine(StoreMachine):
        url = request.getfixturevalue(f"{server}_url")

    limits = settings(
        max_examples=15,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    run_state_machine_as_test(Machine, settings=limits)
