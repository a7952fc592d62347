"""What every snapshot registry promises; runs on the twin and on real servers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from edgeseq_core.errors import FencedError, SnapshotError
from edgeseq_core.snapshots.payloads import KEPT_RECENT
from edgeseq_core.snapshots.registry import Purge, Restart, TaskStatus
from tests.contract.conftest import OpenStores
from tests.contract.stores import NOW_MS, PARTITION, PARTITIONS, TASK, Stores, incoming, snapshot

Serve = Callable[[Stores, str, str | None], None]
LATER_MS = NOW_MS + 99_000


def roll_back(stores: Stores, snapshot_id: str, expected: str | None = "now") -> None:
    champion = stores.registry.status(TASK).champion if expected == "now" else expected
    stores.registry.rollback(
        TASK,
        snapshot_id,
        expected_champion=champion,
        now_ms=LATER_MS,
        journal='{"kind":"rollback"}',
    )


def promote(stores: Stores, snapshot_id: str, expected: str | None = "now") -> None:
    champion = stores.registry.status(TASK).champion if expected == "now" else expected
    stores.registry.promote(
        TASK, snapshot_id, expected_champion=champion, now_ms=LATER_MS, journal='{"kind":"promote"}'
    )


def pin(stores: Stores, pinned: bool) -> None:
    stores.registry.pin(TASK, pinned, now_ms=LATER_MS, journal='{"kind":"pin"}')


def has_bytes(stores: Stores, snapshot_id: str) -> bool:
    return stores.has_bytes(stores.registry.record(TASK, snapshot_id).manifest)


def observed(stores: Stores) -> tuple[object, ...]:
    return (
        stores.registry.status(TASK),
        stores.registry.history(TASK),
        stores.buffer.state(TASK),
        stores.buffer.journal(TASK),
    )


# --- offer ----------------------------------------------------------------------------------------


def test_a_promoted_candidate_serves(stores: Stores) -> None:
    assert stores.registry.status(TASK) == TaskStatus(None, False, 0)
    first = stores.offer()  # before any step: the untrained calibration
    second = stores.serve_step()
    assert stores.registry.champions(range(PARTITIONS)) == {TASK: second}
    assert stores.registry.champions([(PARTITION + 1) % PARTITIONS]) == {}
    record = stores.registry.record(TASK, second)
    assert record.manifest.parent == first
    assert record.promoted_ms == record.created_ms == NOW_MS + 1
    assert stores.registry.payload(record.manifest) == b"int8 dates 1"
    assert [r.manifest.snapshot_id for r in stores.registry.history(TASK)] == [first, second]
    assert stores.buffer.journal(TASK)[-1] == '{"kind":"gate","step":1}'


@pytest.mark.parametrize("verdict", ["hold", None])
def test_a_held_candidate_is_kept_but_does_not_serve(stores: Stores, verdict: str | None) -> None:
    champion = stores.serve_step()
    stores.commit()
    held = stores.offer(verdict=verdict)
    assert stores.registry.status(TASK).champion == champion
    assert stores.registry.record(TASK, held).promoted_ms is None
    assert has_bytes(stores, held)
    assert len(stores.registry.history(TASK)) == 2


def test_a_pinned_task_keeps_its_champion(stores: Stores) -> None:
    champion = stores.serve_step()
    pin(stores, True)
    later = stores.serve_step()
    assert stores.registry.status(TASK) == TaskStatus(champion, True, 0)
    assert stores.registry.record(TASK, later).promoted_ms is None
    pin(stores, False)
    assert stores.registry.status(TASK) == TaskStatus(champion, False, 0)
    assert stores.serve_step() == stores.registry.status(TASK).champion
    assert stores.buffer.journal(TASK).count('{"kind":"pin"}') == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epoch": 7}, "learner's epoch is 1, not 7"),
        ({"branch": 1}, "branch of task dates is 0, not 1"),
        ({"expected_champion": None}, "champion of task dates is .*dates-1-"),
        ({"expected_champion": "dates-9-abc"}, "not '?dates-9-abc"),
    ],
)
def test_a_stale_offer_changes_nothing(
    stores: Stores, changed: dict[str, object], message: str
) -> None:
    stores.serve_step()
    stores.commit()
    before = observed(stores)
    with pytest.raises(FencedError, match=message):
        stores.offer(**changed)  # type: ignore[arg-type]
    assert observed(stores) == before


def test_bytes_that_are_not_the_manifests_are_refused(stores: Stores) -> None:
    with pytest.raises(SnapshotError, match="do not match its manifest"):
        stores.offer(payload=b"int8 dates 9")
    record, payload = snapshot(0, task="other")
    with pytest.raises(SnapshotError, match="snapshot of task other was offered for task dates"):
        stores.offer(record=record, payload=payload)
    assert stores.registry.history(TASK) == []


def test_an_offer_repeated_after_a_crash_is_stored_once(stores: Stores) -> None:
    stores.commit()
    held = stores.offer(verdict="hold")
    assert stores.offer(verdict="hold") == held
    assert len(stores.registry.history(TASK)) == 1


def test_an_unknown_snapshot_is_told(stores: Stores) -> None:
    with pytest.raises(SnapshotError, match="snapshot dates-1-x of task dates is unknown"):
        stores.registry.record(TASK, "dates-1-x")
    with pytest.raises(SnapshotError, match="are not kept"):
        stores.registry.payload(snapshot(1)[0].manifest)
    for move in (promote, roll_back):
        with pytest.raises(SnapshotError, match="dates-1-x"):
            move(stores, "dates-1-x")
    assert stores.registry.status(TASK) == TaskStatus(None, False, 0)


# --- what is kept ---------------------------------------------------------------------------------


def test_bytes_of_the_last_promotions_and_held_candidates_are_kept(
    open_stores: OpenStores,
) -> None:
    stores = open_stores(kept_promotions=3, kept_held=2)
    promoted, held = [], []
    for _ in range(6):
        promoted.append(stores.serve_step())
        stores.commit()
        held.append(stores.offer(verdict="hold"))
    assert [has_bytes(stores, s) for s in promoted] == [False] * 3 + [True] * 3
    assert [has_bytes(stores, s) for s in held] == [False] * 4 + [True] * 2
    everything = stores.registry.history(TASK)
    assert len(everything) == 12
    assert stores.registry.history(TASK, last=3) == everything[-3:]
    assert stores.registry.history(TASK, last=50) == everything


def test_promotions_are_thinned_by_age(stores: Stores) -> None:
    promoted = [stores.serve_step(at_ms=NOW_MS + 1_000 * n) for n in range(60)]
    assert [59 - promoted.index(s) for s in stores.kept()] == [59, 23, 2, 1, 0]
    for n in range(1, 13):  # one a day: of what lies close together by now, one is enough
        promoted.append(stores.serve_step(at_ms=NOW_MS + n * 86_400_000))
    assert [71 - promoted.index(s) for s in stores.kept()] == [71, 2, 1, 0]
    roll_back(stores, promoted[0])
    assert stores.buffer.state(TASK).checkpoint == b"checkpoint-1"


def test_a_burst_of_promotions_does_not_fill_the_store(stores: Stores) -> None:
    for n in range(40):
        stores.serve_step(at_ms=NOW_MS + n)
    assert len(stores.kept()) == 1 + KEPT_RECENT


@pytest.mark.parametrize("choose", ["pin", "promote", "roll back"])
def test_what_a_person_chose_last_is_kept(stores: Stores, choose: str) -> None:
    stores.serve_step()
    chosen = stores.serve_step()
    if choose != "pin":
        stores.serve_step()
    {"pin": lambda: pin(stores, True)}.get(
        choose, lambda: (promote if choose == "promote" else roll_back)(stores, chosen)
    )()
    pin(stores, False)
    later = [stores.serve_step() for _ in range(2 + KEPT_RECENT)]
    assert has_bytes(stores, chosen)
    assert not has_bytes(stores, later[0])
    promote(stores, later[-2])  # another choice
    stores.serve_step()
    assert not has_bytes(stores, chosen)


def test_the_latest_offers_reference_is_kept(open_stores: OpenStores) -> None:
    stores = open_stores(kept_held=1)
    stores.serve_step()
    best = stores.serve_step()
    for _ in range(2 + KEPT_RECENT):
        last = stores.serve_step(reference=best)
    promote(stores, last)
    assert has_bytes(stores, best)
    held = stores.serve_step(verdict="hold")
    for _ in range(2):
        stores.serve_step(verdict="hold", reference=held)
    assert has_bytes(stores, held)
    stores.serve_step(reference=last)
    assert not has_bytes(stores, best)


def test_checkpoints_live_as_long_as_something_stands_on_them(open_stores: OpenStores) -> None:
    stores = open_stores(kept_promotions=2, kept_held=1)
    promoted = [stores.serve_step() for _ in range(4)]  # steps 1 to 4
    for _ in range(3):
        stores.commit()  # steps 5 to 7, no snapshot
    with pytest.raises(SnapshotError, match="are not kept"):
        roll_back(stores, promoted[1])
    roll_back(stores, promoted[2])
    assert stores.buffer.state(TASK).checkpoint == b"checkpoint-3"
    roll_back(stores, promoted[3])
    assert stores.buffer.state(TASK).checkpoint == b"checkpoint-4"


def test_a_snapshot_whose_checkpoint_is_gone_cannot_be_rolled_back_to(stores: Stores) -> None:
    stores.commit()
    stores.commit()
    record, payload = snapshot(1)  # offered late: the learner has moved on
    stores.offer(record=record, payload=payload)
    stores.serve_step()
    before = observed(stores)
    with pytest.raises(SnapshotError, match=r"checkpoint of snapshot dates-1-.* is not kept"):
        roll_back(stores, record.manifest.snapshot_id)
    assert observed(stores) == before


# --- people's moves -------------------------------------------------------------------------------


def test_a_person_may_promote_a_held_candidate(stores: Stores) -> None:
    stores.serve_step()
    stores.commit()
    held = stores.offer(verdict="hold")
    promote(stores, held)
    assert stores.registry.status(TASK) == TaskStatus(held, False, 0)
    assert stores.registry.record(TASK, held).promoted_ms == LATER_MS
    assert stores.buffer.journal(TASK)[-1] == '{"kind":"promote"}'
    assert stores.buffer.state(TASK).step == 2


def test_rollback_serves_pins_and_forks_the_learner(stores: Stores) -> None:
    first, second = stores.serve_step(), stores.serve_step()
    stores.commit()
    roll_back(stores, first)
    assert stores.registry.status(TASK) == TaskStatus(first, True, 1)
    state = stores.buffer.state(TASK)
    assert (state.step, state.branch, state.last_step) == (1, 1, 3)
    assert state.checkpoint == b"checkpoint-1"
    assert stores.buffer.journal(TASK)[-1] == '{"kind":"rollback"}'
    assert stores.registry.record(TASK, first).promoted_ms == NOW_MS + 1  # first served then
    # The learner that had drawn before the rollback is refused; the next step has a new number.
    with pytest.raises(FencedError, match="branch of task dates is 1, not 0"):
        stores.commit(branch=0)
    assert stores.commit() == 4
    assert has_bytes(stores, second)


def test_rollback_to_the_untrained_calibration(stores: Stores) -> None:
    untrained = stores.offer()
    stores.serve_step()
    roll_back(stores, untrained)
    state = stores.buffer.state(TASK)
    assert (state.step, state.last_step, state.checkpoint) == (0, 1, None)
    assert not stores.registry.is_learnt(TASK, 1)
    pin(stores, False)
    stores.serve_step()
    assert stores.registry.is_learnt(TASK, 2)


def test_only_what_served_can_be_rolled_back_to(stores: Stores) -> None:
    stores.serve_step()
    stores.commit()
    held = stores.offer(verdict="hold")
    before = observed(stores)
    with pytest.raises(SnapshotError, match=f"snapshot {held} never served"):
        roll_back(stores, held)
    assert observed(stores) == before


@pytest.mark.parametrize("move", [promote, roll_back])
@pytest.mark.parametrize("expected", [None, "dates-0-stale"])
def test_a_stale_move_changes_nothing(stores: Stores, move: Serve, expected: str | None) -> None:
    first = stores.serve_step()
    stores.serve_step()
    before = observed(stores)
    with pytest.raises(FencedError, match=r"champion of task dates is .*dates-2-"):
        move(stores, first, expected)
    assert observed(stores) == before


# --- what the champion has learnt -----------------------------------------------------------------


def learnt(stores: Stores, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if stores.registry.is_learnt(TASK, step)]


def test_the_champion_has_learnt_the_steps_it_descends_from(stores: Stores) -> None:
    assert not stores.registry.is_learnt(TASK, 1)
    stores.commit()
    assert learnt(stores, 3) == []
    second = stores.serve_step()
    stores.commit()
    assert learnt(stores, 5) == [1, 2]
    stores.serve_step()
    assert learnt(stores, 5) == [1, 2, 3, 4]
    roll_back(stores, second)
    assert learnt(stores, 5) == [1, 2]
    pin(stores, False)
    fifth = stores.serve_step()
    assert learnt(stores, 6) == [1, 2, 5]
    stores.serve_step()
    roll_back(stores, fifth)
    pin(stores, False)
    stores.serve_step()
    assert learnt(stores, 8) == [1, 2, 5, 7]
    roll_back(stores, second)
    pin(stores, False)
    stores.serve_step()
    assert learnt(stores, 9) == [1, 2, 8]


def test_two_rollbacks_without_a_step_between(stores: Stores) -> None:
    served = [stores.serve_step() for _ in range(4)]
    roll_back(stores, served[2])
    roll_back(stores, served[0])
    pin(stores, False)
    stores.serve_step()
    assert learnt(stores, 6) == [1, 5]
    assert stores.registry.status(TASK).branch == 2


# --- restart --------------------------------------------------------------------------------------

BASE, OTHER = "b" * 64, "d" * 64  # `stores.snapshot` is of the first


def restart(stores: Stores, **changed: Any) -> None:
    status = stores.registry.status(TASK)
    fields: dict[str, Any] = {
        "task": TASK,
        "branch": status.branch,
        "expected_champion": status.champion,
        "now_ms": LATER_MS,
        "journal": '{"kind":"restart"}',
    }
    stores.registry.restart(Restart(**(fields | changed)))


def test_a_restart_begins_from_nothing_while_the_champion_serves(stores: Stores) -> None:
    champion = stores.serve_step()
    stores.commit()
    restart(stores)
    state = stores.buffer.state(TASK)
    assert (state.step, state.branch, state.last_step, state.checkpoint) == (0, 1, 2, None)
    assert stores.registry.status(TASK) == TaskStatus(champion, False, 1)
    assert stores.registry.relearning(range(PARTITIONS)) == {TASK: 1}
    assert stores.registry.left(TASK, BASE) == champion
    assert stores.registry.left(TASK, OTHER) is None
    assert stores.buffer.journal(TASK)[-1] == '{"kind":"restart"}'
    assert stores.commit() == 3
    assert stores.registry.relearning(range(PARTITIONS)) == {TASK: 1}
    second = stores.offer()
    assert stores.registry.relearning(range(PARTITIONS)) == {}
    assert stores.registry.status(TASK).champion == second
    assert all(stores.registry.is_learnt(TASK, step) for step in (1, 2, 3))


def test_a_learner_that_ran_before_a_restart_is_fenced(stores: Stores) -> None:
    stores.serve_step()
    restart(stores)
    before = observed(stores)
    for stale in ({"branch": 0, "expected_step": 1}, {"branch": 0}, {"expected_step": 1}):
        with pytest.raises(FencedError):
            stores.commit(**stale)
    with pytest.raises(FencedError, match="branch"):
        stores.offer(branch=0)
    for changed in ({"branch": 0}, {"expected_champion": "another"}):
        with pytest.raises(FencedError):
            restart(stores, **changed)
    assert observed(stores) == before


def test_the_champion_that_was_left_keeps_its_bytes(open_stores: OpenStores) -> None:
    stores = open_stores(kept_promotions=2)
    left = stores.serve_step()
    restart(stores, base=OTHER)
    served = [stores.serve_step() for _ in range(6)]
    assert left in stores.kept()
    assert stores.kept()[-1] == served[-1]
    assert len(stores.kept()) <= 4


def test_another_base_lifts_the_pin_and_only_its_snapshots_can_be_chosen(stores: Stores) -> None:
    first, second = stores.serve_step(), stores.serve_step()
    pin(stores, True)
    restart(stores, base=OTHER)
    assert stores.registry.status(TASK) == TaskStatus(second, False, 1, OTHER)
    for choose in (roll_back, promote):
        with pytest.raises(SnapshotError, match=r"belongs to base b+, .* learns on d+: change"):
            choose(stores, first)
    assert stores.registry.status(TASK).champion == second
    restart(stores, base=BASE)
    roll_back(stores, first)
    assert stores.registry.status(TASK).champion == first


def test_a_restart_on_the_same_base_keeps_the_pin(stores: Stores) -> None:
    stores.serve_step()
    pin(stores, True)
    restart(stores)
    assert stores.registry.status(TASK).pinned


def test_a_restart_from_a_kept_snapshot_serves_it_at_once(stores: Stores) -> None:
    first, second = stores.serve_step(), stores.serve_step()
    restart(stores, base=OTHER)
    stores.commit()
    restart(stores, base=BASE, snapshot_id=first)
    state = stores.buffer.state(TASK)
    assert (state.step, state.checkpoint, state.last_step) == (1, b"checkpoint-1", 3)
    assert stores.registry.status(TASK).champion == first
    assert stores.registry.relearning(range(PARTITIONS)) == {}
    assert not stores.registry.is_learnt(TASK, 2)
    assert stores.registry.left(TASK, BASE) == second
    with pytest.raises(SnapshotError, match="are not kept"):
        restart(stores, snapshot_id="dates-9-nothing")


def test_a_task_that_learnt_nothing_has_nothing_to_learn_anew(stores: Stores) -> None:
    restart(stores, base=OTHER)
    assert stores.registry.relearning(range(PARTITIONS)) == {}
    assert stores.registry.status(TASK) == TaskStatus(None, False, 1, OTHER)


# --- purge ----------------------------------------------------------------------------------------


def purge(stores: Stores, **changed: Any) -> None:
    status = stores.registry.status(TASK)
    fields: dict[str, Any] = {
        "task": TASK,
        "branch": status.branch,
        "expected_champion": status.champion,
        "purge": "asked-1",
        "producer": "p",
        "pair_id": None,
        "now_ms": LATER_MS,
    }
    stores.registry.purge(Purge(**(fields | changed)))


def three_snapshots(stores: Stores) -> tuple[str, str]:
    """Two pairs in the reservoir, two snapshots that served, one held; the first and the champion."""
    stores.ingest([incoming(n) for n in range(2)])
    stores.learn(priorities=random.Random(1))
    first, champion = stores.offer(), stores.serve_step()
    stores.commit()
    stores.offer(verdict="hold")
    return first, champion


def test_a_purge_deletes_all_but_the_champion_which_goes_with_the_next_offer(
    stores: Stores,
) -> None:
    first, champion = three_snapshots(stores)
    pin(stores, True)
    purge(stores)
    assert stores.kept() == [champion]
    state = stores.buffer.state(TASK)
    assert (state.step, state.last_step, state.checkpoint, state.branch) == (0, 3, None, 1)
    status = stores.registry.status(TASK)
    assert (status.champion, status.pinned, status.purging) == (champion, False, True)
    assert stores.registry.relearning(range(PARTITIONS)) == {TASK: 1}
    line = json.loads(stores.buffer.journal(TASK)[-1])
    assert (line["kind"], line["purge"], line["at_ms"]) == ("purge", "asked-1", LATER_MS)
    assert {first, champion} < set(line["snapshots"])
    assert len(line["snapshots"]) == 3
    with pytest.raises(SnapshotError, match="checkpoint"):
        roll_back(stores, champion)
    clean = stores.serve_step()
    assert stores.kept() == [clean]
    assert stores.registry.status(TASK) == TaskStatus(clean, False, 1)


def test_a_purged_champion_goes_even_if_the_clean_candidate_is_held(stores: Stores) -> None:
    three_snapshots(stores)
    purge(stores)
    stores.commit()
    held = stores.offer(verdict="hold")
    assert stores.registry.status(TASK) == TaskStatus(None, False, 1)
    assert stores.registry.champions(range(PARTITIONS)) == {}
    assert stores.kept() == [held]
    assert stores.serve_step() == stores.registry.status(TASK).champion


def test_a_purge_that_leaves_nothing_to_learn_ends_at_once(stores: Stores) -> None:
    three_snapshots(stores)
    stores.buffer.remove(TASK)
    assert stores.registry.status(TASK).tainted
    purge(stores)
    assert stores.registry.status(TASK) == TaskStatus(None, False, 1)
    assert stores.kept() == []
    assert stores.registry.relearning(range(PARTITIONS)) == {}


def test_what_was_left_at_a_change_of_base_is_purged_too(stores: Stores) -> None:
    three_snapshots(stores)
    restart(stores, base=OTHER)
    stores.serve_step()
    purge(stores)
    assert stores.registry.left(TASK, BASE) is None
    clean = stores.serve_step()
    assert stores.kept() == [clean]
    assert stores.registry.status(TASK).base == OTHER


def test_a_stale_purge_changes_nothing(stores: Stores) -> None:
    three_snapshots(stores)
    before = (observed(stores), stores.kept())
    for changed in ({"branch": 7}, {"expected_champion": "another"}):
        with pytest.raises(FencedError):
            purge(stores, **changed)
    assert (observed(stores), stores.kept()) == before
