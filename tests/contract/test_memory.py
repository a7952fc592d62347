"""What the memory of corrections promises; runs on the twin and on real servers."""

from __future__ import annotations

import random

import pytest

from edgeseq_core.errors import FencedError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import IncomingPair, Position, Recoded, TaskSettings
from edgeseq_core.replay.recall import Remembered
from edgeseq_core.replay.record import owner_of, pack_held, pair_name
from edgeseq_core.replay.rules import StoreLimits
from tests.contract.conftest import OpenStores
from tests.contract.stores import (
    FEEDBACK,
    LOG,
    NOW_MS,
    PARTITION,
    PARTITIONS,
    TASK,
    Stores,
    incoming,
)

ON = TaskSettings(memory=True)
OTHER = next(
    name for name in (f"other{n}" for n in range(99)) if partition_of(name, PARTITIONS) == PARTITION
)


def correct(number: int, source: str, target: str, **fields: str) -> IncomingPair:
    return incoming(number, correction=True, source=source, target=target, **fields)  # type: ignore[arg-type]


def recall(stores: Stores, *sources: str, task: str = TASK) -> list[str | None]:
    """The remembered targets."""
    found = stores.buffer.recall([(task, source) for source in sources])
    return [told.target if told else None for told in found]


def held(stores: Stores, task: str = TASK) -> tuple[int, int]:
    """Remembered sources and their bytes."""
    stats = stores.buffer.stats(task)
    return stats.remembered, stats.remembered_bytes


def test_a_correction_is_recalled_word_for_word_by_the_pair_that_said_it(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "3. Mai\0 ü", "2024\0-05-03 é", producer="desk", pair_id="c1")])
    asked = [(TASK, source) for source in ("3. Mai\0 ü", "3. Mai\0 u", "3. mai\0 ü", "3. Mai")]
    told = Remembered("2024\0-05-03 é", "desk", "c1")
    assert stores.buffer.recall(asked) == [told, None, None, None]
    assert stores.buffer.recall([]) == []
    assert recall(stores, "3. Mai\0 ü", task=OTHER) == [None]


def test_nothing_is_remembered_unless_the_task_says_so(stores: Stores) -> None:
    stores.ingest([correct(0, "a", "x")])
    assert recall(stores, "a") == [None]
    stores.buffer.set_task(TASK, ON)
    assert recall(stores, "a") == [None]  # from now on, not in hindsight
    stores.ingest([correct(1, "a", "y")])
    assert recall(stores, "a") == ["y"]
    stores.buffer.set_task(TASK, TaskSettings())
    assert (recall(stores, "a"), held(stores)) == ([None], (0, 0))
    stores.buffer.set_task(TASK, ON)
    assert recall(stores, "a") == [None]  # a correction missed meanwhile is not overruled


def test_only_corrections_are_remembered(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "a", "right")])
    stores.ingest([incoming(0, source="a", target="bulk"), incoming(1, source="b", target="bulk")])
    assert recall(stores, "a", "b") == ["right", None]


def test_the_latest_in_kafka_order_wins(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "s", "A"), correct(1, "s", "B")])
    assert recall(stores, "s") == ["B"]
    stores.ingest([correct(2, "s", "A")])
    assert recall(stores, "s") == ["A"]
    assert stores.buffer.recall([(TASK, "s")]) == [Remembered("A", "p1", "id2")]
    assert held(stores)[0] == 1


def test_what_is_not_accepted_is_not_remembered(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(auto_register=False))
    stores.buffer.set_task(TASK, TaskSettings(memory=True, fresh_quota=2))
    outcomes = stores.ingest(
        [
            correct(0, "s", "A"),
            correct(1, "s", "duplicate", pair_id="id0"),
            correct(2, "s", "quarantined", quarantine="series"),
            correct(3, "t", "B"),
            correct(4, "s", "shed"),
            correct(5, "s", "unknown", task=OTHER),
        ]
    )
    states = ["accepted", "duplicate", "quarantined", "accepted", "shed", "unknown_task"]
    assert outcomes == states
    assert recall(stores, "s", "t") == ["A", "B"]


def test_a_stale_consumer_teaches_nothing(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "s", "A")])
    stores.buffer.acquire("consumer", PARTITION)
    with pytest.raises(FencedError):
        stores.ingest([correct(1, "s", "B")])
    with pytest.raises(FencedError):
        stores.buffer.ingest(
            PARTITION,
            [correct(1, "s", "B")],
            epoch=stores.consumer + 1,
            topic=FEEDBACK,
            expected=Position(LOG, 0),
            position=Position(LOG, 2),
            now_ms=NOW_MS,
        )
    assert recall(stores, "s") == ["A"]


def test_learning_changes_nothing_in_it(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "s", "A")])
    before = held(stores)
    stores.learn(priorities=random.Random(1))
    stores.serve_step()
    assert (recall(stores, "s"), held(stores)) == (["A"], before)


def test_the_oldest_make_room(open_stores: OpenStores) -> None:
    one = len(correct(10, "s10", "x").told)
    stores = open_stores(StoreLimits(memory_bytes=3 * one))
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(n, f"s{n}", "x") for n in range(10, 14)])
    assert recall(stores, *(f"s{n}" for n in range(10, 14))) == [None, "x", "x", "x"]
    assert held(stores) == (3, 3 * one)
    stores.ingest([correct(14, "s11", "y"), correct(15, "s15", "z")])  # s11 is the youngest again
    assert recall(stores, "s11", "s12", "s13", "s15") == ["y", None, "x", "z"]
    stores.ingest([correct(16, "s16", "long" * 3)])  # makes room for itself
    assert recall(stores, "s11", "s13", "s15", "s16") == [None, None, "z", "long" * 3]
    assert held(stores)[1] <= 3 * one
    stores.ingest([correct(17, "s17", "longer" * 99)])
    assert held(stores) == (0, 0)


def test_tasks_have_memories_of_their_own(stores: Stores) -> None:
    for task in (TASK, OTHER):
        stores.buffer.set_task(task, ON)
    stores.ingest([correct(0, "s", "A"), correct(1, "s", "B", task=OTHER)])
    assert stores.buffer.recall([(TASK, "s"), (OTHER, "s")]) == [
        Remembered("A", "p1", "id0"),
        Remembered("B", "p1", "id1"),
    ]
    stores.buffer.set_task(TASK, TaskSettings())
    assert (recall(stores, "s"), recall(stores, "s", task=OTHER)) == ([None], ["B"])


@pytest.mark.parametrize("learnt", [False, True])
def test_what_is_removed_is_forgotten_here_too(stores: Stores, learnt: bool) -> None:
    stores.buffer.set_task(TASK, TaskSettings(memory=True, reservoir_bytes=0))
    stores.buffer.set_task(OTHER, ON)
    stores.ingest(
        [
            correct(0, "a", "A", producer="p0"),
            correct(1, "b", "B"),
            correct(2, "c", "C"),
            correct(3, "d", "D"),
            correct(4, "b", "B", task=OTHER),
        ]
    )
    if learnt:  # and no more in the buffer: only the memory still has it
        stores.learn(priorities=random.Random(1))
    in_buffer = 0 if learnt else 1
    assert stores.buffer.remove(TASK, pair_id="id2") == in_buffer
    assert recall(stores, "a", "b", "c", "d") == ["A", "B", None, "D"]
    assert stores.buffer.remove(TASK, producer="p1") == 2 * in_buffer
    assert recall(stores, "a", "b", "c", "d") == ["A", None, None, None]
    assert held(stores) == (1, len(correct(0, "a", "A", producer="p0").told))
    assert stores.buffer.remove(TASK) == in_buffer
    assert held(stores) == (0, 0)
    assert recall(stores, "b", task=OTHER) == ["B"]


def test_removing_an_older_correction_leaves_the_latest(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "s", "A"), correct(1, "s", "B")])
    assert stores.buffer.remove(TASK, pair_id="id0") == 1
    assert recall(stores, "s") == ["B"]
    assert stores.buffer.remove(TASK, pair_id="id1") == 1
    assert recall(stores, "s") == [None]  # not the one before: it may have been wrong


def test_a_large_memory_is_forgotten_whole(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    for first in range(0, 1500, 500):
        stores.ingest([correct(n, f"source {n}", "x") for n in range(first, first + 500)])
    assert held(stores)[0] == 1500
    assert stores.buffer.remove(TASK) == 1500
    assert held(stores) == (0, 0)


def test_a_pair_that_a_change_of_base_holds_is_not_remembered(stores: Stores) -> None:
    stores.buffer.set_task(TASK, ON)
    stores.ingest([correct(0, "a", "x", pair_id="c0"), correct(1, "b", "y", pair_id="c1")])
    gone, stays = stores.buffer.read(TASK, "corrections")
    names = (TASK, *owner_of(gone.record))
    held = Recoded(
        key=gone.key,
        origin=gone.part,
        destination=None,
        name=pair_name(*names),
        data=pack_held(names, gone.key, gone.record),
    )
    epochs = {"consumer": stores.consumer, "learner": stores.learner}
    assert stores.buffer.reencode(TASK, [held], epochs=epochs) == 1  # type: ignore[arg-type]
    assert recall(stores, "a", "b") == [None, "y"]
    assert stores.buffer.read(TASK, "corrections") == [stays]
