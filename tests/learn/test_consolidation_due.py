"""When a base is consolidated without being asked: on plateaus, with enough that is new, not too often."""

from __future__ import annotations

import pytest

from edgeseq_core.learn import plateau, regime
from edgeseq_core.learn.consolidation_due import HOUR_MS, Last, too_few, too_soon
from edgeseq_core.learn.plateau import LOOK_PAIRS
from edgeseq_core.learn.progress import Progress
from edgeseq_core.settings import ConsolidatorSettings

SETTINGS = ConsolidatorSettings(hours_between=24, least_pairs=1_000, least_tasks=2)
LAST = Last(at_ms=5 * HOUR_MS, learnt=7_000)


@pytest.mark.parametrize(
    ("hour", "learnt", "why"),
    [
        (28, 9_000, "judged 23.0 hours ago"),
        (29, 7_999, "only 999 pairs"),
        (29, 8_000, ""),
    ],
)
def test_not_before_enough_time_and_pairs(hour: int, learnt: int, why: str) -> None:
    found = too_soon(LAST, SETTINGS, now_ms=hour * HOUR_MS, learnt=learnt)
    assert (why in found) if why else not found


def test_the_first_one_needs_pairs_alone() -> None:
    assert too_soon(Last(), SETTINGS, now_ms=10**6 * HOUR_MS, learnt=1_000) == ""


def test_enough_tasks_must_have_stopped_getting_better() -> None:
    assert too_few(["a"], SETTINGS) == "1 tasks have stopped getting better, 2 must have"
    assert too_few(["a", "b"], SETTINGS) == ""


def test_it_is_off_by_default() -> None:
    assert not ConsolidatorSettings().automatic


def looked(progress: Progress, *losses: float) -> int:
    for loss in losses:
        progress.scored, progress.prequential_loss = progress.scored + LOOK_PAIRS, loss
        plateau.look(progress)
    return progress.flat_looks


def test_a_plateau_is_a_loss_that_does_not_fall_below_its_least() -> None:
    progress = Progress()
    assert looked(progress, 1.0, 0.9, 0.8) == 0
    assert looked(progress, 0.9, 0.79, 0.77) == 3  # up and down, and never 5 % below 0.8
    assert looked(progress, 0.7) == 0


def test_between_looks_nothing_is_noted() -> None:
    progress = Progress(scored=LOOK_PAIRS - 1, prequential_loss=0.5)
    plateau.look(progress)
    assert (progress.flat_scored, progress.flat_loss) == (0, 0.0)


def test_a_drift_ends_a_plateau() -> None:
    progress = Progress()
    assert looked(progress, 0.5, 0.5, 0.5) == 2
    progress.latest = ["pairs|1"]
    assert regime.begin(progress, 1)
    assert (progress.flat_looks, progress.flat_loss) == (0, 0.0)
    assert looked(progress, 0.9, 0.9) == 1
