"""Another base: every pair in its vocabulary, nothing lost, each task learnt anew, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseq_core.errors import FencedError, SnapshotError, StateVersionError
from edgeseq_core.learn.change_base import TaskChange, change_base
from edgeseq_core.learn.relearn import relearn
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import PARTS, PairOutcome
from edgeseq_core.replay.record import unpack
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import CHARACTERS, tiny_base
from edgeseq_core.text.subwords import learn_subwords
from tests.learn.rig import SMALL, Learner, Pairs, numbered

TASK = "numbers"
SHORT = SMALL.model_copy(update={"relearn_least_steps": 8, "relearn_passes": 3})


def texts(learner: Learner, base: Base) -> dict[str, list[tuple[str, str, str]]]:
    """Key, source and target of all stored pairs, by part and in its order."""
    found = {}
    for part in PARTS:
        records = [
            (p.key, unpack(p.record, base.header.record_digest))
            for p in learner.buffer.read(TASK, part)
        ]
        decode = base.vocabulary.decode
        found[part] = [(k, decode(r.source_ids), decode(r.target_ids)) for k, r in records]
    return found


def changed(learner: Learner, old: Base, new: Base) -> TaskChange:
    """Change the one task and start consumer and learner with the new base."""
    (done,) = change(learner, old, new)
    learner.base = new
    learner.restart()
    learner._epoch = learner.buffer.acquire("consumer", 0)
    return done


def change(learner: Learner, old: Base, new: Base) -> Iterator[TaskChange]:
    return change_base(
        learner.buffer,
        learner.registry,
        old=old.header,
        new=new.header,
        partitions=1,
        clock=learner.clock,
    )


def run(learner: Learner) -> None:
    """Turns until there is nothing to do."""
    while learner.loop.run_once() is not None:
        pass


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base with subwords and other weights."""
    sources = [text for pair in numbered(0, 50) for text in pair]
    vocabulary = learn_subwords(sources, CHARACTERS, pieces=30)
    return tiny_base(tmp_path_factory.mktemp("other"), seed=5, vocabulary=vocabulary)


def taught(base: Base, pairs: Pairs | None = None, config: LearningSettings = SHORT) -> Learner:
    learner = Learner(base, config)
    learner.ingest(TASK, numbered(0, 100) if pairs is None else pairs)
    learner.ingest(TASK, [("number 3", "three")], correction=True)
    learner.learn()
    return learner


def test_the_pairs_are_the_same_in_the_other_vocabulary(base: Base, other: Base) -> None:
    learner = taught(base)
    learner.ingest(TASK, [("é number 漢", "waits")])
    learner.ingest(TASK, [("number 5", "waits too")], correction=True)
    before, positions = texts(learner, base), learner.buffer.positions(0)
    outcomes = [learner.buffer.outcome(TASK, "offline", str(n)) for n in range(103)]
    done = changed(learner, base, other)
    assert texts(learner, other) == before
    assert all(before.values())
    assert (done.rewritten, done.too_long, done.evicted) == (103, 0, 0)
    assert learner.buffer.positions(0) == positions
    assert [learner.buffer.outcome(TASK, "offline", str(n)) for n in range(103)] == outcomes
    sizes = {part: sum(len(p.record) for p in learner.buffer.read(TASK, part)) for part in PARTS}
    assert learner.buffer.stats(TASK).bytes == sizes
    assert learner.buffer.waiting(0) == {TASK: (1, 1)}


def test_the_task_is_learnt_anew_and_the_champion_serves_on_meanwhile(
    base: Base, other: Base
) -> None:
    learner = taught(base, config=SMALL)
    before = learner.registry.status(TASK)
    steps = learner.buffer.state(TASK).last_step
    done = changed(learner, base, other)
    assert (done.relearns, done.snapshot_id) == (True, None)
    assert learner.registry.status(TASK).champion == before.champion
    while learner.registry.relearning([0]):
        assert learner.registry.status(TASK).champion == before.champion
        assert learner.loop.run_once() is not None
    champion = learner.registry.status(TASK).champion
    assert champion != before.champion
    assert champion is not None
    manifest = learner.registry.record(TASK, champion).manifest
    assert manifest.base == other.digest
    assert manifest.step > steps
    assert manifest.positions == {"pairs": "offline|101"}
    sources, wanted = zip(*numbered(4, 64), strict=True)
    right = [a == t for a, t in zip(learner.answers(TASK, sources), wanted, strict=True)]
    assert sum(right) >= 50
    assert learner.registry.is_learnt(TASK, 1)
    assert learner.loop._open[TASK].learner.calibration.place.sources == 101


def test_new_pairs_are_learnt_while_the_task_learns_anew(base: Base, other: Base) -> None:
    learner = taught(base)
    champion = learner.registry.status(TASK).champion
    changed(learner, base, other)
    learner.ingest(TASK, numbered(100, 120))
    run(learner)
    assert learner.buffer.stats(TASK).learnt + learner.buffer.stats(TASK).pairs["recent"] > 100
    assert learner.buffer.waiting(0) == {}
    assert learner.registry.status(TASK).champion != champion


@pytest.mark.parametrize("turns", [1, 7])
def test_a_restart_in_the_middle_of_learning_anew_changes_no_byte(
    base: Base, other: Base, turns: int
) -> None:
    payloads = []
    for restart_every in (10_000, turns):
        learner = taught(base)
        changed(learner, base, other)
        taken = 0
        while learner.registry.relearning([0]):
            learner.loop.run_once()
            taken += 1
            if taken % restart_every == 0:
                learner.restart()
        payloads.append(learner.payloads(TASK)[-1])
    assert payloads[0] == payloads[1]


def test_texts_that_are_too_long_are_held_and_come_back(base: Base, tmp_path: Path) -> None:
    short = tiny_base(tmp_path, seed=2, max_tokens=24)
    learner = taught(base, [*numbered(0, 60), ("a number as long as 33 characters", "long")])
    champion = learner.registry.status(TASK).champion
    learner.ingest(TASK, [("b number as long as 33 characters", "waits")])
    done = changed(learner, base, short)
    assert (done.rewritten, done.too_long) == (61, 2)
    held = PairOutcome("quarantined", detail="too_long")
    assert learner.buffer.outcome(TASK, "offline", "60") == held
    assert learner.buffer.outcome(TASK, "offline", "62") == held
    assert learner.buffer.waiting(0) == {}
    run(learner)
    done = changed(learner, short, base)
    assert (done.rewritten, done.too_long, done.let_out) == (61, 0, 2)
    assert learner.buffer.held_back(TASK) == []
    assert {text for _, text, _ in texts(learner, base)["bulk"]} == {
        "a number as long as 33 characters",
        "b number as long as 33 characters",
    }
    assert learner.registry.status(TASK).champion == champion
    run(learner)
    assert learner.buffer.outcome(TASK, "offline", "62") != held


def test_the_way_back_serves_at_once_and_learning_goes_on_from_there(
    base: Base, other: Base
) -> None:
    learner = taught(base)
    first, state = learner.registry.status(TASK).champion, learner.buffer.state(TASK)
    changed(learner, base, other)
    run(learner)
    second = learner.registry.status(TASK).champion
    assert first is not None
    assert second is not None
    with pytest.raises(SnapshotError, match="belongs to base"):
        learner.registry.rollback(TASK, first, expected_champion=second, now_ms=1, journal="{}")
    done = changed(learner, other, base)
    assert (done.snapshot_id, done.relearns) == (first, False)
    assert learner.registry.status(TASK).champion == first
    back = learner.buffer.state(TASK)
    assert back.checkpoint == state.checkpoint
    assert back.last_step > state.last_step
    learner.ingest(TASK, numbered(200, 240))
    run(learner)
    assert learner.registry.status(TASK).champion not in (first, second)
    learner.restart()
    run(learner)


def test_an_interrupted_change_is_called_again(
    base: Base, other: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeseq_core.learn.change_base.AT_ONCE", 40)
    learner, whole = taught(base), taught(base)
    for one in (learner, whole):
        one.ingest(TASK, numbered(100, 101))
    changed(whole, base, other)
    real, calls = learner.buffer.reencode, 0

    def once(*args: object, **named: object) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise InterruptedError
        return real(*args, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(learner.buffer, "reencode", once)
        with pytest.raises(InterruptedError):
            list(change(learner, base, other))
    assert learner.registry.status(TASK).base is None
    for started in (base, other):
        learner.base = started
        learner.restart()
        with pytest.raises(StateVersionError, match=r"edgeseq base change"):
            run(learner)
    done = changed(learner, base, other)
    assert 0 < done.rewritten < 102
    assert texts(learner, other) == texts(whole, other)
    (again,) = change(learner, base, other)
    assert (again.rewritten, again.relearns) == (0, True)


def test_a_learner_that_runs_is_fenced_and_one_with_the_former_base_is_told(
    base: Base, other: Base
) -> None:
    learner = taught(base)
    list(change(learner, base, other))
    with pytest.raises(FencedError):
        learner.ingest(TASK, numbered(0, 1))
    with pytest.raises(FencedError):
        learner.loop.look()
    learner.restart()
    with pytest.raises(StateVersionError, match=r"was changed to base .*set base\.path"):
        run(learner)


def test_pairs_of_a_third_base_are_named(base: Base, other: Base, tmp_path: Path) -> None:
    learner = taught(base)
    third = tiny_base(tmp_path, seed=9)
    with pytest.raises(StateVersionError, match="name the file of that base"):
        list(change(learner, third, other))
    assert set(texts(learner, base)["reservoir"])


def test_a_task_that_is_told_to_learns_anew_on_the_same_base(base: Base) -> None:
    learner = taught(base)
    before, loop = learner.registry.status(TASK), learner.loop
    relearn(learner.registry, TASK, clock=learner.clock, reason="a test")
    loop.look()
    run(learner)
    status = learner.registry.status(TASK)
    assert status.branch == before.branch + 1
    last = learner.registry.history(TASK)[-1]
    assert last.gate is not None
    assert last.gate.reference_id == before.champion  # judged as ever
    assert [json.loads(line)["kind"] for line in learner.buffer.journal(TASK)].count("restart") == 1


def test_a_task_with_nothing_to_learn_anew_begins_as_the_bare_base(base: Base, other: Base) -> None:
    learner = taught(base)
    learner.buffer.remove(TASK)
    before = learner.registry.status(TASK).champion
    changed(learner, base, other)
    run(learner)
    champion = learner.registry.status(TASK).champion
    assert champion not in (None, before)
    assert learner.registry.relearning([0]) == {}
    sources = [source for source, _ in numbered(0, 8)]
    assert learner.answers(TASK, sources) == Learner(other).answers(TASK, sources)
