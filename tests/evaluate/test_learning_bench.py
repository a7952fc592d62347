"""A cell: every method learns the same stream under one protocol and is asked at the same moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

import pytest

from edgeseq_core.corpus.streams import Stream
from edgeseq_core.evaluate.learning_bench import CELL, Cell, identity, run_cell
from edgeseq_core.evaluate.measures import average_accuracy, backward_transfer, worst_drop
from edgeseq_core.evaluate.methods.registry import METHODS
from edgeseq_core.model.base import Base
from tests.evaluate.made import DRIFT, PAIRS, TWO_TASKS, terms

COLLECTORS = {"gdumb", "joint"}


def run(base: Base, method: str, stream: Stream = TWO_TASKS) -> Cell:
    return run_cell(stream, method, METHODS[method], terms(base, stream))


@pytest.fixture(scope="module")
def ran(base: Base) -> Callable[[str], Cell]:
    """A method's cell on the two tasks, run once for all tests here."""
    return lru_cache(partial(run, base))


# A few steps from a base that knows nothing teach nothing: instance-based adaptation has a test of its own.
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"suffix-rules", "instances"}))
def test_every_method_learns_a_stream_and_is_measured(
    ran: Callable[[str], Cell], method: str
) -> None:
    cell = ran(method)
    assert average_accuracy([[one.exact for one in cell.untrained]]) == 0
    assert len(cell.exact[-1]) == 2
    assert cell.pairs == 2 * PAIRS
    assert cell.learning_cpu_s > 0
    assert cell.model_bytes > 0
    assert cell.online == (method not in COLLECTORS)
    assert len(cell.matrix) == (2 if cell.online else 1)
    assert len(cell.hits) == (2 * PAIRS if cell.online else 0)
    assert max(cell.exact[-1]) == 100  # at least one of two trivial tasks is there at the end


def test_a_cell_is_the_same_again_and_survives_its_file(
    base: Base, ran: Callable[[str], Cell]
) -> None:
    first, second = ran("er"), run(base, "er")
    assert (first.matrix, first.checks, first.hits) == (second.matrix, second.checks, second.hits)
    assert CELL.validate_json(CELL.dump_json(first)) == first


def test_the_product_forgets_nothing_and_a_naive_learner_does(ran: Callable[[str], Cell]) -> None:
    own, naive = ran("edgeseq"), ran("fine-tuning")
    assert own.exact[0][0] == 100
    assert backward_transfer(own.exact) == worst_drop(own.exact, own.checks) == 0
    assert naive.exact[0][0] == 100
    assert backward_transfer(naive.exact) < 0


def test_a_drift_is_not_told_and_the_new_regime_replaces_the_old(base: Base) -> None:
    cell = run(base, "edgeseq", DRIFT)
    assert cell.exact[0] == [100, 0]
    assert cell.hits[PAIRS - 8 : PAIRS + 8] == "1" * 8 + "0" * 8  # nothing marked the change
    assert cell.exact[1] == [0, 100]


def test_what_decides_a_cell_is_in_its_identity(base: Base) -> None:
    own = terms(base, TWO_TASKS)
    other = replace(own, learning=own.learning.model_copy(update={"seed": 9}))
    made = {
        identity(TWO_TASKS, "er", own),
        identity(TWO_TASKS, "der++", own),
        identity(DRIFT, "er", own),
        identity(TWO_TASKS, "er", other),
    }
    assert len(made) == 4
    assert identity(TWO_TASKS, "er", own) in made
