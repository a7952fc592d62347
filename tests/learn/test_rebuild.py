"""Log + journal + base + settings give the same snapshots, byte for byte."""

import json
from pathlib import Path

import pytest

from edgeseq_core.errors import SnapshotError
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs
from edgeseq_core.learn.purge import Purging
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.learn.relearn import relearn
from edgeseq_core.model.base import Base
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.testing.clock import FakeClock

TASK = "upper"
SETTINGS = LearningSettings(
    rank=2, fresh_per_step=8, replay_per_step=8, recent_pairs=4, probe_pairs=4, held_out_share=0.2
)
PAIRS = [(f"word {n}", f"WORD {n}") for n in range(120)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"))


class Recorder(OfflineLearner):
    """Keeps every record that was ever ingested, as Kafka's log would."""

    def records(self) -> dict[str, bytes]:
        return dict(self._records)

    def ingest(self, task, pairs, *, correction=False):  # type: ignore[no-untyped-def]
        count = super().ingest(task, pairs, correction=correction)
        if not hasattr(self, "_records"):
            self._records = {}
        for part in ("corrections", "bulk"):
            self._records |= {p.key: p.record for p in self.buffer.read(task, part)}
        return count


def learnt(base: Base, pairs: list[tuple[str, str]] = PAIRS) -> Recorder:
    learner = Recorder(base, SETTINGS)
    for _ in learn_pairs(learner, TASK, pairs, chunk=9):
        pass
    return learner


def test_a_rebuild_gives_equal_checkpoints_and_snapshots(base: Base) -> None:
    first = learnt(base)
    store, registry = rebuild(TASK, first.buffer.journal(TASK), first.records(), base, SETTINGS)
    assert store.state(TASK) == first.buffer.state(TASK)
    champion = first.registry.status(TASK).champion
    assert champion is not None
    assert registry.status(TASK).champion == champion
    assert store.stats(TASK) == first.buffer.stats(TASK)
    assert {p.key for p in store.read(TASK, "reservoir")} == {
        p.key for p in first.buffer.read(TASK, "reservoir")
    }


def test_a_rebuild_follows_a_rollback_and_its_fork(base: Base) -> None:
    learner = learnt(base, PAIRS[:60])
    served = [r for r in learner.registry.history(TASK) if r.promoted_ms is not None]
    back = served[-3].manifest.snapshot_id
    line = json.dumps({"kind": "rollback", "action": "rollback", "snapshot_id": back})
    champion = learner.registry.status(TASK).champion
    learner.registry.rollback(TASK, back, expected_champion=champion, now_ms=1, journal=line)
    unpin = json.dumps({"kind": "pin", "action": "unpin", "snapshot_id": None})
    learner.registry.pin(TASK, False, now_ms=2, journal=unpin)
    for _ in learn_pairs(learner, TASK, PAIRS[60:], chunk=9):
        pass
    journal = learner.buffer.journal(TASK)
    assert sum('"rollback"' in entry for entry in journal) == 1
    store, registry = rebuild(TASK, journal, learner.records(), base, SETTINGS)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)


def test_a_rebuild_is_quicker_than_life_and_still_keeps_what_was_rolled_back_to(base: Base) -> None:
    clock = FakeClock()
    learner = Recorder(base, SETTINGS, clock=clock)
    for at, hours in enumerate((90, 10, 0, 0, 0, 0, 0)):
        for _ in learn_pairs(learner, TASK, PAIRS[9 * at : 9 * at + 9], chunk=9):
            clock.advance(0.01)
        clock.advance(hours * 3600)
    _, back, *_ = (
        r.manifest.snapshot_id
        for r in learner.registry.history(TASK)
        if r.promoted_ms is not None and r.manifest.snapshot_id in learner.registry.kept(TASK)
    )
    line = json.dumps({"kind": "rollback", "action": "rollback", "snapshot_id": back})
    champion = learner.registry.status(TASK).champion
    learner.registry.rollback(TASK, back, expected_champion=champion, now_ms=1, journal=line)
    journal = learner.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, learner.records(), base, SETTINGS, clock=FakeClock())
    assert registry.status(TASK) == learner.registry.status(TASK)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert learner.registry.record(TASK, back).manifest.step > 1


def test_a_rebuild_follows_a_task_that_learnt_anew(base: Base) -> None:
    learner = learnt(base, PAIRS[:60])
    relearn(learner.registry, TASK, clock=learner.clock, reason="a test")
    learner.loop.look()
    for _ in learn_pairs(learner, TASK, PAIRS[60:], chunk=9):
        pass
    journal = learner.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, learner.records(), base, SETTINGS)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)


def test_a_rebuild_ends_where_the_base_was_changed(base: Base) -> None:
    learner = learnt(base, PAIRS[:20])
    relearn(learner.registry, TASK, clock=learner.clock, base="d" * 64)
    with pytest.raises(SnapshotError, match="was changed to base dddddddddddd after step"):
        rebuild(TASK, learner.buffer.journal(TASK), learner.records(), base, SETTINGS)


def test_a_rebuild_follows_a_purge_if_it_is_given_the_removed_pairs(base: Base) -> None:
    learner = learnt(base, PAIRS[:60])
    asked = {"producer": "offline", "pair_id": "7", "partitions": 1, "clock": learner.clock}
    Purging.begin(learner.buffer, learner.registry, TASK, **asked)  # type: ignore[arg-type]
    learner.loop.look()
    for _ in learn_pairs(learner, TASK, PAIRS[60:], chunk=9):
        pass
    journal, records = learner.buffer.journal(TASK), learner.records()
    store, registry = rebuild(TASK, journal, records, base, SETTINGS)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)
    gone = next(key for key in records if key.endswith(":7"))
    assert gone not in {p.key for p in store.read(TASK, "reservoir")}
    del records[gone]
    with pytest.raises(SnapshotError, match=gone):
        rebuild(TASK, journal, records, base, SETTINGS)


def test_another_log_does_not_pass_as_the_same(base: Base) -> None:
    first, other = learnt(base), learnt(base, [(s, t[::-1]) for s, t in PAIRS])
    with pytest.raises(SnapshotError, match="rebuilding gave"):
        rebuild(TASK, first.buffer.journal(TASK), other.records(), base, SETTINGS)


def test_a_missing_pair_is_named(base: Base) -> None:
    first = learnt(base, PAIRS[:20])
    records = first.records()
    gone = sorted(records)[3]
    del records[gone]
    with pytest.raises(SnapshotError, match=gone):
        rebuild(TASK, first.buffer.journal(TASK), records, base, SETTINGS)


def test_another_base_is_refused(base: Base, tmp_path: Path) -> None:
    first, other = learnt(base, PAIRS[:20]), tiny_base(tmp_path, seed=3)
    with pytest.raises(Exception, match="encoded for base"):
        rebuild(TASK, first.buffer.journal(TASK), first.records(), other, SETTINGS)
