"""What a turn takes, holds out, releases and journals, and whose turn it is."""

from __future__ import annotations

import contextlib

import pytest

from edgeseq_core.learn.example import read_example
from edgeseq_core.learn.offline import LOG, TOPIC
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import StoredPair
from edgeseq_core.replay.record import PairRecord, pack, pair_key
from edgeseq_core.settings import LearningSettings
from tests.faults.facts import outcomes, task_facts
from tests.faults.history import Facts, SentPair, violations
from tests.learn.rig import SMALL, Learner, numbered


def test_few_pairs_are_held_out(base: Base) -> None:
    digest = base.header.record_digest
    record = PairRecord(
        producer="p",
        pair_id="1",
        arrived_ms=0,
        topic=TOPIC,
        offset=0,
        correction=False,
        source_ids=(),
        target_ids=(),
    )
    stored = pack(record, digest)
    share = LearningSettings().held_out_share
    pairs = 20_000
    held = sum(
        read_example(
            StoredPair(pair_key(LOG, TOPIC, n), "bulk", stored), base.vocabulary, digest
        ).draw
        < share
        for n in range(pairs)
    )
    assert 0.04 < held / pairs <= 0.05


def test_moves_and_journal_agree_and_held_out_pairs_are_released_later(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 100))
    corrected = learner.ingest(
        "numbers", [(f"number {n}", "fixed") for n in range(30)], correction=True
    )
    learner.learn()
    learner.ingest("numbers", numbered(100, 105))  # these wait
    sent = [
        SentPair(name=("numbers", LOG, str(n)), key=pair_key(LOG, TOPIC, n))
        for n in range(105 + corrected)
    ]
    facts = Facts(
        tasks=task_facts(learner.buffer, learner.registry, partitions=1),
        sent=sent,
        outcomes=outcomes(learner.buffer, [pair.name for pair in sent]),
    )
    # one topic carries both kinds here, so the checker's order of topics does not apply
    assert [v for v in violations(facts) if "comes after" not in v] == []
    steps = learner.steps("numbers")
    held = [key for step in steps for key in step["held_out"]]
    released = [key for step in steps for key in step["released"]]
    corrections = {key for step in steps for key in step["corrections"]}
    assert len(corrections) == 30
    assert not corrections & set(held)
    assert released == sorted(set(released), key=released.index)
    assert set(released) < set(held)
    stats = learner.buffer.stats("numbers")
    assert stats.pairs["recent"] == stats.pairs["probe"] == 6
    assert len(held) - len(released) == 12
    assert stats.learnt == stats.pairs["reservoir"] == 130 - 12
    assert stats.pairs["bulk"] == 5


@pytest.mark.parametrize(("recent", "probe", "share"), [(3, 3, 0.5), (1, 1, 0.9), (6, 2, 0.7)])
def test_a_pair_may_pass_several_parts_in_one_step(
    base: Base, recent: int, probe: int, share: float
) -> None:
    """Two held-out pairs in one step: the second may push out what the first pushed on."""
    changes = {"recent_pairs": recent, "probe_pairs": probe, "held_out_share": share}
    learner = Learner(base, SMALL.model_copy(update=changes))
    learner.ingest("numbers", numbered(0, 80))
    learner.learn()
    stats = learner.buffer.stats("numbers")
    assert (stats.pairs["recent"], stats.pairs["probe"]) == (recent, probe)
    assert stats.learnt == 80 - recent - probe
    task = learner.loop._open["numbers"]
    for part, held in (("recent", task.held_out.recent), ("probe", task.held_out.probe)):
        stored = {pair.key for pair in learner.buffer.read("numbers", part)}  # type: ignore[arg-type]
        assert {example.key for example in held} == stored
        assert {example.part for example in held} == {part}


def test_corrections_come_first_within_and_between_tasks(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 40))
    learner.ingest("letters", [(f"letter {n}", "A") for n in range(40)])
    learner.learn(turns=2)
    learner.ingest("letters", [("letter 1", "B")] * 3, correction=True)
    (turn,) = learner.learn(turns=1)
    assert turn.task == "letters"
    last = learner.steps("letters")[-1]
    assert len(last["corrections"]) == 3
    assert len(last["bulk"]) == SMALL.fresh_per_step - 3
    taken = learner.steps("letters")[0]["bulk"] + last["bulk"]
    assert taken == sorted(taken, key=lambda key: int(key.rsplit(":", 1)[1]))


def test_tasks_take_fair_turns(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("huge", numbered(0, 200))
    learner.ingest("small", numbered(0, 24))
    learner.ingest("tiny", numbered(0, 8))
    order = [turn.task for turn in learner.learn(turns=9)]
    assert sorted(order[:3]) == ["huge", "small", "tiny"]
    assert order.count("small") == 3
    assert order[:7].count("huge") == 3


def test_nothing_waits_so_it_rehearses_and_offers_once(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 20))
    learner.learn()
    before = len(learner.payloads("numbers"))
    turn = learner.loop.run_once()
    assert turn is not None
    assert (turn.fresh, turn.learnt) == (0, 0)
    assert turn.gate is not None
    assert len(learner.payloads("numbers")) == before + 1
    assert learner.loop.run_once() is None


def test_a_crash_between_commit_and_offer_is_made_up_for(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 20))
    learner.learn(turns=2)

    class CrashError(Exception):
        pass

    def crash(*_: object) -> None:
        raise CrashError

    real, learner.registry.offer = learner.registry.offer, crash  # type: ignore[method-assign,assignment]
    with contextlib.suppress(CrashError):
        learner.learn()
    learner.registry.offer = real  # type: ignore[method-assign]
    step = learner.buffer.state("numbers").step
    assert learner.registry.history("numbers")[-1].manifest.step < step
    learner.restart()
    while learner.loop.run_once():
        pass
    assert learner.registry.history("numbers")[-1].manifest.step >= step
