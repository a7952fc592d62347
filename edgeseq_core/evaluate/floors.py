"""Two trivial predictors every learned model must beat: copy the source, and suffix rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

LONGEST_SUFFIX = 8  # characters of the lemma a rule looks at


def copy_source(source: str) -> str:
    """Return the source itself, without a tag after the last blank.

    >>> copy_source("walk VBZ"), copy_source("Haus")
    ('walk', 'Haus')
    """
    return _parts(source)[0]


class SuffixRules:
    """Replace the longest known suffix as the training pairs did most often, per tag.

    >>> rules = SuffixRules()
    >>> rules.learn_many([("walk VBZ", "walks"), ("try VBZ", "tries"), ("cry VBZ", "cries")])
    >>> [rules.predict_one(source) for source in ("talk VBZ", "fly VBZ", "fly VBG")]
    ['talks', 'flies', 'fly']
    """

    def __init__(self) -> None:
        # tag -> suffix of the lemma -> (characters cut, text appended) -> times seen
        self._rules: dict[str, dict[str, Counter[tuple[int, str]]]] = defaultdict(
            lambda: defaultdict(Counter)
        )

    def learn_many(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Count the edits that (source, target) pairs show."""
        for source, target in pairs:
            lemma, tag = _parts(source)
            same = 0
            while same < min(len(lemma), len(target)) and lemma[same] == target[same]:
                same += 1
            cut, appended = len(lemma) - same, target[same:]
            for length in range(cut, max(cut, min(len(lemma), LONGEST_SUFFIX)) + 1):
                self._rules[tag][lemma[len(lemma) - length :]][cut, appended] += 1

    def size_bytes(self) -> int:
        """What the rules take at the least: their texts in UTF-8, and two bytes for each count."""
        return sum(
            len(suffix.encode()) + sum(len(new.encode()) + 3 for _, new in edits)
            for rules in self._rules.values()
            for suffix, edits in rules.items()
        )

    def predict_one(self, source: str) -> str:
        """Return the target the longest matching suffix suggests, else the lemma."""
        lemma, tag = _parts(source)
        rules = self._rules.get(tag, {})
        for start in range(len(lemma) + 1):
            edits = rules.get(lemma[start:])
            if edits:
                # Ties go to the smaller edit text, so that the order of pairs decides nothing.
                (cut, appended), _ = min(edits.items(), key=lambda item: (-item[1], item[0]))
                return lemma[: len(lemma) - cut] + appended
        return lemma


def accuracy(predictions: Iterable[str], targets: Iterable[str]) -> float:
    """Return the share of predictions that equal their target (0 to 1).

    >>> accuracy(["a", "b"], ["a", "c"])
    0.5
    """
    hits = [prediction == target for prediction, target in zip(predictions, targets, strict=True)]
    return sum(hits) / len(hits) if hits else 0.0


def _parts(source: str) -> tuple[str, str]:
    """Return (lemma, tag) of "lemma tag"; a source of several blanks or none has no tag."""
    lemma, _, tag = source.rpartition(" ")
    return (lemma, tag) if lemma and " " not in lemma else (source, "")
