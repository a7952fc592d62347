"""How a task gets more task tokens without a change of any output: by splitting those it has.

A token and its copy draw the attention of the original together when each gets ``log 2`` less on its score:
``e^(l - log 2) + e^(l - log 2) = e^l``.  Splits are even and take the largest share first, so that the
number of splits tells all of them.  After one, the two learn apart (the copy's moments start at zero).

Source: the splitting of units in Net2Net (Chen, Goodfellow, Shlens 2016, arXiv 1511.05641, section 2.2),
here of keys and values.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Splits(NamedTuple):
    """What came of a number of splits."""

    origins: list[int]  # of each added token: the token it was copied from
    scores: list[float]  # of every token: what is added to its attention scores, nats


def split(tokens: int, extra: int) -> Splits:
    """``extra`` splits of ``tokens`` tokens, one after another.

    >>> split(2, 3).origins
    [0, 1, 0]
    >>> [round(math.exp(score), 3) for score in split(2, 3).scores]
    [0.25, 0.5, 0.5, 0.5, 0.25]
    """
    halvings, origins = [0] * tokens, []
    for _ in range(extra):
        origin = min(range(len(halvings)), key=halvings.__getitem__)
        halvings[origin] += 1
        halvings.append(halvings[origin])
        origins.append(origin)
    return Splits(origins, [-math.log(2) * halved for halved in halvings])
