"""The same pairs give the same bytes, restarts or not; another task is never touched."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.learn.drift import MEMORY_PAIRS, DriftMonitor
from edgeseq_core.learn.serving_engine import serving_engine
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.testing.base import tiny_base
from tests.learn.rig import Learner, numbered


def learnt(base: Base, *, restart_every: int = 10_000) -> Learner:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 70))
    learner.ingest("numbers", [("number 3", "three")], correction=True)
    while learner.learn(turns=restart_every):
        learner.restart()
    return learner


@pytest.fixture(scope="module")
def once(base: Base) -> Learner:
    return learnt(base)


def test_the_same_pairs_give_the_same_bytes(base: Base, once: Learner) -> None:
    again = learnt(base)
    assert once.checkpoints == again.checkpoints
    assert once.payloads("numbers") == again.payloads("numbers")
    assert once.registry.champions([0]) == again.registry.champions([0])
    assert len(set(once.checkpoints)) == len(once.checkpoints) >= 8


@pytest.mark.parametrize("turns", [1, 3])
def test_a_restart_in_the_middle_changes_no_byte(base: Base, once: Learner, turns: int) -> None:
    restarted = learnt(base, restart_every=turns)
    assert restarted.checkpoints == once.checkpoints
    assert restarted.payloads("numbers") == once.payloads("numbers")
    assert restarted.registry.champions([0]) == once.registry.champions([0])
    assert restarted.buffer.journal("numbers") == once.buffer.journal("numbers")


def test_a_base_with_a_copy_path_learns_its_gate_and_repeats(tmp_path: Path) -> None:
    base = tiny_base(tmp_path, output="copy")
    pairs = [(f"漢{word}", f"漢{word}!") for word in ("one", "two", "six", "ten") * 10]
    runs = []
    for turns in (10_000, 1):
        learner = Learner(base)
        learner.ingest("marks", pairs)
        while learner.learn(turns=turns):
            learner.restart()
        runs.append(learner)
    assert runs[0].checkpoints == runs[1].checkpoints
    payload = runs[0].payload("marks")
    assert payload is not None
    served = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
    assert served.tensors["decoder.copy.gate"].abs() > 0.01
    assert served.tensors["decoder.copy.q.b"].abs().max() > 0


def test_another_seed_gives_other_bytes(base: Base, once: Learner) -> None:
    other = Learner(base, once.config.model_copy(update={"seed": 2}))
    other.ingest("numbers", numbered(0, 10))
    other.learn()
    assert other.checkpoints[0] != once.checkpoints[0]


def test_learning_one_task_leaves_the_others_alone(base: Base) -> None:
    learner = Learner(base)
    learner.ingest("numbers", numbered(0, 40))
    learner.learn()
    sources = [f"number {n}" for n in range(100, 108)]
    payload, answers = learner.payload("numbers"), learner.answers("numbers", sources)
    checkpoint = learner.buffer.state("numbers").checkpoint
    history = learner.registry.history("numbers")

    learner.ingest("letters", [(f"letter {n}", "ABCD"[n % 4]) for n in range(40)])
    learner.learn()
    while learner.loop.run_once():  # rehearsals move each task by its own pairs only
        pass
    assert learner.payload("letters") is not None
    assert learner.registry.record("numbers", history[-1].manifest.snapshot_id) == history[-1]
    if learner.buffer.state("numbers").checkpoint == checkpoint:
        assert learner.payload("numbers") == payload

    engine = serving_engine(base, BatchEncoder(base))
    assert payload is not None
    engine.swap("numbers", "numbers", payload)
    letters = learner.payload("letters")
    assert letters is not None
    engine.swap("letters", "letters", letters)
    mixed = [SourceRow(task, s) for s in sources for task in ("numbers", "letters")]
    found = engine.generate(mixed, Limits(max_tokens=16))
    alone = engine.generate([SourceRow("numbers", s) for s in sources], Limits(max_tokens=16))
    assert [one.target for one in found[::2]] == [one.target for one in alone]
    assert [one.target[:16] for one in alone] == [answer[:16] for answer in answers]


def losses(seed: int) -> list[float]:
    """A stream with two rises, a fall, and more pairs than the monitor remembers."""
    rng = random.Random(seed)
    levels = [0.3] * 400 + [2.0] * 500 + [0.5] * 900 + [1.5] * (MEMORY_PAIRS // 2)
    return [max(0.0, rng.gauss(level, 0.2)) for level in levels]


@pytest.mark.parametrize("seed", [1, 2])
def test_drift_shows_at_the_same_pair_after_restarts(seed: int) -> None:
    whole, pieces = DriftMonitor(delta=0.002), DriftMonitor(delta=0.002)
    begun: set[int] = set()
    for at, loss in enumerate(losses(seed)):
        if at % 97 == 0:
            pieces = DriftMonitor(delta=0.002, values=pieces.values)
        drift = whole.update(loss)
        assert pieces.update(loss) == drift
        assert pieces.statistic == whole.statistic
        if drift:
            begun.add(at + 1 - drift)
    assert begun == {400, 1_800}  # shown more than once each, and always from where it began
