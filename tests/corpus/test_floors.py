"""The suffix-rule floor: per tag, longest suffix first, and honest on real data."""

from __future__ import annotations

from itertools import islice

import pytest

from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.evaluate.floors import SuffixRules, accuracy, copy_source
from tests.corpus.need import need


def test_the_longest_suffix_wins_over_the_frequent_one() -> None:
    rules = SuffixRules()
    rules.learn_many([("cat NNS", "cats"), ("hat NNS", "hats"), ("box NNS", "boxes")])
    assert rules.predict_one("fox NNS") == "foxes"
    assert rules.predict_one("dog NNS") == "dogs"
    assert rules.predict_one("fox VBG") == "fox"


def test_an_empty_floor_copies() -> None:
    assert SuffixRules().predict_one("walk VBZ") == copy_source("walk VBZ") == "walk"


@pytest.mark.parametrize(
    ("name", "package", "low", "high"),
    [("spanish-verbs", "verbecc", 0.93, 1.0), ("german-plurals", "german_nouns", 0.82, 0.95)],
)
def test_the_floor_on_real_tasks(name: str, package: str, low: float, high: float) -> None:
    need(package)
    task = DEMO_TASKS[name]
    rules = SuffixRules()
    rules.learn_many((e.source, e.target) for e in islice(task.train(1), 2000))
    test = task.held_out(500, 1)
    score = accuracy([rules.predict_one(e.source) for e in test], [e.target for e in test])
    assert low < score < high
