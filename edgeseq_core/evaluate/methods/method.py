"""The protocol of a method under test, and what every one of them is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.model.base import Base
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.settings import LearningSettings


@dataclass(frozen=True)
class Terms:
    """What all methods are given alike.

    Each may keep ``task_bytes`` a task beside the base, for whatever it likes: a calibration, a buffer.
    One that trains a whole model takes ``steps`` optimizer steps for each batch of ``batch`` new pairs, with
    ``learning.replay_per_step`` revisited pairs in each: more CPU-seconds than EdgeSeq's own settings cost.
    """

    base: Base
    tasks: Sequence[str]  # of the stream
    learning: LearningSettings
    task_bytes: int
    steps: int = 3

    @property
    def batch(self) -> int:
        """New pairs that come at once."""
        return self.learning.fresh_per_step


class Stored(NamedTuple):
    """Bytes a method holds: weights as int8 with all that serves, and pairs with what is kept of them."""

    model: int
    buffer: int


class Method(Protocol):
    """Learns one stream.  Pairs come once, in order; those of a task that has ended may not be asked for."""

    online: ClassVar[bool]  # False: it only collects, and learns when the stream has ended

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        """Take the next pairs of a task, at most a batch."""

    def end(self, *, last: bool) -> None:
        """The pairs of the task in hand are over (``last``: so is the stream)."""

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        """Greedy answers, as would be served now."""

    def stored(self) -> Stored:
        """What it holds now."""


def int8_bytes(model: EdgeFormer) -> int:
    """Bytes of a base in its file's form: int8 matrices with a scale a row, vectors in fp32."""
    return sum(
        p.numel() + 4 * p.shape[0] if p.ndim == 2 else 4 * p.numel() for p in model.parameters()
    )
