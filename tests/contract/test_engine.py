"""What every engine promises: answers, scores, mixed batches, limits, swaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.engine import Engine, Limits, PairRow, SourceRow, Stop
from edgeseq_core.errors import SnapshotError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.task_space import features
from tests.contract.engines import CASES, base_path, new_engine, payload

TASKS = ("one", "two", "three")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[Base, Path, str]:
    kind, shape = request.param
    path = base_path(folder, shape)
    return Base.load(path), path, kind


@pytest.fixture
def base(case: tuple[Base, Path, str]) -> Base:
    return case[0]


@pytest.fixture
def engine(case: tuple[Base, Path, str]) -> Engine:
    base, path, kind = case
    engine = new_engine(kind, path)
    # Depth, rank and number of task tokens differ from task to task.
    for seed, task in enumerate(TASKS):
        extra = {"rank": 2 + 3 * seed, "encoder_layers": 1 + seed, "extra_tokens": seed}
        engine.swap(task, f"{task}-1", payload(base, seed, **extra))
    return engine


def test_answers_do_not_depend_on_batch_neighbours(engine: Engine) -> None:
    sources = ("a", "a longer source", "ünseen 字", "x" * 40)
    rows = [SourceRow(task, source) for source in sources for task in TASKS]
    together = engine.generate(rows, Limits(max_tokens=12))
    alone = [engine.generate([row], Limits(max_tokens=12))[0] for row in rows]
    for a, b in zip(together, alone, strict=True):
        assert (a.target, a.stop, a.snapshot_id) == (b.target, b.stop, b.snapshot_id)
        assert a.confidence == pytest.approx(b.confidence, rel=1e-3)


def test_an_exact_score_is_what_greedy_decoding_answers(engine: Engine, base: Base) -> None:
    ended = 0
    for seed in range(1, 5):
        engine.swap("short", "short-1", payload(base, seed, row_bias=8.0))  # of its own symbols
        for source in ("abc", "hello there"):
            answer = engine.generate([SourceRow("short", source)], Limits(max_tokens=40))[0]
            if answer.stop != "end":
                continue
            ended += 1
            score = engine.score([PairRow("short", source, answer.target)])[0]
            assert score.exact
            assert score.tokens == answer.tokens + 1
            assert not engine.score([PairRow("short", source, answer.target + "!")])[0].exact
    assert ended


def test_scores_of_a_batch_are_those_of_its_rows(engine: Engine) -> None:
    rows = [
        PairRow(task, source, target)
        for task in TASKS
        for source, target in (("abc", "x漢"), ("other", "a long target"), ("", ""))
    ]
    for row, together in zip(rows, engine.score(rows), strict=True):
        (alone,) = engine.score([row])
        assert (together.tokens, together.exact) == (alone.tokens, alone.exact)
        assert together.loss == pytest.approx(alone.loss, rel=1e-4)


def test_a_row_is_stopped_between_tokens_without_stopping_others(engine: Engine) -> None:
    asked: list[int] = []

    def stop(row: int) -> Stop | None:
        asked.append(row)
        return "cancelled" if row == 0 and asked.count(0) > 3 else None

    rows = [SourceRow("one", "first"), SourceRow("two", "second")]
    first, second = engine.generate(rows, Limits(max_tokens=9, stop=stop))
    free = engine.generate(rows, Limits(max_tokens=9))
    assert (first.stop, first.tokens) == ("cancelled", 3)
    assert second.target == free[1].target


def test_a_beam_is_stopped_between_tokens(engine: Engine) -> None:
    asked: list[int] = []

    def stop(row: int) -> Stop | None:
        asked.append(row)
        return "deadline" if row == 1 and asked.count(1) > 2 else None

    rows = [SourceRow("one", "first"), SourceRow("two", "second", 4)]
    first, second = engine.generate(rows, Limits(max_tokens=9, stop=stop))
    assert (second.stop, asked.count(1)) == ("deadline", 3)
    assert first.target == engine.generate(rows[:1], Limits(max_tokens=9))[0].target


def test_an_error_while_asking_reaches_the_caller(engine: Engine) -> None:
    def stop(row: int) -> Stop | None:
        raise LookupError(row)

    with pytest.raises(LookupError):
        engine.generate([SourceRow("one", "first")], Limits(stop=stop))


def test_swap_replaces_one_task_and_drop_ends_it(engine: Engine, base: Base) -> None:
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


def test_bad_bytes_leave_the_champion_serving(engine: Engine) -> None:
    with pytest.raises(SnapshotError):
        engine.swap("one", "one-2", b"nonsense")
    assert engine.snapshot_id("one") == "one-1"


def test_a_constrained_answer_has_only_symbols_of_the_targets(engine: Engine) -> None:
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


def test_widths_mix_in_a_batch_and_the_first_answers_stay(engine: Engine) -> None:
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


def test_n_best_answers_are_ranked_as_their_scores_are(engine: Engine, base: Base) -> None:
    engine.swap("short", "short-1", payload(base, 1, row_bias=8.0))
    (made,) = engine.generate([SourceRow("short", "abc", 6)], Limits(max_tokens=40))
    answers = [(made.target, made.confidence), *made.others]
    assert made.stop == "end"
    assert len(answers) > 3
    scores = engine.score([PairRow("short", "abc", target) for target, _ in answers])
    assert sum(confidence for _, confidence in answers) <= 1 + 1e-6
    for length in {score.tokens for score in scores}:
        losses = [score.loss for score in scores if score.tokens == length]
        assert losses == sorted(losses)


TAUGHT = {
    "letters": [f"{a}{b} word" for a in "abcdefgh" for b in "stuvwxyz"],
    "digits": [f"{n}-{7 * n}" for n in range(64)],
}


def taught(base: Base, sources: list[str]) -> bytes:
    """A calibration that knows where its sources lie."""
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    with torch.no_grad():
        calibration.place = calibration.place.with_sources(features(base, sources))
    return calibration.to_payload(base.digest)


def test_a_source_belongs_to_the_task_whose_place_it_is_in(engine: Engine, base: Base) -> None:
    assert {inferred.task for inferred in engine.infer(["abc", "12"])} == {None}
    for task, sources in TAUGHT.items():
        engine.swap(task, f"{task}-1", taught(base, sources))
    for task, sources in TAUGHT.items():
        found = [inferred.task for inferred in engine.infer(sources)]
        assert set(found) <= {task, None}
        assert found.count(task) > len(found) / 2


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["config"].update(rank=-1),
        lambda h: h["config"].update(rank=3),
        lambda h: h["config"].update(rank=1 << 40),
        lambda h: h["config"].update(encoder_layers=99),
        lambda h: h["config"].update(extra_tokens=1 << 40),
        lambda h: h["config"].update(extra_tokens="1"),
        lambda h: h["config"].update(most_rows="9"),
        lambda h: h["config"].update(most_rows=-1),
        lambda h: h.update(rows=[5] * len(h["rows"])),
        lambda h: h.update(rows=[-1] * len(h["rows"])),
        lambda h: h.update(rows=[1 << 40] * len(h["rows"])),
        lambda h: h.update(symbols=[""]),
        lambda h: h.update(symbols=None),
        lambda h: h.update(source_rows=[5]),
        lambda h: h.update(source_rows=[-1]),
        lambda h: h.update(source_symbols=3),
        lambda h: h.update(base="0" * 64),
        lambda h: h.pop("config"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    engine: Engine, base: Base, change: Callable[[dict[str, Any]], object]
) -> None:
    good = payload(base, 0)
    length = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + length])
    stated = json.loads(header["__metadata__"]["header"])
    change(stated)
    text = json.dumps(header | {"__metadata__": {"header": json.dumps(stated)}}).encode()
    with pytest.raises(SnapshotError):
        engine.swap("one", "bad", len(text).to_bytes(8, "little") + text + good[8 + length :])
    assert engine.snapshot_id("one") == "one-1"


def test_an_unloaded_task_is_known_but_answers_no_more(engine: Engine, base: Base) -> None:
    assert engine.held_bytes("one") > 0
    assert engine.held_bytes("nobody") == 0
    bytes_of = {task: taught(base, sources) for task, sources in TAUGHT.items()}
    for task, data in bytes_of.items():
        engine.swap(task, f"{task}-1", data)
    sources = [source for some in TAUGHT.values() for source in some]
    before = engine.infer(sources)
    assert len({inferred.task for inferred in before}) > 1
    answer = engine.generate([SourceRow("letters", "abc")], Limits(max_tokens=9))
    engine.unload("letters")
    assert (engine.snapshot_id("letters"), engine.held_bytes("letters")) == (None, 0)
    with pytest.raises(KeyError):
        engine.generate([SourceRow("letters", "abc")], Limits())
    assert engine.infer(sources) == before
    engine.drop("letters")
    assert "letters" not in {inferred.task for inferred in engine.infer(sources)}
    engine.know("letters", bytes_of["letters"])
    assert engine.infer(sources) == before
    assert engine.snapshot_id("letters") is None
    engine.swap("letters", "letters-1", bytes_of["letters"])
    assert engine.generate([SourceRow("letters", "abc")], Limits(max_tokens=9)) == answer
    with pytest.raises(SnapshotError):
        engine.know("letters", b"nonsense")
    assert engine.snapshot_id("letters") == "letters-1"


def test_a_larger_snapshot_is_said_to_take_more_memory(engine: Engine, base: Base) -> None:
    engine.swap("small", "small-1", payload(base, 1, rank=1))
    engine.swap("large", "large-1", payload(base, 1, rank=16))
    assert engine.held_bytes("large") > engine.held_bytes("small")
