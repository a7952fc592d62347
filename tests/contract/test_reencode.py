"""Records in another vocabulary: in place, counted, fenced, held where they do not fit; twin and servers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeseq_core.errors import FencedError
from edgeseq_core.replay.buffer import (
    PARTS,
    HeldBack,
    Move,
    PairOutcome,
    Part,
    Recoded,
    StoredPair,
    TaskSettings,
)
from edgeseq_core.replay.record import TOO_LONG, owner_of, pack_held, pair_name
from edgeseq_core.replay.rules import StoreLimits
from tests.contract.conftest import OpenStores
from tests.contract.stores import PARTITION, TASK, Stores, incoming

KEY = "log1:p:{}".format


def filled(stores: Stores) -> Stores:
    """Pairs id0 to id4 in the five parts, and two of the learner's steps."""
    stores.ingest([incoming(0, correction=True, pair_id="id0")])
    stores.ingest([incoming(n) for n in range(1, 5)])
    moves = [
        Move(KEY(2), "bulk", "recent", 0),
        Move(KEY(3), "bulk", "probe", 0.5),
        Move(KEY(4), "bulk", "reservoir", 0.5),
    ]
    stores.commit(moves)
    return stores


def everything(stores: Stores) -> dict[Part, list[StoredPair]]:
    return {part: stores.buffer.read(TASK, part) for part in PARTS}


def wanted(pair: StoredPair, record: bytes, *, held: bool = False) -> Recoded:
    names = (TASK, *owner_of(pair.record))
    return Recoded(
        key=pair.key,
        origin=pair.part,
        destination=None if held else pair.part,
        name=pair_name(*names),
        data=pack_held(names, pair.key, record) if held else record,
    )


def reencode(stores: Stores, pairs: Sequence[Recoded], **epochs: int) -> int:
    owners = {"consumer": stores.consumer, "learner": stores.learner}
    return stores.buffer.reencode(TASK, pairs, epochs=owners | epochs)  # type: ignore[arg-type]


def test_a_pair_keeps_its_key_its_part_and_its_place(stores: Stores) -> None:
    before = everything(filled(stores))
    journal, state = stores.buffer.journal(TASK), stores.buffer.state(TASK)
    outcomes = [stores.buffer.outcome(TASK, "p1", f"id{n}") for n in range(5)]
    stored = [pair for pairs in before.values() for pair in pairs]
    assert reencode(stores, [wanted(p, b"new " + p.record * 2) for p in stored]) == 5
    assert everything(stores) == {
        part: [StoredPair(p.key, p.part, b"new " + p.record * 2) for p in pairs]
        for part, pairs in before.items()
    }
    stats = stores.buffer.stats(TASK)
    size = 4 + 2 * len(stored[0].record)
    assert stats.bytes == {p: 4 + 2 * len(before[p][0].record) for p in PARTS}
    assert stores.buffer.fresh_bytes(PARTITION) == size + 4 + 2 * len(before["bulk"][0].record)
    assert (stores.buffer.journal(TASK), stores.buffer.state(TASK)) == (journal, state)
    assert [stores.buffer.outcome(TASK, "p1", f"id{n}") for n in range(5)] == outcomes
    assert stores.buffer.waiting(PARTITION) == {TASK: (1, 1)}


@pytest.mark.parametrize("role", ["consumer", "learner"])
def test_nobody_else_may_write_meanwhile(stores: Stores, role: str) -> None:
    before = everything(filled(stores))
    with pytest.raises(FencedError, match=f"the {role}'s epoch is 1, not 0"):
        reencode(stores, [wanted(before["bulk"][0], b"new")], **{role: 0})
    assert everything(stores) == before


def test_what_does_not_fit_is_held_and_let_out_again(stores: Stores) -> None:
    before = everything(filled(stores))
    bulk, learnt = before["bulk"][0], before["reservoir"][0]
    assert reencode(stores, [wanted(p, p.record, held=True) for p in (bulk, learnt)]) == 2
    held = PairOutcome("quarantined", detail=TOO_LONG)
    assert [stores.buffer.outcome(TASK, "p1", f"id{n}") for n in (1, 4)] == [held, held]
    assert stores.buffer.waiting(PARTITION) == {TASK: (1, 0)}
    found = stores.buffer.held_back(TASK)
    assert [(one.key, one.record) for one in found] == [
        (bulk.key, bulk.record),
        (learnt.key, learnt.record),
    ]
    assert stores.buffer.held_back("other") == []
    assert stores.ingest([incoming(9, pair_id="id1")]) == ["duplicate"]

    def back(one: HeldBack) -> Recoded:
        return Recoded(
            key=one.key, origin=None, destination="bulk", name=one.field, data=one.record
        )

    assert reencode(stores, [back(one) for one in found]) == 2
    assert stores.buffer.held_back(TASK) == []
    assert stores.part("bulk") == ["id1", "id4"]
    assert stores.buffer.outcome(TASK, "p1", "id4") == PairOutcome("waiting")
    size = len(bulk.record)
    assert stores.buffer.stats(TASK).bytes["bulk"] == 2 * size
    assert reencode(stores, [back(one) for one in found]) == 0  # called again, it changes nothing


def test_a_held_pair_can_be_forgotten(stores: Stores) -> None:
    pair = everything(filled(stores))["bulk"][0]
    reencode(stores, [wanted(pair, pair.record, held=True)])
    assert stores.buffer.remove(TASK, producer="p1", pair_id="id1") == 1
    assert stores.buffer.held_back(TASK) == []
    assert stores.buffer.outcome(TASK, "p1", "id1") == PairOutcome("forgotten")
    assert stores.registry.status(TASK).tainted  # a calibration of the former base may know it


def test_two_held_pairs_of_one_id_are_both_kept(open_stores: OpenStores) -> None:
    stores = open_stores(StoreLimits(id_window_pairs=1))
    for number in (0, 1, 2):  # the id leaves the window in between
        stores.ingest([incoming(number, pair_id="same" if number != 1 else "other")])
    stores.ingest([])
    pairs = [p for p in stores.buffer.read(TASK, "bulk") if owner_of(p.record)[1] == "same"]
    assert len(pairs) == 2
    reencode(stores, [wanted(pair, pair.record, held=True) for pair in pairs])
    assert [one.key for one in stores.buffer.held_back(TASK)] == [pair.key for pair in pairs]


def test_a_pair_that_is_gone_is_passed_over(stores: Stores) -> None:
    before = everything(filled(stores))
    stores.buffer.remove(TASK, pair_id="id1")
    pairs = [wanted(before[part][0], b"new") for part in ("bulk", "recent")]
    assert reencode(stores, pairs) == 1
    assert stores.part("bulk") == []
    assert stores.buffer.stats(TASK).bytes["bulk"] == 0
    assert [pair.record for pair in stores.buffer.read(TASK, "recent")] == [b"new"]


def test_longer_records_push_others_out_of_the_reservoir(stores: Stores) -> None:
    size = len(incoming(0).record)
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=12 * size))
    stores.ingest([incoming(n) for n in range(8)])
    stores.commit([Move(KEY(n), "bulk", "reservoir", n / 10) for n in range(8)])
    pairs = stores.buffer.read(TASK, "reservoir")
    assert reencode(stores, [wanted(p, p.record * 2) for p in pairs]) == 8
    kept = [pair.key for pair in stores.buffer.read(TASK, "reservoir")]
    assert kept == [KEY(n) for n in range(len(kept))]
    assert 4 <= len(kept) <= 6
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 2 * size * len(kept)
