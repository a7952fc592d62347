"""A task's calibration grows from need, at the same step however often its learner restarts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeseq_core.learn.example import Example
from edgeseq_core.learn.growth_policy import need_to_grow, start_over
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.loop import Turn
from edgeseq_core.learn.progress import Progress
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.growth import LEAST_ROWS, ROW_TEXT_BYTES, grow
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.study import TorchStudy
from edgeseq_core.settings import LearningSettings
from tests.learn.rig import SMALL, Learner, numbered

TASK = "numbers"
NEEDY = SMALL.model_copy(  # nothing is ever good enough, and every look sees a plateau
    update={"growth_look_pairs": 16, "growth_below_exact": 1.1, "growth_least_gain": 9.9}
)


def looks(
    losses: list[float], *, exact: float = 0.5, settings: LearningSettings = NEEDY
) -> list[bool]:
    """Whether each of these fading losses, a look apart, shows a need."""
    progress, found = Progress(prequential_exact=exact), []
    for loss in losses:
        progress.scored += settings.growth_look_pairs
        progress.prequential_loss = loss
        found.append(bool(need_to_grow(progress, settings)))
    return found


@pytest.mark.parametrize(
    ("losses", "exact", "needs"),
    [
        ([0.50, 0.49, 0.30, 0.29], 0.7, [False, True, False, True]),
        ([0.50, 0.55], 0.7, [False, True]),  # worse is a plateau too
        ([0.50, 0.40, 0.30, 0.20], 0.7, [False] * 4),  # it still gets better
        ([0.05, 0.05, 0.05], 0.99, [False] * 3),  # it is good
    ],
)
def test_a_task_that_is_not_good_and_gains_little_must_grow(
    losses: list[float], exact: float, needs: list[bool]
) -> None:
    settings = LearningSettings(growth_below_exact=0.9, growth_least_gain=0.1)
    assert looks(losses, exact=exact, settings=settings) == needs


def test_a_task_in_an_unknown_script_grows_at_the_first_look() -> None:
    settings = LearningSettings(growth_unknown_share=0.5)
    for scored, unknown, exact, needs in (
        (31, 0.9, 0.0, False),  # too few to tell
        (32, 0.4, 0.0, False),
        (32, 0.9, 0.95, False),  # it does well without
        (32, 0.9, 0.0, True),
    ):
        progress = Progress(scored=scored, unknown=unknown, prequential_exact=exact)
        assert ("90% of the sources hold" in need_to_grow(progress, settings)) == needs


def test_a_learner_notices_an_unknown_script(base: Base) -> None:
    learner = Learner(base, NEEDY.model_copy(update={"growth_least_gain": 0.0}))  # no plateaus
    learner.loop._gates = False
    learner.ingest(TASK, [("漢 6" if n % 4 else "six", "six") for n in range(24)])
    first, second, third = (turn.step.grown for turn in learner.learn())
    assert (first, second) == ("", "")
    assert "75% of the sources hold characters unknown to the base" in third


def test_between_looks_and_after_a_drift_nothing_is_concluded() -> None:
    progress = Progress(scored=16, prequential_loss=0.5)
    assert not need_to_grow(progress, NEEDY)  # the first look
    progress.scored = 31
    assert not need_to_grow(progress, NEEDY)
    start_over(progress)
    progress.scored = 47
    assert not need_to_grow(progress, NEEDY)  # the first look since
    progress.scored = 63
    assert "0% of the answers are right, and 16 pairs have" in need_to_grow(progress, NEEDY)


def taught(base: Base, *, restart_every: int = 10_000) -> tuple[Learner, list[Turn]]:
    learner, turns = Learner(base, NEEDY), list[Turn]()
    learner.ingest(TASK, numbered(0, 70))
    while done := learner.learn(turns=restart_every):
        turns += done
        learner.restart()
    return learner, turns


def shape_of(base: Base, payload: bytes | None) -> int:
    assert payload is not None
    served = Calibration.from_payload(payload, base.model, base.vocabulary, base.digest)
    return served.config.encoder_layers


def test_restarts_change_no_byte_across_growth(base: Base) -> None:
    (once, turns), (restarted, _) = taught(base), taught(base, restart_every=1)
    grew = [bool(turn.step.grown) for turn in turns]
    assert grew.count(True) == 1
    assert 2 <= grew.index(True) < len(grew) - 2
    assert restarted.checkpoints == once.checkpoints
    assert restarted.payloads(TASK) == once.payloads(TASK)
    assert restarted.buffer.journal(TASK) == once.buffer.journal(TASK)
    assert shape_of(base, once.payload(TASK)) == base.config.encoder_layers


def test_a_rebuild_grows_at_the_same_step(base: Base) -> None:
    learner = Learner(base, NEEDY)
    learner.ingest(TASK, numbered(0, 70))
    records = {pair.key: pair.record for pair in learner.buffer.read(TASK, "bulk")}
    learner.learn()
    journal = learner.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, records, base, NEEDY)
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)


def test_a_rollback_to_before_growth_learns_on_from_there_and_grows_again(base: Base) -> None:
    learner, _ = taught(base)
    kept, registry = learner.registry.kept(TASK), learner.registry
    served = [
        record.manifest
        for record in registry.history(TASK)
        if record.promoted_ms is not None and record.manifest.snapshot_id in kept
    ]
    small = next(m for m in served if m.config["calibration"]["encoder_layers"] == 1)
    line = json.dumps({"kind": "rollback", "snapshot_id": small.snapshot_id})
    champion = registry.status(TASK).champion
    registry.rollback(TASK, small.snapshot_id, expected_champion=champion, now_ms=1, journal=line)
    learner.restart()
    assert shape_of(base, learner.payload(TASK)) == 1
    learner.ingest(TASK, numbered(100, 170))
    turns = learner.learn()
    assert [turn.step.grown for turn in turns].count("") == len(turns) - 1
    assert turns[0].learner.calibration.config.encoder_layers == base.config.encoder_layers


def test_the_gate_lets_a_grown_candidate_follow_a_small_champion(base: Base) -> None:
    learner, _ = taught(base)
    depth = {
        record.manifest.snapshot_id: record.manifest.config["calibration"]["encoder_layers"]
        for record in learner.registry.history(TASK)
    }
    compared = {
        (depth[record.gate.reference_id], depth[record.manifest.snapshot_id])
        for record in learner.registry.history(TASK)
        if record.gate and record.gate.reference_id
    }
    assert compared >= {(1, 1), (1, 3)}


def test_tasks_of_one_learner_grow_apart(base: Base) -> None:
    alone, _ = taught(base)
    learner = Learner(base, NEEDY)
    learner.ingest(TASK, numbered(0, 70))
    learner.ingest("letters", [(f"number {n}", "ABCD"[n % 4]) for n in range(24)])  # equal sources
    learner.learn()
    assert learner.payloads(TASK) == alone.payloads(TASK)
    assert shape_of(base, learner.payload("letters")) == 1


def test_growth_stops_short_of_the_largest_snapshot(base: Base) -> None:
    def grown(limit: int) -> TaskLearner:
        settings = NEEDY.model_copy(update={"growth_max_bytes": limit})
        learner = Learner(base, settings)
        learner.ingest(TASK, numbered(0, 40))
        return learner.learn()[-1].learner

    def size(layers: int) -> int:  # with a few rows, which the room left for rows outweighs
        shape = replace(none.calibration.config, encoder_layers=layers)
        return len(grow(none.averaged(), shape, seed=0).to_payload(base.digest))

    none = grown(0)
    assert none.calibration.config.encoder_layers == 1
    assert grown(1 << 20).calibration.config.encoder_layers == 3
    rows = 1 + (LEAST_ROWS * (base.config.d_model + ROW_TEXT_BYTES))
    less = grown(rows + (size(2) + size(3)) // 2)
    assert less.calibration.config.encoder_layers == 2


def test_rows_of_its_own_stop_short_of_the_largest_snapshot(base: Base) -> None:
    """More characters than there is room for: the most frequent are met first, the others are spelt."""
    whole = CalibrationConfig(rank=NEEDY.rank, encoder_layers=3)
    bare = Calibration(base.model, base.vocabulary, whole).to_payload(base.digest)
    limit = len(bare) + 200 * (base.config.d_model + ROW_TEXT_BYTES)
    learner = Learner(base, NEEDY.model_copy(update={"growth_max_bytes": limit}))
    learner.ingest(TASK, [(chr(0x4E00 + n) * 2, chr(0xAC00 + n)) for n in range(300)])
    task = learner.learn()[-1].learner
    most = task.calibration.config.most_rows
    assert task.calibration.config.encoder_layers == 3
    assert task.calibration.owned_rows == most == 200
    assert 0.9 * limit < len(task.payload()) <= limit


@pytest.mark.parametrize(("below_exact", "layers"), [(0.2, 1), (1.1, 3)])
def test_a_good_task_stays_as_it_is(base: Base, below_exact: float, layers: int) -> None:
    changes = {"growth_look_pairs": 60, "growth_below_exact": below_exact}
    learner = Learner(base, NEEDY.model_copy(update=changes))
    learner.loop._gates = False
    learner.ingest(TASK, [(f"number {n}", "e") for n in range(120)])
    turns = learner.learn()
    task = turns[-1].learner
    assert task.progress.prequential_exact > 0.4
    assert task.calibration.config.encoder_layers == layers


@pytest.mark.parametrize(
    ("word", "pairs", "layers"), [("漢字", 40, 3), ("漢字", 31, 1), ("word", 40, 1)]
)
def test_a_task_that_begins_anew_is_as_deep_as_its_kept_sources_need(
    base: Base, word: str, pairs: int, layers: int
) -> None:
    study = TorchStudy(base, CachingEncoder(base, calibrated_layers=SMALL.encoder_layers))
    learner = TaskLearner(base, TASK, SMALL, study)
    kept = [
        Example(f"{n}", "reservoir", f"{word} {n}", "e", "pairs", n, 0, 0.0, 0.0)
        for n in range(pairs)
    ]
    learner.begin_anew(kept, [], {})
    assert learner.calibration.config.encoder_layers == layers
    learner.step(1, [], [], kept[:8])
    assert all(tensor.isfinite().all() for tensor in learner.calibration.tensors.values())
    resumed = TaskLearner.from_checkpoint(learner.to_checkpoint(), base, TASK, SMALL, study)
    for one in (learner, resumed):
        one.step(2, [], [], kept[8:16])
    assert resumed.to_checkpoint() == learner.to_checkpoint()
