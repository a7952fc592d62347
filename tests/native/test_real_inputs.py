"""The base that ships, as it is and made over, with calibrations learnt on real pairs.

The tokens are those of integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.engine import Limits, PairRow, SourceRow
from edgeseq_core.learn.offline import OfflineLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_stored
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine
from edgeseq_core.native.reference import ReferenceEngine
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.clock import FakeClock
from tests.contract.engines import INSTRUCTIONS
from tests.corpus.need import need
from tests.native.variants import write_banded, write_copying

need("german_nouns", "lemminflect")
pytestmark = pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")

PAIRS, HELD_OUT = 320, 100
TIE = (
    0.25  # of two scores: a number between two codes may take either, which moves scores by so much
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("english-inflection", None),
        ("german-plurals", None),
        ("german-plurals", write_copying),
        ("english-inflection", write_banded),
    ],
)
def test_tokens_are_those_of_integer_arithmetic(
    name: str, write: Callable[[Path], Path] | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "base.safetensors") if write else None
    base, task = Base.load(path), DEMO_TASKS[name]
    learner = OfflineLearner(
        base,
        LearningSettings(gate_interval_s=0.0, rehearsals_per_step=0),
        clock=FakeClock(),
    )
    learner.ingest(name, [(e.source, e.target) for e in islice(task.train(1), PAIRS)])
    while learner.buffer.waiting(0):
        learner.loop.run_once()
    payload = learner.payload(name)
    assert payload
    reference, fp32 = ReferenceEngine(base, read_stored(path)[1]), TorchEngine(base)
    native = NativeEngine(path)
    for engine in (reference, fp32, native):
        engine.swap(name, f"{name}-1", payload)

    examples = task.held_out(HELD_OUT, 1)
    rows = [SourceRow(name, example.source) for example in examples]
    exact, found = reference.generate(rows, Limits()), native.generate(rows, Limits())
    different = [
        (r, a, b) for r, a, b in zip(rows, exact, found, strict=True) if a.target != b.target
    ]
    assert len(different) <= HELD_OUT / 50
    for row, a, b in different:  # only where the reference could hardly tell
        together = len(min(a.target, b.target, key=len))
        at = next((i for i in range(together) if a.target[i] != b.target[i]), together)
        first, second = np.sort(reference.logits(PairRow(name, row.source, a.target))[at])[:-3:-1]
        assert first - second < TIE, row
    wrong = sum(a.target != e.target for a, e in zip(found, examples, strict=True))
    assert wrong < HELD_OUT  # it answers

    for example in examples[:20]:
        pair = PairRow(name, example.source, example.target)
        a, b = native.logits(pair), fp32.logits(pair)
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert (cosine > 0.999).all()
