"""The reference engine: greedy answers, scores, mixed batches, limits, swaps."""

import math

import pytest
import torch

from edgeseq_core.engine import Limits, PairRow, SourceRow, Stop
from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig, MergedWeights
from edgeseq_core.model.torch_engine import TorchEngine, log_probabilities
from edgeseq_core.testing.base import tiny_base
from edgeseq_core.text.vocabulary import BOS, EOS


@pytest.fixture(scope="module", params=["vocabulary", "copy"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny_base(tmp_path_factory.mktemp("base"), output=request.param)


def payload(base: Base, seed: int, targets: str = "abc漢", *, row_bias: float = 0.0) -> bytes:
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2), seed=seed)
    calibration.admit([targets])
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in calibration.tensors.items():
        calibration.tensors[name] = tensor + 0.3 * torch.randn(tensor.shape, generator=draw)
    calibration.tensors["row_bias"] += row_bias
    return calibration.to_payload(base.digest)


@pytest.fixture
def engine(base: Base) -> TorchEngine:
    engine = TorchEngine(base)
    for seed, task in enumerate(("one", "two", "three")):
        engine.swap(task, f"{task}-1", payload(base, seed))
    return engine


def test_answers_do_not_depend_on_batch_neighbours(engine: TorchEngine) -> None:
    rows = [
        SourceRow(task, source)
        for source in ("a", "a longer source", "ünseen 字")
        for task in ("one", "two", "three")
    ]
    together = engine.generate(rows, Limits(max_tokens=12))
    alone = [engine.generate([row], Limits(max_tokens=12))[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        assert (a.target, a.stop, a.snapshot_id) == (b.target, b.stop, b.snapshot_id)
        assert a.confidence == pytest.approx(b.confidence, rel=1e-3)


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


def test_an_exact_score_is_what_greedy_decoding_answers(engine: TorchEngine) -> None:
    for source in ("abc", "xyz", "hello there"):
        answer = engine.generate([SourceRow("two", source)], Limits(max_tokens=40))[0]
        if answer.stop != "end":
            continue
        score = engine.score([PairRow("two", source, answer.target)])[0]
        assert score.exact
        assert not engine.score([PairRow("two", source, answer.target + "!")])[0].exact


def test_a_row_is_stopped_between_tokens_without_stopping_others(engine: TorchEngine) -> None:
    asked: list[int] = []

    def stop(row: int) -> Stop | None:
        asked.append(row)
        return "cancelled" if row == 0 and asked.count(0) > 3 else None

    rows = [SourceRow("one", "first"), SourceRow("two", "second")]
    first, second = engine.generate(rows, Limits(max_tokens=9, stop=stop))
    free = engine.generate(rows, Limits(max_tokens=9))
    assert (first.stop, first.tokens) == ("cancelled", 3)
    assert second.target == free[1].target


def test_swap_replaces_one_task_and_drop_ends_it(engine: TorchEngine, base: Base) -> None:
    before = engine.generate([SourceRow("two", "abc")], Limits(max_tokens=9))
    engine.swap("one", "one-2", payload(base, 9))
    after = engine.generate(
        [SourceRow("one", "abc"), SourceRow("two", "abc")], Limits(max_tokens=9)
    )
    assert [g.snapshot_id for g in after] == ["one-2", "two-1"]
    assert after[1].target == before[0].target
    engine.drop("one")
    assert engine.snapshot_id("one") is None
    with pytest.raises(KeyError):
        engine.generate([SourceRow("one", "abc")], Limits())


def test_bad_bytes_leave_the_champion_serving(engine: TorchEngine) -> None:
    with pytest.raises(SnapshotError):
        engine.swap("one", "one-2", b"nonsense")
    assert engine.snapshot_id("one") == "one-1"


def test_a_constrained_answer_has_only_symbols_of_the_targets(engine: TorchEngine) -> None:
    sources = ("some text", "字", "x")
    rows = [
        SourceRow(task, source, n_best, constrained)
        for source, n_best in zip(sources, (1, 1, 3), strict=True)
        for task, constrained in (("one", True), ("two", False))
    ]
    mixed = engine.generate(rows, Limits(max_tokens=12))
    free = engine.generate([row._replace(constrained=False) for row in rows], Limits(max_tokens=12))
    strange = 0
    for row, made, before in zip(rows, mixed, free, strict=True):
        texts = [made.target, *(o.target for o in made.others)]
        if row.constrained:
            assert set("".join(texts)) <= set("abc漢")
            strange += not set(before.target) <= set("abc漢")
        else:
            assert made.target == before.target
    assert strange  # else nothing was shown


def test_widths_mix_in_a_batch_and_the_first_answers_stay(engine: TorchEngine) -> None:
    rows = [
        SourceRow(task, source, n_best)
        for source, n_best in (("a", 1), ("longer source", 3), ("字", 5))
        for task in ("one", "two")
    ]
    together = engine.generate(rows, Limits(max_tokens=10))
    for row, made in zip(rows, together, strict=True):
        alone = engine.generate([row], Limits(max_tokens=10))[0]
        answers = [(made.target, made.confidence), *made.others]
        assert len({target for target, _ in answers}) == len(answers) <= row.n_best
        assert (alone.target, alone.stop, alone.tokens) == (made.target, made.stop, made.tokens)
        assert [o.target for o in alone.others] == [o.target for o in made.others]
        assert [c for _, c in answers] == pytest.approx(
            [alone.confidence, *(o.confidence for o in alone.others)], rel=1e-3
        )


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


def test_a_beam_is_stopped_between_tokens(engine: TorchEngine) -> None:
    asked: list[int] = []

    def stop(row: int) -> Stop | None:
        asked.append(row)
        return "deadline" if row == 1 and asked.count(1) > 2 else None

    rows = [SourceRow("one", "first"), SourceRow("two", "second", 4)]
    first, second = engine.generate(rows, Limits(max_tokens=9, stop=stop))
    assert (second.stop, asked.count(1)) == ("deadline", 3)
    assert first.target == engine.generate(rows[:1], Limits(max_tokens=9))[0].target
