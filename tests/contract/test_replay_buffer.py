"""What every replay buffer promises; runs on the twin and on real servers."""

from __future__ import annotations

import json
import random

import pytest

from edgeseq_core.errors import FencedError
from edgeseq_core.keys import partition_of
from edgeseq_core.replay.buffer import Move, PairOutcome, Position, TaskSettings
from edgeseq_core.replay.rules import StoreLimits
from tests.contract.conftest import OpenStores
from tests.contract.stores import (
    FEEDBACK,
    LOG,
    NOW_MS,
    PAIRS,
    PARTITION,
    PARTITIONS,
    TASK,
    Stores,
    ids,
    incoming,
)

OTHER = next(
    name for name in (f"other{n}" for n in range(99)) if partition_of(name, PARTITIONS) == PARTITION
)


def outcome(stores: Stores, number: int) -> PairOutcome | None:
    return stores.buffer.outcome(TASK, "p1", f"id{number}")


# --- ingest ---------------------------------------------------------------------------------------


def test_pairs_wait_in_kafka_order_and_the_position_moves_with_them(stores: Stores) -> None:
    assert stores.ingest([incoming(n) for n in (3, 5, 12)]) == ["accepted"] * 3
    assert stores.ingest([incoming(100), incoming(101)]) == ["accepted"] * 2
    assert stores.part("bulk") == ["id3", "id5", "id12", "id100", "id101"]
    assert stores.buffer.positions(PARTITION) == {PAIRS: Position(LOG, 102)}
    assert [p.key for p in stores.buffer.read(TASK, "bulk")][:2] == ["log1:p:3", "log1:p:5"]
    assert outcome(stores, 3) == PairOutcome("waiting")


def test_a_batch_without_pairs_moves_the_position_alone(stores: Stores) -> None:
    stores.buffer.ingest(
        PARTITION,
        [],
        epoch=stores.consumer,
        topic=PAIRS,
        expected=None,
        position=Position("log|odd", 7),
        now_ms=NOW_MS,
    )
    assert stores.buffer.positions(PARTITION) == {PAIRS: Position("log|odd", 7)}


def test_corrections_come_first(stores: Stores) -> None:
    stores.ingest([incoming(n) for n in range(4)])
    stores.ingest([incoming(n, correction=True, pair_id=f"c{n}") for n in range(2)])
    draw = stores.buffer.draw(TASK, corrections=10, bulk=3, replay=())
    assert ids(draw.fresh) == ["c0", "c1", "id0", "id1", "id2"]
    assert [pair.part for pair in draw.fresh] == ["corrections"] * 2 + ["bulk"] * 3
    assert stores.buffer.waiting(PARTITION) == {TASK: (2, 4)}
    assert ids(stores.buffer.draw(TASK, corrections=1, bulk=0, replay=()).fresh) == ["c0"]


def test_a_pair_id_enters_once_and_content_may_repeat(stores: Stores) -> None:
    first = stores.ingest([incoming(0), incoming(1, pair_id="id0"), incoming(2)])
    assert first == ["accepted", "duplicate", "accepted"]
    again = [
        incoming(3, pair_id="id0"),
        incoming(4, pair_id="id0", producer="p2"),
        incoming(5, pair_id="id0", task=OTHER),
    ]
    assert stores.ingest(again) == ["duplicate", "accepted", "accepted"]
    assert stores.part("bulk") == ["id0", "id2", "id0"]
    assert stores.part("bulk", OTHER) == ["id0"]


def test_an_id_is_a_duplicate_also_across_topics_and_after_learning(stores: Stores) -> None:
    stores.ingest([incoming(0)])
    stores.learn(priorities=random.Random(1))
    assert stores.ingest([incoming(0, correction=True)]) == ["duplicate"]
    assert stores.ingest([incoming(1, pair_id="id0")]) == ["duplicate"]
    assert outcome(stores, 0) == PairOutcome("trained", 1)


def test_ids_are_remembered_for_a_time(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(id_window_s=60))
    stores.ingest([incoming(0)], now_ms=NOW_MS)
    assert stores.ingest([incoming(1, pair_id="id0")], now_ms=NOW_MS + 60_000) == ["duplicate"]
    stores.ingest([], now_ms=NOW_MS + 60_001)
    assert outcome(stores, 0) is None
    assert stores.ingest([incoming(2, pair_id="id0")], now_ms=NOW_MS + 60_002) == ["accepted"]
    assert stores.part("bulk") == ["id0", "id0"]
    # Moving the first pair of that id does not change what is said of the second.
    first = stores.buffer.read(TASK, "bulk")[0]
    stores.commit([Move(first.key, "bulk", "reservoir", 0.5)])
    assert outcome(stores, 0) == PairOutcome("waiting")


def test_a_bounded_number_of_ids_is_remembered(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(id_window_pairs=10))
    for first in range(0, 30, 5):
        stores.ingest([incoming(n) for n in range(first, first + 5)], now_ms=NOW_MS + first)
    assert [outcome(stores, n) is not None for n in range(30)] == [False] * 20 + [True] * 10


def test_one_call_forgets_a_bounded_number_of_ids(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(id_window_s=60))
    stores.ingest([incoming(n) for n in range(250)])
    stores.ingest([], now_ms=NOW_MS + 100_000)
    assert sum(outcome(stores, n) is None for n in range(250)) == 100
    for _ in range(2):
        stores.ingest([], now_ms=NOW_MS + 100_000)
    assert sum(outcome(stores, n) is None for n in range(250)) == 250


def test_pairs_above_the_quota_are_shed_and_may_come_again(stores: Stores) -> None:
    stores.buffer.set_task(TASK, TaskSettings(fresh_quota=2))
    assert stores.ingest([incoming(n) for n in range(4)]) == ["accepted"] * 2 + ["shed"] * 2
    assert outcome(stores, 3) == PairOutcome("shed")
    assert stores.buffer.stats(TASK).shed == 2
    stores.learn(priorities=random.Random(1))
    assert stores.ingest([incoming(9, pair_id="id3")]) == ["accepted"]
    assert outcome(stores, 3) == PairOutcome("waiting")


def test_a_held_pair_is_neither_learnt_nor_lost(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(quarantine_bytes=70))
    held = [incoming(n, quarantine="series") for n in range(3)]
    assert stores.ingest(held) == ["quarantined", "quarantined", "quarantine_full"]
    assert outcome(stores, 0) == PairOutcome("quarantined", detail="series")
    assert outcome(stores, 2) is None
    assert stores.ingest([incoming(9, pair_id="id0", quarantine="series")]) == ["duplicate"]
    assert stores.buffer.tasks(PARTITION) == {}
    assert stores.buffer.waiting(PARTITION) == {}


def test_tasks_register_themselves_up_to_a_bound(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(max_tasks=1))
    batch = [incoming(0), incoming(1, task=OTHER), incoming(2)]
    assert stores.ingest(batch) == ["accepted", "unknown_task", "accepted"]
    assert stores.buffer.tasks(PARTITION) == {TASK: TaskSettings()}
    assert stores.buffer.outcome(OTHER, "p1", "id1") is None


def test_tasks_do_not_register_themselves_when_that_is_off(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(auto_register=False))
    assert stores.ingest([incoming(0), incoming(1, quarantine="series")]) == ["unknown_task"] * 2
    stores.buffer.set_task(TASK, TaskSettings(abstain_below=0.25))
    assert stores.ingest([incoming(2, pair_id="id0")]) == ["accepted"]
    assert stores.buffer.tasks(PARTITION) == {TASK: TaskSettings(abstain_below=0.25)}


def test_a_pair_of_another_partition_is_a_mistake_of_the_caller(stores: Stores) -> None:
    stranger = next(n for n in map(str, range(99)) if partition_of(n, PARTITIONS) != PARTITION)
    with pytest.raises(ValueError, match=f"task {stranger} belongs to partition"):
        stores.ingest([incoming(0, task=stranger)])
    assert stores.buffer.positions(PARTITION) == {}


def test_a_dead_letter_is_remembered_unless_the_pair_is_known(stores: Stores) -> None:
    stores.ingest([incoming(0)])
    for number in (0, 1):
        stores.buffer.note_dead_letter(TASK, "p1", f"id{number}", "clock", NOW_MS)
    assert outcome(stores, 0) == PairOutcome("waiting")
    assert outcome(stores, 1) == PairOutcome("dead_lettered", detail="clock")
    assert stores.ingest([incoming(5, pair_id="id1")]) == ["accepted"]  # redriven


def test_fresh_bytes_follow_what_waits(stores: Stores) -> None:
    stores.ingest([incoming(n, source="a" * n) for n in range(1, 9)])
    waits = sum(len(pair.record) for pair in stores.buffer.read(TASK, "bulk"))
    assert stores.buffer.fresh_bytes(PARTITION) == waits == stores.buffer.stats(TASK).bytes["bulk"]
    stores.learn(priorities=random.Random(1), count=3)
    waits = sum(len(pair.record) for pair in stores.buffer.read(TASK, "bulk"))
    assert stores.buffer.fresh_bytes(PARTITION) == waits > 0
    stores.buffer.remove(TASK)
    assert stores.buffer.fresh_bytes(PARTITION) == 0


# --- fencing --------------------------------------------------------------------------------------


def test_a_stale_consumer_changes_nothing(stores: Stores) -> None:
    stores.ingest([incoming(0)])
    assert stores.buffer.acquire("consumer", PARTITION) == stores.consumer + 1
    with pytest.raises(FencedError, match="consumer's epoch is 2, not 1"):
        stores.ingest([incoming(1)])
    assert stores.part("bulk") == ["id0"]
    assert stores.buffer.positions(PARTITION) == {PAIRS: Position(LOG, 1)}
    assert outcome(stores, 1) is None


def test_an_owner_can_ask_whether_it_still_is_one(stores: Stores) -> None:
    other = (PARTITION + 1) % PARTITIONS
    mine = {n: stores.buffer.acquire("learner", n) for n in (other, PARTITION)}
    stores.buffer.confirm("learner", mine)
    stores.buffer.acquire("consumer", PARTITION)  # another role
    stores.buffer.confirm("learner", mine)
    stores.buffer.acquire("learner", PARTITION)
    with pytest.raises(FencedError, match="another owner has taken over"):
        stores.buffer.confirm("learner", mine)
    stores.buffer.confirm("learner", {other: mine[other]})


@pytest.mark.parametrize("expected", [None, Position(LOG, 2), Position("log0", 1)])
def test_a_stale_position_changes_nothing(stores: Stores, expected: Position | None) -> None:
    stores.ingest([incoming(0)])
    with pytest.raises(FencedError, match=r"the position of t\.pairs is .*log1.*1"):
        stores.buffer.ingest(
            PARTITION,
            [incoming(1)],
            epoch=stores.consumer,
            topic=PAIRS,
            expected=expected,
            position=Position(LOG, 2),
            now_ms=NOW_MS,
        )
    assert stores.part("bulk") == ["id0"]


def test_positions_of_two_topics_are_independent(stores: Stores) -> None:
    stores.ingest([incoming(4)])
    stores.ingest([incoming(9, correction=True)])
    expected = {PAIRS: Position(LOG, 5), FEEDBACK: Position(LOG, 10)}
    assert stores.buffer.positions(PARTITION) == expected


def test_a_log_that_was_made_again_may_use_the_same_offsets(stores: Stores) -> None:
    stores.ingest([incoming(0)])
    outcomes = stores.buffer.ingest(
        PARTITION,
        [incoming(0, pair_id="new")],
        epoch=stores.consumer,
        topic=PAIRS,
        expected=Position(LOG, 1),
        position=Position("log2", 1),
        now_ms=NOW_MS,
    )
    assert outcomes == ["accepted"]
    assert [p.key for p in stores.buffer.read(TASK, "bulk")] == ["log1:p:0", "log2:p:0"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epoch": 9}, "learner's epoch is 1, not 9"),
        ({"branch": 1}, "branch of task dates is 0, not 1"),
        ({"expected_step": 0}, "stored step of task dates is 1, not 0"),
        ({"step": 1}, "step 1 of task dates does not follow step 1"),
        (
            {"moves": [Move("log1:p:9", "bulk", "recent", 0)]},
            r"pair log1:p:9 is .*not in bulk|in no",
        ),
        ({"moves": [Move("log1:p:1", "corrections", "recent", 0)]}, "pair log1:p:1 is"),
    ],
)
def test_a_stale_commit_changes_nothing(
    stores: Stores, changed: dict[str, object], message: str
) -> None:
    stores.ingest([incoming(n) for n in range(3)])
    stores.learn(priorities=random.Random(1), count=1)
    before = (stores.buffer.state(TASK), stores.buffer.stats(TASK), stores.buffer.journal(TASK))
    good = [Move("log1:p:1", "bulk", "reservoir", 0.5)]
    with pytest.raises(FencedError, match=message):
        stores.commit(**({"moves": good} | changed))  # type: ignore[arg-type]
    after = (stores.buffer.state(TASK), stores.buffer.stats(TASK), stores.buffer.journal(TASK))
    assert after == before
    assert stores.part("bulk") == ["id1", "id2"]
    assert outcome(stores, 1) == PairOutcome("waiting")


@pytest.mark.parametrize(
    "moves",
    [
        [Move("k", "bulk", "recent", 0), Move("k", "recent", "reservoir", 0)],
        [Move("k", "recent", "bulk", 0)],
        [Move("k", "reservoir", "recent", 0)],
        [Move("k", "bulk", "reservoir", 1.0)],
        [Move("k", "bulk", "probe", float("nan"))],
    ],
)
def test_a_move_that_no_learner_may_ask_for(stores: Stores, moves: list[Move]) -> None:
    with pytest.raises(ValueError, match=r"moves|priority"):
        stores.commit(moves)


# --- the learner's step ---------------------------------------------------------------------------


def test_a_step_moves_pairs_and_tells_what_became_of_them(stores: Stores) -> None:
    stores.ingest([incoming(n) for n in range(6)])
    key = "log1:p:{}".format
    stores.commit(
        [
            Move(key(0), "bulk", "reservoir", 0.5),
            Move(key(1), "bulk", "recent", 0),
            Move(key(2), "bulk", "recent", 0),
            Move(key(3), "bulk", "probe", 0.25),
        ]
    )
    stores.commit(
        [
            Move(key(1), "recent", "probe", 0.125),
            Move(key(2), "recent", "reservoir", 0.1),
            Move(key(4), "bulk", "recent", 0),
        ]
    )
    parts = {part: stores.part(part) for part in ("bulk", "recent", "probe", "reservoir")}
    assert parts == {
        "bulk": ["id5"],
        "recent": ["id4"],
        "probe": ["id1", "id3"],
        "reservoir": ["id2", "id0"],
    }
    states = [outcome(stores, n) for n in range(6)]
    held, waiting = PairOutcome("held_out"), PairOutcome("waiting")
    assert states == [
        PairOutcome("trained", 1),
        held,
        PairOutcome("trained", 2),
        held,
        held,
        waiting,
    ]
    stats = stores.buffer.stats(TASK)
    assert (stats.learnt, stats.shed, stats.forgotten) == (2, 0, 0)
    expected = {"corrections": 0, "bulk": 1, "recent": 1, "probe": 2, "reservoir": 2}
    assert stats.pairs == expected
    size = len(incoming(0).record)
    assert stats.bytes == {part: size * pairs for part, pairs in expected.items()}
    assert stores.buffer.waiting(PARTITION) == {TASK: (0, 1)}


def test_the_learner_resumes_from_the_last_step(stores: Stores) -> None:
    fresh = stores.buffer.state(TASK)
    assert (fresh.step, fresh.branch, fresh.last_step, fresh.checkpoint) == (0, 0, 0, None)
    stores.commit()
    checkpoint = bytes(range(256)) * 40
    stores.commit(checkpoint=checkpoint, journal='{"n":"ü"}', step=7)
    state = stores.buffer.state(TASK)
    assert (state.step, state.branch, state.last_step, state.checkpoint) == (7, 0, 7, checkpoint)
    assert stores.buffer.journal(TASK) == ['{"kind":"step","step":1}', '{"n":"ü"}']
    assert stores.buffer.journal(TASK, after=-1) == ['{"n":"ü"}']
    assert stores.buffer.journal(TASK, after=-9) == stores.buffer.journal(TASK)
    assert stores.buffer.journal(TASK, after=1) == ['{"n":"ü"}']


def test_tasks_do_not_touch_each_other(stores: Stores) -> None:
    stores.ingest([incoming(0), incoming(1, task=OTHER)])
    stores.learn(priorities=random.Random(1), task=OTHER)
    assert stores.buffer.state(TASK).step == 0
    assert stores.part("bulk") == ["id0"]
    assert stores.buffer.waiting(PARTITION) == {TASK: (0, 1)}


def test_replay_is_drawn_by_rank_in_priority_order(stores: Stores) -> None:
    assert stores.buffer.draw(TASK, corrections=1, bulk=1, replay=[0.5]).replay == []
    stores.ingest([incoming(n) for n in range(4)])
    priorities = [0.7, 0.1, 0.9, 0.3]
    stores.commit([Move(f"log1:p:{n}", "bulk", "reservoir", p) for n, p in enumerate(priorities)])
    ranks = [0.0, 0.24, 0.25, 0.49999, 0.5, 0.75, 0.999999999999, 0.25]
    draw = stores.buffer.draw(TASK, corrections=0, bulk=0, replay=ranks)
    assert ids(draw.replay) == ["id1", "id1", "id3", "id3", "id0", "id2", "id2", "id3"]
    assert {pair.part for pair in draw.replay} == {"reservoir"}
    assert draw.fresh == []


def test_a_long_part_is_read_whole(stores: Stores) -> None:
    for first in range(0, 2500, 500):
        stores.ingest([incoming(n) for n in range(first, first + 500)])
    assert stores.part("bulk") == [f"id{n}" for n in range(2500)]
    draw = stores.buffer.draw(TASK, corrections=0, bulk=2100, replay=())
    assert ids(draw.fresh) == [f"id{n}" for n in range(2100)]


# --- forgetting -----------------------------------------------------------------------------------


def everywhere(stores: Stores) -> None:
    """Twelve pairs of two producers: waiting, held out, learnt, and quarantined."""
    stores.ingest([incoming(n, producer=f"p{n % 2}", pair_id=f"id{n}") for n in range(10)])
    stores.ingest([incoming(n, producer=f"p{n % 2}", quarantine="series") for n in (10, 11)])
    key = "log1:p:{}".format
    stores.commit(
        [
            *(Move(key(n), "bulk", "reservoir", n / 10) for n in range(4)),
            *(Move(key(n), "bulk", "recent", 0) for n in (4, 5)),
            *(Move(key(n), "bulk", "probe", n / 10) for n in (6, 7)),
        ]
    )


def test_a_pair_is_forgotten_wherever_it_is(stores: Stores) -> None:
    everywhere(stores)
    for number in (0, 4, 6, 8, 10):
        assert stores.buffer.remove(TASK, producer="p0", pair_id=f"id{number}") == 1
        assert stores.buffer.outcome(TASK, "p0", f"id{number}") == PairOutcome("forgotten")
    assert stores.buffer.remove(TASK, producer="p0", pair_id="id0") == 0
    assert stores.buffer.remove(TASK, producer="p1", pair_id="id2") == 0
    stats = stores.buffer.stats(TASK)
    assert stats.forgotten == 5
    expected = {"corrections": 0, "bulk": 1, "recent": 1, "probe": 1, "reservoir": 3}
    assert stats.pairs == expected
    size = len(incoming(0).record)
    assert stats.bytes == {part: size * pairs for part, pairs in expected.items()}
    assert stores.ingest([incoming(20, producer="p0", pair_id="id0")]) == ["duplicate"]


def test_a_removal_is_journaled_by_key_and_taints_what_was_learnt(stores: Stores) -> None:
    everywhere(stores)
    stores.buffer.remove(TASK, producer="p0", pair_id="id8", purge="first")
    assert not stores.registry.status(TASK).tainted  # it had not been taken yet
    stores.buffer.remove(TASK, producer="p0", purge="second")
    assert stores.registry.status(TASK).tainted
    stores.buffer.remove(TASK, producer="nobody", purge="third")
    lines = [json.loads(line) for line in stores.buffer.journal(TASK)[1:]]
    found = [(x["kind"], x["purge"], x["fresh"], x["taken"], x["held"]) for x in lines]
    taken = [f"log1:p:{n}" for n in (0, 2, 4, 6)]
    assert found == [
        ("remove", "first", ["log1:p:8"], [], 0),
        ("remove", "second", [], taken, 0),
        ("remove", "second", [], [], 1),
    ]


def test_receipts_are_kept_in_order(stores: Stores) -> None:
    assert stores.buffer.receipts(TASK) == []
    for receipt in ('{"n":1}', '{"n":2}'):
        stores.buffer.add_receipt(TASK, receipt)
    assert stores.buffer.receipts(TASK) == ['{"n":1}', '{"n":2}']
    assert stores.buffer.receipts(OTHER) == []


def test_a_producer_is_forgotten(stores: Stores) -> None:
    everywhere(stores)
    stores.ingest([incoming(30, producer="p1", task=OTHER)])
    assert stores.buffer.remove(TASK, producer="p1") == 6
    assert stores.part("bulk") == ["id8"]
    assert stores.part("reservoir") == ["id0", "id2"]
    assert stores.part("bulk", OTHER) == ["id30"]


def test_a_task_is_forgotten_but_what_it_learnt_is_not_undone(stores: Stores) -> None:
    everywhere(stores)
    stores.ingest([incoming(30, task=OTHER)])
    before = stores.buffer.state(TASK)
    assert stores.buffer.remove(TASK) == 12
    stats = stores.buffer.stats(TASK)
    assert set(stats.pairs.values()) == set(stats.bytes.values()) == {0}
    assert (stats.learnt, stats.forgotten) == (4, 12)
    assert stores.buffer.state(TASK) == before
    assert stores.buffer.waiting(PARTITION) == {OTHER: (0, 1)}
    assert TASK in stores.buffer.tasks(PARTITION)


def test_a_step_that_drew_a_forgotten_pair_is_refused(stores: Stores) -> None:
    stores.ingest([incoming(n) for n in range(2)])
    drawn = stores.buffer.draw(TASK, corrections=0, bulk=2, replay=()).fresh
    stores.buffer.remove(TASK, pair_id="id0")
    with pytest.raises(FencedError, match="pair log1:p:0 is"):
        stores.commit([Move(p.key, p.part, "reservoir", 0.5) for p in drawn])


def test_a_large_task_is_forgotten_in_batches(stores: Stores) -> None:
    for first in range(0, 1500, 500):
        stores.ingest([incoming(n) for n in range(first, first + 500)])
    assert stores.buffer.remove(TASK) == 1500
    assert stores.buffer.stats(TASK).forgotten == 1500
    assert stores.buffer.fresh_bytes(PARTITION) == 0
