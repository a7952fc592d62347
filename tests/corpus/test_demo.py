"""The demonstration tasks: honest splits, fixed orders, short texts, known answers."""

from __future__ import annotations

import datetime
import re
from itertools import islice

import pytest

from edgeseq_core.corpus.demo import DEMO_TASKS, date_order_flip, dates_task
from edgeseq_core.corpus.examples import MAX_DEMO_TARGET, MAX_SOURCE
from edgeseq_core.corpus.held_out import is_held_out
from tests.corpus.need import need

need("babel", "verbecc", "lemminflect", "german_nouns")
NAMES = sorted(DEMO_TASKS)

KNOWN = {
    "spanish-verbs": {"pensar pres-1s": "pienso", "buscar pret-1s": "busqué"},
    "english-inflection": {"carry VBZ": "carries", "stop VBG": "stopping", "mouse NNS": "mice"},
    "german-plurals": {"Ball m": "Bälle", "Blume f": "Blumen", "Museum n": "Museen"},
}


@pytest.mark.parametrize("name", NAMES)
def test_train_and_held_out_share_no_key(name: str) -> None:
    task = DEMO_TASKS[name]
    train = {example.key for example in islice(task.train(1), 3000)}
    held_out = task.held_out(500, 1)
    assert len(held_out) == 500
    assert all(is_held_out(example.key) for example in held_out)
    assert train.isdisjoint(example.key for example in held_out)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_alone_decides_the_order(name: str) -> None:
    task = DEMO_TASKS[name]
    first = list(islice(task.train(5), 50))
    assert first == list(islice(task.train(5), 50))
    assert first != list(islice(task.train(6), 50))


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_short_and_every_source_comes_once(name: str) -> None:
    examples = list(islice(DEMO_TASKS[name].train(2), 5000))
    assert len(examples) == 5000
    assert max(len(example.source) for example in examples) <= MAX_SOURCE
    assert max(len(example.target) for example in examples) <= MAX_DEMO_TARGET
    assert len({example.source for example in examples}) == 5000


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_forms(name: str) -> None:
    answers = {example.source: example.target for example in DEMO_TASKS[name].pairs(1)}
    assert {source: answers.get(source) for source in KNOWN[name]} == KNOWN[name]


def test_german_plurals_are_no_datives() -> None:
    plurals = {example.source: example.target for example in DEMO_TASKS["german-plurals"].pairs(1)}
    assert "Bodenmosaik n" not in plurals  # its first plural in the list is a dative


def test_dates_are_valid_and_figures_follow_the_regime() -> None:
    for day_first, pattern in ((False, "%m/%d/%Y"), (True, "%d/%m/%Y")):
        examples = list(islice(dates_task(day_first).train(3), 2000))
        figures = [e for e in examples if re.fullmatch(r"\d\d/\d\d/\d{4}", e.source)]
        assert 400 < len(figures) < 800
        for example in examples:
            datetime.date.fromisoformat(example.target)
        for example in figures:
            parsed = datetime.datetime.strptime(example.source, pattern)
            assert parsed.date().isoformat() == example.target


def test_the_drift_stream_flips_once_and_contradicts_itself() -> None:
    pairs = list(date_order_flip(2000, 2000, seed=1))
    assert len(pairs) == 4000
    assert not any(is_held_out(source) for source, _ in pairs)
    for index, (source, target) in enumerate(pairs):
        pattern = "%m/%d/%Y" if index < 2000 else "%d/%m/%Y"
        assert datetime.datetime.strptime(source, pattern).date().isoformat() == target
    ambiguous = [s for s, _ in pairs if int(s[:2]) <= 12 and int(s[3:5]) <= 12]
    assert 0.3 < len(ambiguous) / len(pairs) < 0.5
