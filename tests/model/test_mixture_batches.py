"""Batches: little padding on the lengths of the real mixture, equal outputs, a position to go on from."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from edgeseq_core.model.config import preset
from edgeseq_core.model.mixture_batches import Batch, MixtureBatches
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import EOS, FIRST_BYTE, FIRST_CHARACTER, PAD, Vocabulary

LENGTHS = Path(__file__).parent / "mixture_lengths.json"  # by benchmarks/model/batches.py
VOCABULARY = Vocabulary("abcdefgh")


def stream(
    pairs: list[list[tuple[str, str]]], *, batch: int = 2, byte_dropout: float = 0.0
) -> MixtureBatches:
    return MixtureBatches(
        pairs, VOCABULARY, batch=batch, size_exponent=0.5, byte_dropout=byte_dropout, seed=1
    )


@pytest.fixture(scope="module")
def real_lengths() -> list[Batch]:
    """One pool of pairs that are as long as those of the real mixture."""
    counts = json.loads(LENGTHS.read_text())
    pairs = [("a" * (s - 1), "b" * (t - 2)) for s, t, n in counts for _ in range(n)]
    return list(islice(stream([pairs], batch=32), 1_024))


def share_of_padding(rows: list[torch.Tensor]) -> float:
    return 1 - sum(int((r != PAD).sum()) for r in rows) / sum(r.numel() for r in rows)


def test_less_than_5_percent_is_padding(real_lengths: list[Batch]) -> None:
    assert share_of_padding([b.source for b in real_lengths]) < 0.05
    assert share_of_padding([b.target[:, 1:] for b in real_lengths]) < 0.05


def test_batches_have_about_equal_tokens_and_the_asked_number_of_pairs(
    real_lengths: list[Batch],
) -> None:
    tokens = sorted(b.source.numel() + b.target.numel() for b in real_lengths)
    assert tokens[-1] < 1.1 * tokens[len(tokens) // 2]
    pairs = sum(len(b.source) for b in real_lengths) / len(real_lengths)
    assert 29 < pairs <= 32


def test_the_longest_pair_alone_is_over_the_budget_and_still_given() -> None:
    pairs = [("a" * 60, "b" * 60)] + [("a", "b")] * 2_000
    longest = max(b.source.shape[1] for b in islice(stream([pairs], batch=4), 1_100))
    assert longest == 61


def test_a_padded_row_gives_what_it_gives_alone() -> None:
    torch.manual_seed(0)
    pairs = [("abc" * n, "cab" * (5 - n)) for n in range(1, 5)]
    trainee = Trainee.new(preset("128", vocabulary_size=len(VOCABULARY)), ["t"], VOCABULARY)
    batches = stream([pairs], batch=40)
    batch = next(b for b in batches if (b.source == PAD).any() and (b.target == PAD).any())
    with torch.no_grad():
        together = trainee(batch.source, batch.target[:, :-1], batch.tasks)
        for row in range(len(batch.source)):
            source = batch.source[row][batch.source[row] != PAD][None]
            target = batch.target[row][batch.target[row] != PAD][None]
            alone = trainee(source, target[:, :-1], batch.tasks[row : row + 1])
            assert torch.allclose(together[row, : alone.shape[1]], alone[0], atol=1e-5)


@pytest.mark.parametrize("given", [0, 1, 1_100])
def test_a_stream_goes_on_from_its_position(given: int) -> None:
    pairs = [[("abcd"[: 1 + n % 4] * (1 + n % 7), "ab" * (n % 5))] * 3 for n in range(40)]
    one = stream(pairs, byte_dropout=0.5)
    for _ in range(given):
        next(one)
    position = json.loads(json.dumps(one.position()))
    other = stream(pairs, byte_dropout=0.5)
    other.seek(position)
    for a, b in islice(zip(one, other, strict=True), 50):
        assert torch.equal(a.source, b.source)
        assert torch.equal(a.symbols, b.symbols)
        assert torch.equal(a.target, b.target)
        assert torch.equal(a.tasks, b.tasks)
        assert a.drawn == b.drawn


def test_rows_are_the_pairs_they_say() -> None:
    pairs = [[("abc", "de"), ("g", "h")], [("bb", "c")]]
    batch = next(stream(pairs))
    for source, (task, place) in zip(batch.source, batch.drawn, strict=True):
        assert source[source != PAD].tolist() == [*VOCABULARY.encode(pairs[task][place][0]), EOS]
    assert batch.tasks.tolist() == [task for task, _ in batch.drawn]


def test_small_tasks_are_drawn_more_often_than_their_share() -> None:
    pairs = [[("a", "b")] * 100, [("a", "b")] * 10_000]
    tasks = torch.cat([b.tasks for b in islice(stream(pairs, batch=64), 100)])
    assert 0.07 < float((tasks == 0).float().mean()) < 0.12  # 1 / 11, not 1 / 101


def test_byte_dropout_spells_characters() -> None:
    batches = islice(stream([[("abcdefgh", "a")]], byte_dropout=1.0), 50)
    ids = torch.cat([b.source[b.source > EOS] for b in batches])
    spelt = float((ids < FIRST_CHARACTER).float().mean())
    assert 0.25 < spelt < 0.4


def test_spelt_characters_stand_for_themselves() -> None:
    """And those that the vocabulary does not know stand for their bytes."""
    known = VOCABULARY.encode
    text = "ab字"
    batches = islice(stream([[(text, "a")]], byte_dropout=1.0), 50)
    met = set()
    for batch in batches:
        assert batch.symbols.shape == batch.source.shape
        both = zip(batch.source.tolist(), batch.symbols.tolist(), strict=True)
        met |= {(tuple(ids), tuple(symbols)) for ids, symbols in both}
    a, b, bytes_, end = known("a")[0], known("b")[0], known("字"), EOS
    spelt_a, spelt_b = FIRST_BYTE + ord("a"), FIRST_BYTE + ord("b")
    symbols = (a, b, *bytes_, end)
    assert met == {((i, j, *bytes_, end), symbols) for i in (a, spelt_a) for j in (b, spelt_b)}
