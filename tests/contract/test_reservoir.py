"""The reservoir is a uniform sample of all that was learnt, under a byte budget."""

from __future__ import annotations

import math
import random

import pytest

from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import Move, TaskSettings
from tests.contract.conftest import OpenStores
from tests.contract.stores import (
    PARTITION,
    PARTITIONS,
    TASK,
    Stores,
    incoming,
    memory_stores,
    redis_stores,
)

SMALL_BYTES = len(incoming(0, source="a").record)


def learn(
    stores: Stores, numbers: list[int], priorities: dict[int, float], sources: dict[int, str]
) -> None:
    """Place some pairs and learn them in one step."""
    stores.ingest([incoming(n, source=sources[n]) for n in numbers])
    stores.commit([Move(f"log1:p:{n}", "bulk", "reservoir", priorities[n]) for n in numbers])


def test_the_budget_is_never_exceeded_and_the_smallest_priorities_stay(stores: Stores) -> None:
    rng = random.Random(7)
    budget = 40 * SMALL_BYTES
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=budget))
    priorities = {n: rng.random() for n in range(200)}
    sources = {n: "a" * rng.randrange(1, 60) for n in range(200)}
    for first in range(0, 200, 20):
        learn(stores, list(range(first, first + 20)), priorities, sources)
        stats = stores.buffer.stats(TASK)
        assert stats.bytes["reservoir"] <= budget
        assert stats.learnt == first + 20
        by_priority = sorted(range(first + 20), key=priorities.__getitem__)
        kept = stats.pairs["reservoir"]
        assert stores.part("reservoir") == [f"id{n}" for n in by_priority[:kept]]
    assert 10 < stats.pairs["reservoir"] < 40
    assert stores.buffer.outcome(TASK, "p1", "id0").state == "trained"  # type: ignore[union-attr]


def test_what_stays_does_not_depend_on_the_steps_that_brought_it(open_stores: OpenStores) -> None:
    rng = random.Random(3)
    priorities = {n: rng.random() for n in range(120)}
    sources = {n: "a" * rng.randrange(1, 40) for n in range(120)}
    kept = []
    for stores, size in ((open_stores(), 8), (memory_stores(), 120), (memory_stores(), 1)):
        stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=20 * SMALL_BYTES))
        for first in range(0, 120, size):
            learn(stores, list(range(first, first + size)), priorities, sources)
        kept.append(stores.part("reservoir"))
    assert kept[0] == kept[1] == kept[2]


def test_a_smaller_budget_shrinks_at_once_and_a_larger_one_keeps_the_sample_fair(
    stores: Stores,
) -> None:
    priorities = {n: (n + 0.5) / 60 for n in range(60)}
    sources = dict.fromkeys(range(60), "a")
    learn(stores, list(range(0, 60, 2)), priorities, sources)
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=10 * (SMALL_BYTES + 1)))
    assert stores.part("reservoir") == [f"id{n}" for n in range(0, 20, 2)]
    stores.buffer.set_task(TASK, TaskSettings())
    learn(stores, list(range(1, 60, 2)), priorities, sources)
    # What was evicted is gone, so late pairs above the old threshold must not come in either.
    assert stores.part("reservoir") == [f"id{n}" for n in range(20)]
    assert stores.buffer.stats(TASK).learnt == 60


def test_a_huge_record_does_not_crowd_out_the_sample(stores: Stores) -> None:
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=20 * SMALL_BYTES))
    sources = dict.fromkeys(range(10), "a") | {10: "a" * 10 * SMALL_BYTES}
    learn(stores, list(range(10)), {n: (n + 1) / 20 for n in range(10)}, sources)
    learn(stores, [10], {10: 0.0}, sources)
    assert stores.part("reservoir") == [f"id{n}" for n in range(10)]
    assert stores.buffer.outcome(TASK, "p1", "id10").state == "trained"  # type: ignore[union-attr]


def test_no_budget_keeps_nothing(stores: Stores) -> None:
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=0))
    learn(stores, [0, 1], {0: 0.5, 1: 0.0}, {0: "a", 1: "a"})
    stats = stores.buffer.stats(TASK)
    assert (stats.pairs["reservoir"], stats.bytes["reservoir"], stats.learnt) == (0, 0, 2)


def chi_square(counts: list[int], pairs: list[int], rounds: int) -> float:
    """How far ``counts`` of kept pairs are from equal shares of ``pairs`` (all, per cell)."""
    kept = sum(counts) / (sum(pairs) * rounds)
    return sum(
        (count - kept * n * rounds) ** 2 / (kept * (1 - kept) * n * rounds)
        for count, n in zip(counts, pairs, strict=True)
    )


def limit(cells: int) -> float:
    """The 99.9 % point of chi-square, ``cells - 1`` degrees of freedom (Wilson, Hilferty)."""
    k = cells - 1
    return k * (1 - 2 / (9 * k) + 3.09 * math.sqrt(2 / (9 * k))) ** 3


@pytest.mark.parametrize("removals", [False, True])
def test_every_learnt_pair_is_equally_likely_to_stay(removals: bool) -> None:
    """By age and by size; on the twin, which the suite above ties to Redis."""
    rounds, rng = 1500, random.Random(20)
    sources = {n: "a" * (60 if n % 3 == 0 else 1) for n in range(60)}
    gone = range(0, 40, 2) if removals else range(0)
    ages = [sum(n // 10 == age for n in range(60) if n not in gone) for age in range(6)]
    sizes = [sum((n % 3 == 0) == large for n in range(60) if n not in gone) for large in (0, 1)]
    by_age, by_size = [0] * 6, [0] * 2
    for _ in range(rounds):
        stores = memory_stores()
        stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=30 * SMALL_BYTES))
        priorities = {n: rng.random() for n in range(60)}
        for first in range(0, 60, 20):
            learn(stores, list(range(first, first + 20)), priorities, sources)
            if first == 20:  # forget some, in the sample or not: the rest must stay fair
                for number in gone:
                    stores.buffer.remove(TASK, pair_id=f"id{number}")
        for name in stores.part("reservoir"):
            number = int(name[2:])
            by_age[number // 10] += 1
            by_size[number % 3 == 0] += 1
    assert chi_square(by_age, ages, rounds) < limit(6)
    assert chi_square(by_size, sizes, rounds) < limit(2)


def test_the_real_store_samples_uniformly_too(redis_url: str, prefix: str) -> None:
    """Twenty tasks in Redis, each learning forty pairs into room for about ten."""
    stores = redis_stores(redis_url, prefix)
    rng, by_age, kept = random.Random(5), [0] * 4, 0
    tasks = [t for t in (f"t{n}" for n in range(200)) if partition_of(t, PARTITIONS) == PARTITION]
    for task in tasks[:20]:
        stores.buffer.set_task(task, TaskSettings(reservoir_bytes=12 * SMALL_BYTES))
    for first in range(0, 40, 10):
        for at, task in enumerate(tasks[:20]):
            offsets = range(1000 * at + 100 * first, 1000 * at + 100 * first + 10)
            stores.ingest([incoming(n, task=task, pair_id=f"{first + n % 10}") for n in offsets])
            stores.learn(priorities=rng, task=task)
    for task in tasks[:20]:
        for name in stores.part("reservoir", task):
            by_age[int(name) // 10] += 1
            kept += 1
    assert 150 < kept < 260
    assert chi_square(by_age, [10] * 4, 20) < limit(4)
