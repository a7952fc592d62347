"""The PyTorch engine against uncached searches; what all engines promise is in tests/contract."""

import math

import pytest
import torch

from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.torch_engine import TorchEngine, log_probabilities
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import BOS, EOS
from tests.contract.engines import payload


@pytest.fixture(scope="module", params=["vocabulary", "copy"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), output=request.param)


@pytest.fixture
def engine(base: Base) -> TorchEngine:
    engine = TorchEngine(base)
    for seed, task in enumerate(("one", "two", "three")):
        engine.swap(task, f"{task}-1", payload(base, seed))
    return engine


def test_greedy_equals_an_uncached_search_on_the_served_calibration(
    engine: TorchEngine, base: Base
) -> None:
    served = Calibration.from_payload(payload(base, 0), base.model, base.vocabulary, base.digest)
    weights = MergedWeights(served)
    source = torch.tensor([[*base.vocabulary.encode("some text"), EOS]])
    target, log_probability = [BOS], 0.0
    with torch.no_grad():
        for _ in range(10):
            scores = log_probabilities(base.model(source, torch.tensor([target]), weights))[0, -1]
            log_probability += float(scores.max())
            target.append(int(scores.argmax()))
            if target[-1] == EOS:
                break
    answer = engine.generate([SourceRow("one", "some text")], Limits(max_tokens=10))[0]
    assert answer.target == served.table.decode(target[1:])
    assert answer.confidence == pytest.approx(math.exp(log_probability), rel=1e-3)


def test_every_answer_of_a_beam_has_its_teacher_forced_probability(
    engine: TorchEngine, base: Base
) -> None:
    engine.swap("short", "short-1", payload(base, 1, row_bias=8.0))  # answers of its own symbols
    served = Calibration.from_payload(
        payload(base, 1, row_bias=8.0), base.model, base.vocabulary, base.digest
    )
    for source in ("abc", "xyz", "hey", "q"):
        (made,) = engine.generate([SourceRow("short", source, 6)], Limits(max_tokens=40))
        answers = [(made.target, made.confidence), *made.others]
        assert made.stop == "end"
        assert len(answers) > 3
        read = torch.tensor([[*base.vocabulary.encode(source), EOS]])
        for target, confidence in answers:
            wanted = torch.tensor([[BOS, *served.table.encode(target), EOS]])
            with torch.no_grad():
                scores = base.model(read, wanted[:, :-1], MergedWeights(served))
            chosen = log_probabilities(scores).gather(2, wanted[:, 1:, None])
            assert float(chosen.sum()) == pytest.approx(math.log(confidence), abs=1e-4)


def test_the_cache_equals_teacher_forcing_while_beams_are_reordered(base: Base) -> None:
    served = Calibration.from_payload(payload(base, 0), base.model, base.vocabulary, base.digest)
    model, weights, places = base.model, MergedWeights(served), 5
    source = torch.tensor([[*base.vocabulary.encode("some text"), EOS]])
    draw = torch.Generator().manual_seed(3)
    histories = torch.full((places, 0), 0)
    with torch.no_grad():
        memory = model.encode(source, weights).select(torch.zeros(places, dtype=torch.long))
        cache = model.new_cache(places, 12)
        for _ in range(12):
            parents = torch.randint(places, (places,), generator=draw)
            token = torch.randint(3, len(base.vocabulary), (places, 1), generator=draw)
            histories = torch.cat([histories[parents], token], 1)
            cache.select(parents)
            stepped = model.scores(token, memory, weights, cache).log_softmax(-1)
            forced = model.scores(histories, memory, weights).log_softmax(-1)
            torch.testing.assert_close(stepped[:, 0], forced[:, -1], atol=1e-5, rtol=0)
