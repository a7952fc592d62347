"""What is said of a learner on a stream, from its scores alone.

``R`` is the accuracy matrix: ``R[i][j]`` is the score on the questions of phase j after phase i was learnt
(T phases, scores in % or as shares).  Sources: Lopez-Paz and Ranzato 2017 (arXiv 1706.08840, equations 2
to 4: average accuracy, backward and forward transfer), Chaudhry et al. 2018 (arXiv 1801.10112, equation 3:
forgetting), De Lange et al. 2023 (arXiv 2205.13452: worst case after a switch), Gama et al. 2013
(Machine Learning 90, section 3.2: fading prequential scores).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

Matrix = Sequence[Sequence[float]]
FADE = 0.995  # of a prequential score, an item: about the last 200 count
RECOVERY_FADE = 0.98  # the last 50: a recovery is told to about so many items
RECOVERY_WINDOW = 50  # items that tell it in hindsight
RECOVERED = 0.9  # of the level before a drift


def average_accuracy(scores: Matrix) -> float:
    """Mean score over all phases after the last: ``1/T sum_j R[T][j]``.

    >>> average_accuracy([[90, 10], [70, 80]])
    75.0
    """
    return fmean(scores[-1])


def backward_transfer(scores: Matrix) -> float:
    """What later phases did to earlier ones: ``1/(T-1) sum_{j<T} R[T][j] - R[j][j]``; negative: harm.

    >>> backward_transfer([[90, 10], [70, 80]])
    -20.0
    """
    return fmean(scores[-1][j] - scores[j][j] for j in range(len(scores) - 1))


def forward_transfer(scores: Matrix, untrained: Sequence[float]) -> float:
    """What earlier phases did for later ones: ``1/(T-1) sum_{j>1} R[j-1][j] - b[j]``, b untrained.

    >>> forward_transfer([[90, 10], [70, 80]], [0, 4])
    6.0
    """
    return fmean(scores[j - 1][j] - untrained[j] for j in range(1, len(scores)))


def forgetting(scores: Matrix) -> float:
    """Mean fall from the best score ever to the last: ``1/(T-1) sum_{j<T} max_{i<T} R[i][j] - R[T][j]``.

    >>> forgetting([[90, 10], [95, 80], [70, 60]])
    22.5
    """
    last = len(scores) - 1
    return fmean(max(row[j] for row in scores[:last]) - scores[last][j] for j in range(last))


class Check(NamedTuple):
    """Scores on the phases so far at some point inside phase ``phase``."""

    phase: int
    pairs: int  # of the phase, learnt
    scores: Sequence[float]  # of phases 0 to ``phase``


def worst_drop(scores: Matrix, checks: Iterable[Check]) -> float:
    """The deepest fall of an earlier phase's score, at any check, from what it was before the switch.

    >>> worst_drop([[90, 10], [85, 80]], [Check(1, 100, [40, 30]), Check(1, 200, [80, 70])])
    50.0
    """
    falls = [
        scores[check.phase - 1][j] - check.scores[j]
        for check in checks
        for j in range(min(check.phase, len(check.scores)))
    ]
    ends = [scores[i - 1][j] - scores[i][j] for i in range(1, len(scores)) for j in range(i)]
    return float(max([0.0, *falls, *ends]))


def fading(hits: Iterable[float], *, fade: float = FADE) -> list[float]:
    """Prequential score after each item: ``P_t = sum fade^(t-s) m_s / sum fade^(t-s)``.

    >>> [round(p, 3) for p in fading([1, 0, 1], fade=0.5)]
    [1.0, 0.333, 0.714]
    """
    total = weight = 0.0
    found = []
    for hit in hits:
        total, weight = fade * total + hit, fade * weight + 1
        found.append(total / weight)
    return found


def items_to_recover(
    hits: Sequence[float], drift: int, *, fade: float = RECOVERY_FADE
) -> int | None:
    """Items after a drift at ``drift`` until the fading score is back at 90 % of its level before.

    The score starts anew at the drift, so that what was right before does not count; after fewer items
    than it looks back on it says little, so that many are the least.  None: not by the end.

    >>> items_to_recover([1] * 50 + [0] * 10 + [1] * 40, 50, fade=0.5)
    14
    >>> items_to_recover([1] * 50 + [0] * 10, 50, fade=0.5) is None
    True
    """
    level = RECOVERED * fading(hits[:drift], fade=fade)[-1]
    least = round(1 / (1 - fade))
    for items, score in enumerate(fading(hits[drift:], fade=fade), start=1):
        if items >= least and score >= level:
            return items
    return None


def items_below(hits: Sequence[float], drift: int, *, window: int = RECOVERY_WINDOW) -> int | None:
    """Items after a drift at ``drift`` that came before the level was back, told in hindsight.

    Back is where the next ``window`` items are right as often as 90 % of the level before.  So, unlike
    `items_to_recover`, it is 0 when nothing is lost, and does not count what a fading score looks back on.
    None: not by the end.

    >>> items_below([1] * 50 + [0] * 10 + [1] * 40, 50, window=10)
    9
    >>> items_below([1] * 100, 50), items_below([1] * 50 + [0] * 60, 50)
    (0, None)
    """
    level = RECOVERED * fading(hits[:drift], fade=RECOVERY_FADE)[-1]
    after = hits[drift:]
    for items in range(len(after) - window + 1):
        if fmean(after[items : items + window]) >= level:
            return items
    return None


class Interval(NamedTuple):
    """A mean over seeds and half of its 95 % interval; NaN where one seed says nothing of chance."""

    mean: float
    half: float

    def __str__(self) -> str:
        """In few characters.

        >>> str(Interval(80.0, 3.2)), str(Interval(7.0, math.nan))
        ('80.0 ± 3.2', '7.0')
        """
        if math.isinf(self.mean):
            return "not reached"
        return f"{self.mean:.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean over seeds with Student's 95 % interval.

    >>> over_seeds([70.0, 72.0, 74.0]).mean, round(over_seeds([70.0, 72.0, 74.0]).half, 2)
    (72.0, 4.97)
    >>> str(over_seeds([120, math.inf]))  # one seed never got there
    'not reached'
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return Interval(fmean(values), math.nan)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), half)
