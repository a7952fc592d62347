"""What a table says of a drift: nothing of who had learnt nothing, no number of who never recovers."""

from __future__ import annotations

import math

import pytest

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate.learning_bench import Cell
from edgeseq_core.evaluate.quality import Quality
from edgeseq_core.evaluate.summary import summaries
from tests.evaluate.made import DRIFT, PAIRS, TWO_TASKS

HEADINGS = ("pairs to recover", "pairs below 90 %")


def cell(stream: Stream, seed: int, hits: str) -> Cell:
    """A method that answers all questions of two phases, and pairs like this."""
    phases = [Quality(100.0, 100.0)] * 2
    return Cell(
        "id",
        stream.name,
        "made",
        seed,
        untrained=phases,
        matrix=[phases] * 2,
        hits=hits,
        pairs=len(hits),
    )


def of_drift(*hits: str) -> dict[str, float]:
    """Means over cells, a seed each, that answered like this."""
    cells = [cell(DRIFT, seed, one) for seed, one in enumerate(hits)]
    (found,) = summaries(cells, {(DRIFT.name, made.seed): DRIFT for made in cells})
    return {h: found.values[h].mean for h in HEADINGS if h in found.values}


@pytest.mark.parametrize(
    ("after", "wanted"),
    [
        ("1" * 192, (50, 0)),  # the first is told by 50 pairs at the least
        ("0" * 32 + "1" * 160, (115, 27)),
        ("0" * 192, (math.inf, math.inf)),
    ],
)
def test_a_drift_has_a_measure_with_and_one_without_delay(
    after: str, wanted: tuple[float, float]
) -> None:
    assert of_drift("1" * PAIRS + after) == dict(zip(HEADINGS, wanted, strict=True))


def test_one_seed_that_never_recovers_leaves_no_mean() -> None:
    found = of_drift("1" * (PAIRS + 192), "1" * PAIRS + "0" * 192)
    assert set(found.values()) == {math.inf}


def test_who_had_learnt_nothing_has_nothing_to_recover() -> None:
    assert not of_drift("0" * PAIRS + "1" * 192)


def test_a_stream_of_tasks_has_no_drift() -> None:
    (found,) = summaries([cell(TWO_TASKS, 1, "1" * 2 * PAIRS)], {(TWO_TASKS.name, 1): TWO_TASKS})
    assert not set(HEADINGS) & set(found.values)
