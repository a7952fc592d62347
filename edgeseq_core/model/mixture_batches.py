"""Batches of pairs of many tasks: little padding, about equal work a step, a position to resume from.

A pool of pairs is drawn, put in order of source length and then target length, and cut so that a batch
has about as many tokens as any other; the cuts come in random order.  On the lengths of the real
mixture under 2 % of the tokens are padding (``benchmarks/model/batches.py``).  Pairs of one length are
much alike, so a training step takes several batches.

Why not true packing (several pairs in one row, block-diagonal masks; NaViT, arXiv 2307.06304): it would
save those few per cent more, but attention would be computed between pairs that may not see each other,
and every row has task tokens and a task vector of its own, which would have to be gathered per token.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgeseq_core.model.batch import pad
from edgeseq_core.text.vocabulary import BOS, EOS, FIRST_BYTE, Vocabulary

Pairs = Sequence[tuple[str, str]]

POOL_BATCHES = 1_024  # the larger the pool, the less padding
SOURCE_BIN = 2  # source lengths in one run of target lengths; trades source for target padding


@dataclass(frozen=True)
class Batch:
    """Rows of several tasks, padded with PAD."""

    source: Tensor  # [B, S], each row ends with EOS
    symbols: Tensor  # [B, S], the target symbol that each source token stands for, to be copied
    target: Tensor  # [B, T + 1], each row from BOS to EOS
    tasks: Tensor  # [B], index of each row's task
    drawn: Sequence[tuple[int, int]]  # (task, place in its pairs) of each row

    def to(self, device: torch.device) -> Batch:
        """The same rows on a device."""
        tensors = (self.source, self.symbols, self.target, self.tasks)
        source, symbols, target, tasks = (tensor.to(device) for tensor in tensors)
        return Batch(source, symbols, target, tasks, self.drawn)


@dataclass(frozen=True)
class _Row:
    source: list[int]
    symbols: list[int]
    target: list[int]
    task: int
    place: int

    def order(self) -> tuple[int, int, int]:
        """Target lengths rise in one bin of source lengths and fall in the next: no jump between."""
        group, length = len(self.source) // SOURCE_BIN, len(self.target)
        return group, length if group % 2 else -length, len(self.source)


class MixtureBatches(Iterator[Batch]):
    """An endless stream; task ``t`` is drawn with probability ~ ``pairs ** size_exponent``.

    ``batch`` is the mean number of pairs in a batch: one of short pairs has more, one of long pairs
    fewer.  ``byte_dropout`` is the share of sources of which some characters are spelt as bytes.
    """

    def __init__(
        self,
        pairs: Sequence[Pairs],
        vocabulary: Vocabulary,
        *,
        batch: int,
        size_exponent: float,
        byte_dropout: float,
        seed: int,
    ) -> None:
        self._pairs, self._vocabulary, self._batch = pairs, vocabulary, batch
        self._shares = [len(one) ** size_exponent for one in pairs]
        self._byte_dropout = byte_dropout
        self._random = random.Random(seed)
        self._drawn_from = self._random.getstate()
        self._pool: list[list[_Row]] = []
        self._given = 0

    def __next__(self) -> Batch:
        if self._given == len(self._pool):
            self._drawn_from, self._given = self._random.getstate(), 0
            self._pool = self._draw()
        rows = self._pool[self._given]
        self._given += 1
        return Batch(
            pad([row.source for row in rows]),
            pad([row.symbols for row in rows]),
            pad([row.target for row in rows]),
            torch.tensor([row.task for row in rows]),
            [(row.task, row.place) for row in rows],
        )

    def position(self) -> dict[str, Any]:
        """Where the stream is, as JSON: the random state its pool was drawn from, and batches given."""
        version, numbers, _ = self._drawn_from
        return {"version": version, "random": list(numbers), "given": self._given}

    def seek(self, position: Mapping[str, Any]) -> None:
        """Go on from a position of a stream over the same pairs with the same settings."""
        self._drawn_from = position["version"], tuple(position["random"]), None
        self._random.setstate(self._drawn_from)
        self._pool, self._given = self._draw(), position["given"]

    def _draw(self) -> list[list[_Row]]:
        tasks = self._random.choices(
            range(len(self._pairs)), self._shares, k=POOL_BATCHES * self._batch
        )
        rows = sorted((self._row(task) for task in tasks), key=_Row.order)
        tokens = sum(len(row.source) + len(row.target) for row in rows)
        batches = list(_cut(rows, tokens // POOL_BATCHES))
        self._random.shuffle(batches)
        return batches

    def _row(self, task: int) -> _Row:
        place = self._random.randrange(len(self._pairs[task]))
        source, target = self._pairs[task][place]
        spelt = self._random.random() < self._byte_dropout
        known = self._vocabulary.encode(source)
        ids, symbols = self._spell(source) if spelt else (known, known)
        wanted = [BOS, *self._vocabulary.encode(target), EOS]
        return _Row([*ids, EOS], [*symbols, EOS], wanted, task, place)

    def _spell(self, text: str) -> tuple[list[int], list[int]]:
        """Ids with about a third of the characters as bytes, so that the rows of bytes are trained.

        Beside them the symbol that each stands for: a spelt character can be copied as the character.
        """
        ids: list[int] = []
        symbols: list[int] = []
        for character in text:
            known = self._vocabulary.encode(character)
            if self._random.random() < 1 / 3:
                spelt = [FIRST_BYTE + byte for byte in character.encode()]
                ids.extend(spelt)
                symbols.extend(known * len(spelt) if len(known) == 1 else known)
            else:
                ids.extend(known)
                symbols.extend(known)
        return ids, symbols


def _cut(rows: Sequence[_Row], tokens: int) -> Iterator[list[_Row]]:
    """Runs of rows that have at most ``tokens`` tokens with their padding (one row may have more)."""
    batch: list[_Row] = []
    source = target = 0
    for row in rows:
        source, target = max(source, len(row.source)), max(target, len(row.target))
        if batch and (source + target) * (len(batch) + 1) > tokens:
            yield batch
            batch, source, target = [], len(row.source), len(row.target)
        batch.append(row)
    yield batch
