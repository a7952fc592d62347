"""The gate scores through the engine that serves, and what it scores with decides no byte of a rebuild."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseq_core.engine import PairRow
from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.learn.offline import learn_pairs
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.learn.serving_engine import serving_engine
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine
from edgeseq_core.settings import EngineChoice
from edgeseq_core.testing.base import tiny_base
from tests.contract.engines import INSTRUCTIONS
from tests.learn.test_rebuild import PAIRS, SETTINGS, TASK, Recorder

SERVES = NativeEngine if INSTRUCTIONS else TorchEngine


def scoring(base: Base, engine: EngineChoice) -> Recorder:
    """A learner whose gate scores with an engine, after a few steps."""
    learner = Recorder(base, SETTINGS)
    learner.loop = LearnerLoop(
        learner.buffer,
        learner.registry,
        base,
        SETTINGS,
        partitions=[0],
        partition_count=1,
        clock=learner.clock,
        engine=engine,
    )
    for _ in learn_pairs(learner, TASK, PAIRS[:60], chunk=9):
        pass
    return learner


def test_an_engine_is_chosen_as_a_predictor_chooses_it(base: Base, tmp_path: Path) -> None:
    encoder = CachingEncoder(base, calibrated_layers=1)
    other = tiny_base(tmp_path, norm="post-layer")
    assert isinstance(serving_engine(base, encoder), SERVES)
    assert isinstance(serving_engine(base, encoder, "torch"), TorchEngine)
    assert isinstance(
        serving_engine(other, CachingEncoder(other, calibrated_layers=1)), TorchEngine
    )
    with pytest.raises(ConfigError):
        serving_engine(other, encoder, "native")


def test_a_base_that_is_being_made_is_scored_by_pytorch(base: Base) -> None:
    making = Base(base.header, base.model)
    assert isinstance(
        serving_engine(making, CachingEncoder(making, calibrated_layers=1)), TorchEngine
    )


def test_a_candidate_s_scores_are_those_that_the_serving_engine_gives_its_bytes(
    base: Base,
) -> None:
    learner = scoring(base, "auto")
    task, payload = learner.loop._opened(TASK), learner.payload(TASK)
    assert payload is not None
    engine = NativeEngine(base.stored) if INSTRUCTIONS else TorchEngine(base)
    engine.swap(TASK, TASK, payload)
    held = task.held_out.all
    assert held
    task.standing.champion.scores = {}
    learner.loop._contest._measure(task.standing.champion, {e.key: e for e in held})
    wanted = engine.score([PairRow(TASK, e.source, e.target) for e in held])
    found = [task.standing.champion.scores[e.key] for e in held]
    assert [one[1:] for one in found] == [one[1:] for one in wanted]
    assert [one.loss for one in found] == pytest.approx([one.loss for one in wanted], rel=1e-6)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_rebuild_gives_equal_bytes_whatever_the_gate_scored_with(
    base: Base, engine: EngineChoice
) -> None:
    learner = scoring(base, engine)
    journal = learner.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, learner.records(), base, SETTINGS)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)
