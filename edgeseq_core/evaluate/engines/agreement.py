"""Whether engines with the same weights say the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple


class Alike(NamedTuple):
    """How much of an engine's answers are those of PyTorch in fp32."""

    whole: str = ""  # so many of so many sources
    symbols: float | None = None  # share before the first that differs


def compare(answers: Sequence[str] | None, reference: Sequence[str]) -> Alike:
    """Answers one by one; an engine with another network has none.

    >>> compare(["abcd", "abxd"], ["abcd", "abcd"])
    Alike(whole='1 of 2', symbols=0.75)
    """
    if answers is None:
        return Alike("another network")
    pairs = list(zip(answers, reference, strict=True))
    same = [
        sum(1 for _ in takewhile(lambda one: one[0] == one[1], zip(own, wanted, strict=False)))
        for own, wanted in pairs
    ]
    whole = sum(own == wanted for own, wanted in pairs)
    return Alike(f"{whole} of {len(pairs)}", sum(same) / sum(map(len, reference)))
