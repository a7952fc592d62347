"""What a search found, and the answers that come of it: the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgeseq_core.engine import Answer, Generation, Stop
from edgeseq_core.text.vocabulary import SymbolTable

LENGTH_POWER = 0.6

# Labels are smoothed while learning, and averaged weights are timid: a whole answer is right far more
# often than its probability says.  One number, fitted on the four demo tasks, where the expected
# calibration error was 34 to 44 points without it (benchmarks/model/confidence.py).  No greedy answer
# depends on it.
# Source: temperature scaling (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599, section 4.2).
TEMPERATURE = 0.75


class Hypothesis(NamedTuple):
    """Tokens without EOS, and the log-probability of all that was chosen, EOS included."""

    tokens: list[int]
    log_probability: float

    @property
    def merit(self) -> float:
        """What ended hypotheses are ranked by.

        >>> [round(Hypothesis([7] * n, -2.0).merit, 3) for n in (0, 6, 12)]
        [-2.0, -1.32, -1.035]
        """
        return self.log_probability / math.pow((6 + len(self.tokens)) / 6, LENGTH_POWER)


class Found(NamedTuple):
    """A row's hypotheses, best first (at least one, at most its width), and why it stopped."""

    hypotheses: Sequence[Hypothesis]
    stop: Stop


def generation(found: Found, table: SymbolTable, snapshot_id: str) -> Generation:
    """A row's hypotheses as text; of those that read the same, the best."""
    texts: dict[str, float] = {}
    for tokens, log_probability in found.hypotheses:
        texts.setdefault(table.decode(tokens), log_probability)
    (best, *others) = (Answer(text, math.exp(p)) for text, p in texts.items())
    return Generation(
        target=best.target,
        confidence=best.confidence,
        tokens=len(found.hypotheses[0].tokens),
        stop=found.stop,
        snapshot_id=snapshot_id,
        others=tuple(others),
    )
