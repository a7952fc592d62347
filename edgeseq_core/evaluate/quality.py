"""How good a list of answers is: exact, and by the measure that a task's field uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgeseq_core.corpus.streams import Metric, Question
from edgeseq_core.errors import MissingExtraError


class Quality(NamedTuple):
    """In %: answers that are exactly right, and ``detail`` (more is better), see `DETAIL`."""

    exact: float
    detail: float


#: What ``detail`` is for each kind of task.
DETAIL: dict[Metric, str] = {
    "exact": "exact",
    "phones": "100 - phone error rate",
    "text": "chrF",
}


def quality(metric: Metric, answers: Sequence[str], questions: Sequence[Question]) -> Quality:
    """Score ``answers`` to ``questions``; raises MissingExtraError without the extra `bench`."""
    exact = hits(answers, questions)
    share = 100 * sum(exact) / len(exact)
    if metric == "phones":
        return Quality(share, 100 - phone_error_rate(answers, questions))
    if metric == "text":
        return Quality(share, chrf(answers, questions))
    return Quality(share, share)


def hits(answers: Sequence[str], questions: Sequence[Question]) -> list[bool]:
    """Which answers are right."""
    return [a in q.answers for a, q in zip(answers, questions, strict=True)]


def phone_error_rate(answers: Sequence[str], questions: Sequence[Question]) -> float:
    """Phones to change, add or drop, in % of those of the nearest right answer."""
    distance = _edit_distance()
    wrong = length = 0
    for answer, question in zip(answers, questions, strict=True):
        edits, reference = min(
            (distance(answer.split(), right.split()), len(right.split()))
            for right in question.answers
        )
        wrong, length = wrong + edits, length + reference
    return 100 * wrong / length


def chrf(answers: Sequence[str], questions: Sequence[Question]) -> float:
    """chrF of all answers together (Popović 2015; sacrebleu's defaults), against the usual answers."""
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    score: float = CHRF().corpus_score(answers, [[q.answers[0] for q in questions]]).score
    return score


def _edit_distance() -> Callable[[Sequence[str], Sequence[str]], int]:
    try:
        from rapidfuzz.distance import Levenshtein
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    distance: Callable[[Sequence[str], Sequence[str]], int] = Levenshtein.distance
    return distance


def _missing(error: ModuleNotFoundError) -> MissingExtraError:
    return MissingExtraError(str(error.name), "install it with pip install 'edgeseq[bench]'")
