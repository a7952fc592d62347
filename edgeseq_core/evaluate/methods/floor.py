"""The floor: suffix rules, forty lines that know nothing and learn regular endings from a few pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.evaluate.floors import SuffixRules
from edgeseq_core.evaluate.methods.method import Stored, Terms


class Floor:
    """Rules for each task; no model, no buffer, no base."""

    online: ClassVar[bool] = True

    def __init__(self, _terms: Terms) -> None:
        self._rules: dict[str, SuffixRules] = defaultdict(SuffixRules)

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        self._rules[task].learn_many(pairs)

    def end(self, *, last: bool) -> None:
        """Rules stay."""

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        return [self._rules[task].predict_one(source) for source in sources]

    def stored(self) -> Stored:
        return Stored(sum(rules.size_bytes() for rules in self._rules.values()), 0)
