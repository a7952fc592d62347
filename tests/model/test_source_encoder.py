"""What the frozen layers say of a source has the same bits whatever is encoded with it."""

import random
from collections.abc import Sequence

import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.source_encoder import BatchEncoder, CachingEncoder

SHAPE = CalibrationConfig(encoder_layers=1)
WORDS = [("ab" * n + "c")[:length] for length in (1, 5, 7, 8, 15, 16, 40) for n in range(1, 22, 4)]


def keys(
    base: Base, encoder: CachingEncoder | BatchEncoder, sources: Sequence[str]
) -> torch.Tensor:
    calibration = Calibration(base.model, base.vocabulary, SHAPE)
    weights, tables = MergedWeights(calibration), [calibration.table] * len(sources)
    with torch.no_grad():
        return encoder.encode(sources, tables, weights).keys[0]


def test_bits_depend_on_the_source_alone() -> None:
    base, rng = Base.load(), random.Random(1)
    long_lived = CachingEncoder(base, calibrated_layers=1)
    for _ in range(12):
        sources = rng.choices(WORDS, k=rng.randint(1, 20))
        new = CachingEncoder(base, calibrated_layers=1)
        assert torch.equal(keys(base, new, sources), keys(base, long_lived, sources))


def test_cached_layers_say_what_all_layers_at_once_do() -> None:
    base = Base.load()
    cached, plain = CachingEncoder(base, calibrated_layers=1), BatchEncoder(base)
    for sources in (WORDS[:3], WORDS[::5], WORDS):
        kept, made = keys(base, cached, sources), keys(base, plain, sources)
        for row, (one, other) in enumerate(zip(kept, made, strict=True)):
            read = base.config.task_tokens + len(sources[row]) + 1
            torch.testing.assert_close(one[:, :read], other[:, :read], atol=1e-4, rtol=1e-4)


def test_the_oldest_sources_are_dropped_first() -> None:
    base = Base.load()
    small = CachingEncoder(base, calibrated_layers=1, capacity=3)
    for sources in (["a", "b", "c", "d", "e"], ["e", "b"], ["a"]):
        assert torch.equal(
            keys(base, small, sources),
            keys(base, CachingEncoder(base, calibrated_layers=1), sources),
        )
    assert [source for source, _ in small._kept] == ["e", "b", "a"]
