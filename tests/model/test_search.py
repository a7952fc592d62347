"""Beam search against a search of everything, on models small enough for that."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from edgeseq_core.engine import Limits, Stop
from edgeseq_core.model.answers import Hypothesis
from edgeseq_core.model.search import search
from edgeseq_core.text.vocabulary import BOS, EOS

SYMBOLS = range(3, 6)
SIZE = 6
LONGEST = 4


def next_symbol(history: tuple[int, ...], seed: int) -> Tensor:
    """Log-probabilities of the next symbol; they depend on all that came before."""
    draw = torch.Generator().manual_seed(hash((history, seed)) % 2**31)
    scores = 2 * torch.randn(SIZE, generator=draw)
    scores[[0, BOS]] = -torch.inf
    return scores.log_softmax(-1)


def network(seeds: list[int]) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A step that keeps each place's history, as the cache does."""
    histories: list[tuple[int, ...]] = [() for _ in seeds]

    def step(tokens: Tensor, parents: Tensor | None) -> Tensor:
        origin = range(len(seeds)) if parents is None else parents.tolist()
        histories[:] = [
            (*histories[at], token) for at, token in zip(origin, tokens[:, 0].tolist(), strict=True)
        ]
        return torch.stack(
            [next_symbol(history[1:], seed) for history, seed in zip(histories, seeds, strict=True)]
        )

    return step


def log_probability(tokens: tuple[int, ...], seed: int) -> float:
    whole = (*tokens, EOS)
    return sum(float(next_symbol(whole[:at], seed)[token]) for at, token in enumerate(whole))


def everything(seed: int) -> list[Hypothesis]:
    """Every sequence of less than the longest length, best first."""
    sequences = (s for n in range(LONGEST) for s in product(SYMBOLS, repeat=n))
    found = [Hypothesis(list(s), log_probability(s, seed)) for s in sequences]
    return sorted(found, key=lambda one: -one.merit)


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_as_wide_as_the_space_finds_the_best_in_order(seed: int) -> None:
    wanted = everything(seed)
    width = len(wanted) + 3**LONGEST  # nothing is ever cut away
    (found,) = search(network([seed] * width), [width], Limits(max_tokens=LONGEST))
    assert [one.tokens for one in found.hypotheses] == [one.tokens for one in wanted]
    for made, exact in zip(found.hypotheses, wanted, strict=True):
        assert made.log_probability == pytest.approx(exact.log_probability, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_one_answer_is_the_likeliest_symbol_each_time(seed: int) -> None:
    tokens: list[int] = []
    while len(tokens) < 12 and (best := int(next_symbol(tuple(tokens), seed).argmax())) != EOS:
        tokens.append(best)
    (found,) = search(network([seed]), [1], Limits(max_tokens=12))
    assert found.hypotheses[0].tokens == tokens
    assert found.stop == ("end" if len(tokens) < 12 else "length")


def test_rows_of_different_widths_share_a_batch_without_changing_each_other() -> None:
    widths = [1, 4, 2, 1, 8]
    seeds = [row for row, width in enumerate(widths) for _ in range(width)]
    together = search(network(seeds), widths, Limits(max_tokens=10))
    for row, width in enumerate(widths):
        (alone,) = search(network([row] * width), [width], Limits(max_tokens=10))
        assert together[row] == alone
        assert len(alone.hypotheses) <= width


def test_what_is_found_has_the_probability_of_its_own_history() -> None:
    for seed in range(5):
        (found,) = search(network([seed] * 4), [4], Limits(max_tokens=30))
        assert found.stop == "end"
        merits = [one.merit for one in found.hypotheses]
        assert merits == sorted(merits, reverse=True)
        for one in found.hypotheses:
            exact = log_probability(tuple(one.tokens), seed)
            assert one.log_probability == pytest.approx(exact, abs=1e-4)


def test_a_wider_beam_finds_what_is_likelier() -> None:
    def best(seed: int, width: int) -> float:
        (found,) = search(network([seed] * width), [width], Limits(max_tokens=30))
        return max(one.log_probability for one in found.hypotheses)

    assert all(best(seed, 8) >= best(seed, 1) - 1e-6 for seed in range(20))
    assert any(best(seed, 8) > best(seed, 1) + 0.1 for seed in range(20))


def test_beginnings_of_a_sure_answer_do_not_end_the_search() -> None:
    steps = 0

    def sure(tokens: Tensor, _parents: Tensor | None) -> Tensor:
        """Nine times the same symbol, then EOS, each with 97 %; every time EOS is next likely."""
        nonlocal steps
        steps += 1
        share = torch.full((len(tokens), 8), 0.001)
        share[:, EOS], share[:, 5] = (0.97, 0.02) if steps > 9 else (0.02, 0.97)
        return share.log()

    (found,) = search(sure, [4], Limits(max_tokens=30))
    assert found.hypotheses[0].tokens == [5] * 9
    assert found.hypotheses[0].log_probability == pytest.approx(10 * math.log(0.97), abs=1e-5)
    assert found.stop == "end"
    assert steps < 14


def test_each_row_is_asked_once_a_step_and_stops_alone() -> None:
    asked: list[int] = []

    def stop(row: int) -> Stop | None:
        asked.append(row)
        return "deadline" if row == 0 and asked.count(0) > 2 else None

    def endless(tokens: Tensor, _parents: Tensor | None) -> Tensor:
        scores = torch.full((len(tokens), SIZE), -math.inf)
        scores[:, [3, 4]] = math.log(0.5)
        return scores

    first, second = search(endless, [3, 2], Limits(max_tokens=5, stop=stop))
    assert (first.stop, second.stop) == ("deadline", "length")
    assert [len(one.tokens) for one in first.hypotheses] == [2, 2, 2]
    assert [len(one.tokens) for one in second.hypotheses] == [5, 5]
    assert (asked.count(0), asked.count(1)) == (3, 5)


def test_a_row_ends_when_nothing_can_go_on() -> None:
    def one_way(tokens: Tensor, _parents: Tensor | None) -> Tensor:
        scores = torch.full((len(tokens), SIZE), -math.inf)
        scores[:, EOS] = 0.0
        return scores

    (found,) = search(one_way, [4], Limits(max_tokens=9))
    assert found == ([Hypothesis([], 0.0)], "end")
