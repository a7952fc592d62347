"""The best few answers to every row of a batch; a row that asks for one is decoded greedily.

A row of width ``n`` holds ``n`` places of the batch, one for each hypothesis that is still open, so rows of
different widths share every step of the network.  A hypothesis ends when EOS is among the row's ``n``
best continuations, and the row when ``n`` have ended than which no open one is better.  (To stop at the
first ``n``, as fairseq does, lets a sure model's row end on beginnings of its answer.)  Those of
different lengths are compared by ``log p / ((5 + tokens) / 6) ** 0.6`` (Wu et al. 2016, arXiv
1609.08144, equation 14, without coverage).

Shapes: N places (the sum of all widths), V symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import itemgetter

import torch
from torch import Tensor

from edgeseq_core.engine import Limits, Stop
from edgeseq_core.model.answers import Found, Hypothesis
from edgeseq_core.text.vocabulary import BOS, EOS, PAD

#: Log-probabilities ``[N, V]`` after one more token ``[N, 1]`` a place.  Before it reads the token, a place
#: takes over what the place named in ``parents [N]`` has read; None: every place goes on with its own.
Step = Callable[[Tensor, Tensor | None], Tensor]


def search(step: Step, widths: Sequence[int], limits: Limits) -> list[Found]:
    """Decode all rows together until each has stopped; ``limits.stop`` is asked once a row and step."""
    starts = [0, *accumulate(widths)]
    beams, count = [_Beam(*row) for row in zip(starts, widths, strict=False)], starts[-1]
    # One candidate more than the widest row has places: the best of them may be EOS.
    reach = 1 if max(widths) == 1 else max(widths) + 1
    tokens, scores = torch.full((count, 1), BOS), torch.zeros(count)
    parents: Tensor | None = None
    for _ in range(limits.max_tokens):
        for row, beam in enumerate(beams):
            beam.stop = beam.stop or limits.stop(row)
        if all(beam.stop for beam in beams):
            break
        best, ids = _best(step(tokens, parents), reach)
        totals = scores[:, None] + best
        likely, symbols = totals.tolist(), ids.tolist()
        placed = [p for beam in beams if not beam.stop for p in beam.advance(likely, symbols)]
        if reach == 1:  # each place goes on with the one it has
            tokens, scores = ids, totals[:, 0]
        else:
            tokens, scores, parents = _places(placed, count)
    return [beam.found() for beam in beams]


class _Beam:
    """One row: the hypotheses that are open, in the order of its places, and those that have ended."""

    def __init__(self, start: int, width: int) -> None:
        self.start, self.width = start, width
        self.open: list[tuple[list[int], float]] = [([], 0.0)]  # tokens, log-probability
        self.ended: list[Hypothesis] = []
        self.stop: Stop | None = None

    def advance(
        self, totals: list[list[float]], symbols: list[list[int]]
    ) -> list[tuple[int, int, float, int]]:
        """Keep the best continuations, given candidates a place; equal ones keep their order.

        Returns (place, symbol, log-probability, place it continues) of each that stays open.
        """
        candidates = [
            (total, place, symbol)
            for place in range(self.start, self.start + len(self.open))
            for total, symbol in zip(totals[place], symbols[place], strict=True)
        ]
        if len(candidates) > 1:
            candidates.sort(key=itemgetter(0), reverse=True)
        former, self.open, placed = self.open, [], []
        for rank, (total, origin, symbol) in enumerate(candidates):
            if total == -torch.inf:
                break
            tokens, _ = former[origin - self.start]
            if symbol == EOS:
                if rank < self.width:
                    self.ended.append(Hypothesis(tokens, total))
            elif len(self.open) < self.width:
                placed.append((self.start + len(self.open), symbol, total, origin))
                self.open.append(([*tokens, symbol], total))
        if not self.open or self._cannot_gain():
            self.stop = "end"
        return placed

    def _cannot_gain(self) -> bool:
        """Whether as many as wanted have ended, all better than the best open one is by now."""
        if len(self.ended) < self.width:
            return False
        merits = sorted((ended.merit for ended in self.ended), reverse=True)
        return self.width == 1 or Hypothesis(*self.open[0]).merit <= merits[self.width - 1]

    def found(self) -> Found:
        """The best that ended; while none has, what is open."""
        if self.ended:
            best = sorted(self.ended, key=lambda ended: -ended.merit)[: self.width]
            return Found(best, self.stop or "end")
        return Found([Hypothesis(*one) for one in self.open], self.stop or "length")


def _places(placed: list[tuple[int, int, float, int]], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens ``[N, 1]``, scores ``[N]`` and parents ``[N]`` for the next step; a place without is idle."""
    tokens, scores, parents = [PAD] * count, [0.0] * count, list(range(count))
    for place, symbol, total, origin in placed:
        tokens[place], scores[place], parents[place] = symbol, total, origin
    return torch.tensor(tokens)[:, None], torch.tensor(scores), torch.tensor(parents)


def _best(log_probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best symbols of each place, best first; fewer where there are fewer."""
    if count == 1:
        return log_probabilities.max(-1, keepdim=True)
    return log_probabilities.topk(min(count, log_probabilities.shape[-1]))
