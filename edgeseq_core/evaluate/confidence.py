"""How far a model's confidence can be trusted: expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

BINS = 15


class Bin(NamedTuple):
    """Answers of about equal confidence: how many, how sure on average, and how many of them right."""

    answers: int
    confidence: float  # mean, 0 to 1
    accuracy: float  # 0 to 1


def confidence_bins(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = BINS
) -> list[Bin]:
    """Answers in order of confidence, in bins of equal mass (sizes differ by one at most).

    Source: Nguyen and O'Connor 2015, arXiv 1508.05154 (adaptive binning): bins of equal width
    leave most of them empty where a model is nearly always sure.

    >>> confidence_bins([0.2, 0.9, 0.8, 0.4], [False, True, True, True], bins=2)[1]
    Bin(answers=2, confidence=0.85, accuracy=1.0)
    """
    answers = sorted(zip(confidences, right, strict=True))
    found = []
    for at in range(bins):
        some = answers[at * len(answers) // bins : (at + 1) * len(answers) // bins]
        if some:
            sure = sum(confidence for confidence, _ in some) / len(some)
            found.append(Bin(len(some), round(sure, 12), sum(hit for _, hit in some) / len(some)))
    return found


def expected_calibration_error(
    confidences: Sequence[float], right: Sequence[bool], *, bins: int = BINS
) -> float:
    """The gap between confidence and accuracy, averaged over answers (0: can be trusted, to 1).

    Source: Naeini, Cooper, Hauskrecht 2015 (AAAI), here over bins of equal mass.  By chance alone, n
    answers that can be trusted show up to ``0.4 * sqrt(bins / n)``, less where they are nearly all right.

    >>> expected_calibration_error([1.0, 1.0, 0.5, 0.5], [True, True, True, False], bins=2)
    0.0
    >>> round(expected_calibration_error([0.9] * 10, [True] * 6 + [False] * 4, bins=1), 3)
    0.3
    """
    found = confidence_bins(confidences, right, bins=bins)
    answers = sum(one.answers for one in found)
    return sum(one.answers * abs(one.accuracy - one.confidence) for one in found) / max(1, answers)
