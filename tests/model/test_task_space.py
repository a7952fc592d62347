"""A source finds its task in the base's feature space, or none."""

import pytest
import torch

from edgeseq_core.engine import Inferred
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.nearest import FEWEST_SOURCES, nearest
from edgeseq_core.model.source_encoder import BatchEncoder
from edgeseq_core.model.study import TorchStudy
from edgeseq_core.model.task_space import MEMORY_SOURCES, Place, features
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"))


def place(base: Base, sources: list[str]) -> Place:
    return Place.none(base.config.d_model).with_sources(features(base, sources))


DATES = [f"{1 + n % 28} of month {1 + n % 12} in {1950 + n}" for n in range(60)]
WORDS = [f"{a}{b}{c}ing" for a in "bdfgl" for b in "aeou" for c in "dlt"]


def test_moments_are_those_of_all_sources_and_old_ones_fade() -> None:
    draw = torch.Generator().manual_seed(0)
    found = torch.randn(200, 3, generator=draw) * torch.tensor([1.0, 2.0, 0.1]) + 5
    made = Place.none(3).with_sources(found[:80]).with_sources(found[80:])
    torch.testing.assert_close(made.moments[0], found.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.moments[1], found.var(0, unbiased=False), atol=1e-3, rtol=0)
    later = made.with_sources(torch.zeros(3 * MEMORY_SOURCES, 3))
    assert (later.moments[0] < 0.3).all()


def test_a_feature_depends_on_its_source_alone(base: Base) -> None:
    together = features(base, ["short", "a much longer source", "ü字"])
    alone = torch.cat([features(base, [s]) for s in ("short", "a much longer source", "ü字")])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_sources_go_to_their_task_and_strange_ones_to_none(base: Base) -> None:
    places = {"dates": place(base, DATES[::2] * 2), "words": place(base, WORDS[::2] * 2)}
    inferred = nearest(features(base, [*DATES[1::2], *WORDS[1::2]]), places)
    found = [one.task for one in inferred]
    assert found.count("dates") >= 25  # of 30 each; the others may get none, never the wrong one
    assert found.count("words") >= 25
    assert "words" not in found[:30]
    assert "dates" not in found[30:]
    assert all(one.confidence > 0.9 for one in inferred if one.task)
    for one in nearest(features(base, ["@@@@@@@@@@@@", "字字字字字"]), places):
        assert (one.task, one.between) == (None, ())


def test_none_is_nearest_where_two_are_alike_or_little_is_known(base: Base) -> None:
    dates, some = place(base, DATES), features(base, DATES[:3])
    for one in nearest(some, {"dates": dates, "again": dates}):
        assert (one.task, set(one.between)) == (None, {"dates", "again"})
        assert one.confidence == pytest.approx(0.5)
    for one in nearest(some, {"dates": dates}):
        assert (one.task, one.confidence) == ("dates", 1.0)
    assert (
        nearest(some, {"dates": place(base, DATES[: FEWEST_SOURCES - 1])}) == [Inferred(None)] * 3
    )
    assert nearest(some, {}) == [Inferred(None)] * 3


def test_a_place_of_other_features_is_none(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = TaskLearner(base, "dates", LearningSettings(), TorchStudy(base, BatchEncoder(base)))
    learner.calibration.place = place(base, DATES)
    payload, checkpoint = learner.payload(), learner.to_checkpoint()

    def read() -> tuple[Place, Place]:
        made = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
        again = TaskLearner.from_checkpoint(
            checkpoint, base, "dates", learner.config, learner.study
        )
        return made.place, again.calibration.place

    assert [one.sources for one in read()] == [len(DATES)] * 2
    monkeypatch.setattr("edgeseq_core.model.calibration.FEATURES", "others")
    monkeypatch.setattr("edgeseq_core.learn.learner.FEATURES", "others")
    assert [one.sources for one in read()] == [0, 0]


def test_the_place_travels_in_the_snapshot(base: Base) -> None:
    engine = TorchEngine(base)
    for name, sources in (("dates", DATES), ("words", WORDS)):
        calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
        calibration.place = place(base, sources)
        engine.swap(name, name, calibration.to_payload(base.digest))
    inferred = engine.infer([DATES[0], WORDS[0], "@@@@@@@@@"])
    assert [one.task for one in inferred] == ["dates", "words", None]
