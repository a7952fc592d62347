"""A stream of two tasks, and one with a drift, small enough to learn in a test."""

from __future__ import annotations

from edgeseq_core.corpus.streams import Phase, Question, Stream
from edgeseq_core.evaluate.methods.method import Terms
from edgeseq_core.model.base import Base
from tests.learn.rig import SMALL

PAIRS = 64  # a phase


def phase(name: str, task: str, answer: str, pairs: int = PAIRS) -> Phase:
    """Every source has the same answer: learnable in a few steps."""
    train = [(f"{task} {n}", answer) for n in range(pairs)]
    asked = [Question(f"{task} {n}", (answer,)) for n in range(1_000, 1_004)]
    return Phase(name, task, "exact", train, asked)


TWO_TASKS = Stream("two-tasks", "tasks", "nothing", [phase("a", "a", "y"), phase("b", "b", "n")])
# What is replayed contradicts the new regime at first, so that it takes longer.
AFTER = phase("after", "a", "n", 3 * PAIRS)
DRIFT = Stream("drift", "abrupt", "nothing", [phase("before", "a", "y"), AFTER])


def terms(base: Base, stream: Stream) -> Terms:
    """Batches of eight, two steps each; a base of a few short sequences."""
    return Terms(base, stream.tasks, SMALL, task_bytes=192 << 10, steps=2)
