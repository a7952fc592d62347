"""What a corpus task is: examples, tasks to demonstrate with, tasks to pretrain a base on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from edgeseq_core.corpus.held_out import is_held_out

MAX_SOURCE = 48  # characters
MAX_TARGET = 48  # characters
MAX_DEMO_TARGET = 24  # characters


class Example(NamedTuple):
    """One pair to learn; ``key`` is the text whose hash decides whether it is held out."""

    source: str
    target: str
    key: str


@dataclass(frozen=True)
class DemoTask:
    """A task shown to users: ``pairs(seed)`` yields all its examples in a seeded order."""

    name: str
    description: str
    pairs: Callable[[int], Iterable[Example]]

    def train(self, seed: int) -> Iterator[Example]:
        """Yield the examples that may be trained on, in the order of ``seed``."""
        return (example for example in self._short(seed) if not is_held_out(example.key))

    def held_out(self, n: int, seed: int) -> list[Example]:
        """Return the first ``n`` held-out examples in the order of ``seed``."""
        return list(islice((e for e in self._short(seed) if is_held_out(e.key)), n))

    def _short(self, seed: int) -> Iterator[Example]:
        """Yield examples that fit the length limits, each source once."""
        seen: set[str] = set()
        for example in self.pairs(seed):
            fits = len(example.source) <= MAX_SOURCE and len(example.target) <= MAX_DEMO_TARGET
            if fits and example.target and example.source not in seen:
                seen.add(example.source)
                yield example


@dataclass(frozen=True)
class BaseTask:
    """A task to pretrain on; ``raw`` yields candidates before any filter."""

    name: str
    raw: Callable[[], Iterable[Example]]

    def examples(self) -> Iterable[Example]:
        """Yield the candidates; ``filters.allowed`` decides centrally which may be used."""
        return self.raw()


def shuffled(examples: Iterable[Example], seed: int | str) -> list[Example]:
    """Return the examples in an order that depends on ``seed`` only.

    >>> pairs = [Example(c, c, c) for c in "abcd"]
    >>> "".join(e.source for e in shuffled(pairs, 1))
    'dacb'
    """
    result = list(examples)
    random.Random(seed).shuffle(result)
    return result
