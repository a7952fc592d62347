"""What a learner keeps beside a pair of the reservoir: within the budget, with the pair, of one branch."""

from __future__ import annotations

import pytest

from edgeseq_core.replay.buffer import Move, Recoded, TaskSettings
from edgeseq_core.replay.record import pair_name
from tests.contract.stores import PARTITION, TASK, Stores, incoming

SIZE = len(incoming(0).record)
EVERY = [n / 10 + 0.01 for n in range(10)]


def learn(stores: Stores, numbers: range, *, notes: bool = True) -> None:
    """Learn pairs in one step; the smallest number has the smallest priority."""
    stores.ingest([incoming(n) for n in numbers])
    stores.commit(
        [
            Move(f"log1:p:{n}", "bulk", "reservoir", n / 100, b"note %d" % n if notes else b"")
            for n in numbers
        ]
    )


def notes(stores: Stores) -> dict[str, bytes]:
    drawn = stores.buffer.draw(TASK, corrections=0, bulk=0, replay=EVERY).replay
    return {pair.key: pair.note for pair in drawn}


def test_a_note_comes_back_with_its_pair_and_counts(stores: Stores) -> None:
    learn(stores, range(3))
    learn(stores, range(3, 5), notes=False)
    wanted = {f"log1:p:{n}": b"note %d" % n for n in range(3)}
    assert notes(stores) == wanted | {"log1:p:3": b"", "log1:p:4": b""}
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 5 * SIZE + 3 * len(b"note 0")
    assert all(not pair.note for pair in stores.buffer.read(TASK, "reservoir"))


def test_notes_are_evicted_with_their_pairs(stores: Stores) -> None:
    each = SIZE + len(b"note 0")
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=6 * each))
    learn(stores, range(9))
    kept = stores.buffer.stats(TASK)
    assert kept.pairs["reservoir"] < 9
    assert kept.bytes["reservoir"] == kept.pairs["reservoir"] * each
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=4 * each))
    assert stores.buffer.stats(TASK).bytes["reservoir"] <= 4 * each
    stores.buffer.set_task(TASK, TaskSettings(reservoir_bytes=0))
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 0


def test_a_pair_that_is_forgotten_takes_its_note_along(stores: Stores) -> None:
    learn(stores, range(3))
    assert stores.buffer.remove(TASK, pair_id="id1") == 1
    assert notes(stores) == {"log1:p:0": b"note 0", "log1:p:2": b"note 2"}
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 2 * (SIZE + len(b"note 0"))
    learn(stores, range(3, 4))
    stores.buffer.remove(TASK)
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 0


def test_another_branch_reads_no_notes_and_drops_them(stores: Stores) -> None:
    learn(stores, range(3))
    first, second = stores.serve_step(), stores.serve_step()
    stores.registry.rollback(TASK, first, expected_champion=second, now_ms=1, journal="{}")
    assert notes(stores) == dict.fromkeys((f"log1:p:{n}" for n in range(3)), b"")
    learn(stores, range(3, 4))
    assert notes(stores) == dict.fromkeys((f"log1:p:{n}" for n in range(3)), b"") | {
        "log1:p:3": b"note 3"
    }
    assert stores.buffer.stats(TASK).bytes["reservoir"] == 4 * SIZE + len(b"note 3")


def test_a_pair_in_other_words_has_no_note(stores: Stores) -> None:
    learn(stores, range(2))
    epochs = {
        "consumer": stores.buffer.acquire("consumer", PARTITION),
        "learner": stores.buffer.acquire("learner", PARTITION),
    }
    record = incoming(0, source="abcdef").record
    name = pair_name(TASK, "p1", "id0")
    recoded = Recoded(
        key="log1:p:0", origin="reservoir", destination="reservoir", name=name, data=record
    )
    assert stores.buffer.reencode(TASK, [recoded], epochs=epochs) == 1  # type: ignore[arg-type]
    assert set(notes(stores).values()) == {b""}
    assert stores.buffer.stats(TASK).bytes["reservoir"] == len(record) + SIZE


def test_only_the_reservoir_has_notes(stores: Stores) -> None:
    stores.ingest([incoming(0)])
    with pytest.raises(ValueError, match="does not move to the reservoir"):
        stores.commit([Move("log1:p:0", "bulk", "recent", 0.0, b"note")])
