"""The pretraining mixture: every base task, filtered in one place, capped and split."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from edgeseq_core.corpus.base import BASE_TASKS
from edgeseq_core.corpus.benchmark_exclusions import is_benchmark_source
from edgeseq_core.corpus.examples import MAX_SOURCE, MAX_TARGET, BaseTask, Example, shuffled
from edgeseq_core.corpus.held_out import digest, is_held_out

CAP = 10_000  # training pairs per task
DEV_CAP = 200  # dev pairs per task
DEV_ONE_IN = 50
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")

Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Mixture:
    """Pairs of every task: to train on, and a small slice to report on."""

    train: dict[str, Pairs]
    dev: dict[str, Pairs]


def allowed(example: Example) -> bool:
    """Return whether a base model may see ``example``: the only place that decides it.

    Source and target are checked like the key, so that a held-out word is not met as the
    answer of another task.
    """
    if not (0 < len(example.source) <= MAX_SOURCE and 0 < len(example.target) <= MAX_TARGET):
        return False
    if ISO_DATE.search(example.source) or ISO_DATE.search(example.target):
        return False
    texts = {example.key, example.source, example.target}
    return not any(is_held_out(text) or is_benchmark_source(text) for text in texts)


def _is_dev(key: str) -> bool:
    return digest("dev" + key) % DEV_ONE_IN == 0


def split(task: BaseTask, seed: int, cap: int) -> tuple[Pairs, Pairs]:
    """Return (train, dev) pairs of ``task``, each source once, at most ``cap`` for training."""
    train: Pairs = []
    dev: Pairs = []
    seen: set[str] = set()
    for example in task.examples():
        if example.source in seen or not allowed(example):
            continue
        seen.add(example.source)
        if _is_dev(example.key):
            if len(dev) < DEV_CAP:
                dev.append((example.source, example.target))
        elif len(train) < cap:
            train.append((example.source, example.target))
        else:
            break
    order = shuffled((Example(s, t, s) for s, t in train), f"{seed}:{task.name}")
    return [(e.source, e.target) for e in order], dev


@lru_cache(maxsize=1)
def load(seed: int, cap: int = CAP) -> Mixture:
    """Return the whole mixture in the order of ``seed``; the last one is kept in memory."""
    splits = {name: split(task, seed, cap) for name, task in BASE_TASKS.items()}
    return Mixture(
        {name: train for name, (train, _) in splits.items()},
        {name: dev for name, (_, dev) in splits.items()},
    )


def training_pairs(seed: int) -> dict[str, Pairs]:
    """Return task name -> (source, target) pairs to pretrain on."""
    return load(seed).train


def dev_pairs(seed: int) -> dict[str, Pairs]:
    """Return task name -> pairs kept apart to report how well the base does."""
    return load(seed).dev


def summary(seed: int) -> dict[str, tuple[int, int]]:
    """Return task name -> (training pairs, dev pairs)."""
    mixture = load(seed)
    return {name: (len(mixture.train[name]), len(mixture.dev[name])) for name in mixture.train}
