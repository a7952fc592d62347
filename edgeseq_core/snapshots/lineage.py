"""Which steps a snapshot descends from, when rollbacks forked the learner."""

from __future__ import annotations

from collections.abc import Sequence


def descends_from(step: int, ancestor: int, forks: Sequence[tuple[int, int]]) -> bool:
    """Whether what ``ancestor`` trained is part of ``step``.

    A fork ``(last, base)`` says: steps after ``last`` grew from step ``base``.  Step numbers are
    never used twice, so the last fork before a step names the piece of history it stands on.

    >>> forks = [(10, 5)]  # ten steps, then back to step 5; the next step is 11
    >>> [descends_from(12, ancestor, forks) for ancestor in (5, 6, 10, 11, 12, 13)]
    [True, False, False, True, True, False]
    """
    for last, base in reversed(forks):
        if last < step:
            if ancestor > last:
                return ancestor <= step
            step = base
    return ancestor <= step
