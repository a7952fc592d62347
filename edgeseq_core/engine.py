"""What a predictor and the gate need of an engine; implementations live beside the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Stop = Literal["end", "length", "deadline", "cancelled"]


class SourceRow(NamedTuple):
    """One row of a batch; ``n_best`` answers are looked for side by side.

    ``constrained``: only of symbols that the task's targets have had.
    """

    task: str
    source: str
    n_best: int = 1
    constrained: bool = False


class PairRow(NamedTuple):
    """One row to be scored."""

    task: str
    source: str
    target: str


class Inferred(NamedTuple):
    """The served task that a source seems to belong to; ``task`` is None where that is not clear.

    ``confidence``: the probability of the likeliest task among those served.  ``between``: the two
    likeliest, where neither is clearly it; empty where the source is unlike what any task was taught.
    """

    task: str | None
    confidence: float = 0.0
    between: tuple[str, ...] = ()


class Answer(NamedTuple):
    """A target and the probability of the whole of it, exp(sum of log-probabilities)."""

    target: str
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A row's best answer, the snapshot that made it, how sure it is, and the next best answers."""

    target: str
    confidence: float  # as an Answer's
    tokens: int
    stop: Stop
    snapshot_id: str
    others: tuple[Answer, ...] = ()  # best first by probability and length, all targets different


class Score(NamedTuple):
    """Teacher-forced score of a pair: nats summed over ``tokens``, and whether greedy decoding is right."""

    loss: float
    tokens: int
    exact: bool


def never(_row: int) -> Stop | None:
    """No row stops before its end; an engine need not ask."""
    return None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one ``generate`` call; ``stop(row)`` is asked before each token."""

    max_tokens: int = 96
    stop: Callable[[int], Stop | None] = never


class Engine(Protocol):
    """Holds one base and one snapshot a task; a swap replaces one reference.

    A task that is seldom asked may be unloaded: then `infer` alone knows it, at about 1 KiB.
    """

    @property
    def base_digest(self) -> str:
        """The base's digest; a snapshot of another base is refused."""

    @property
    def max_source_tokens(self) -> int:
        """Longer sources are refused by the predictor."""

    def source_tokens(self, source: str) -> int:
        """Tokens of a source, to check its length and to batch by it."""

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        """Serve a task with these int8 bytes from the next batch on; raises SnapshotError."""

    def drop(self, task: str) -> None:
        """Stop serving a task, and forget its place."""

    def unload(self, task: str) -> None:
        """Let go of a task's snapshot, but not of its place for `infer`."""

    def know(self, task: str, payload: bytes) -> None:
        """Keep of these int8 bytes the task's place alone, as if unloaded; raises SnapshotError."""

    def snapshot_id(self, task: str) -> str | None:
        """The snapshot that is held of a task."""

    def held_bytes(self, task: str) -> int:
        """Memory that a task's snapshot takes; 0 where none is held."""

    def infer(self, sources: Sequence[str]) -> list[Inferred]:
        """The task that each source belongs to, of those served or unloaded, or why none is clearly it."""

    def generate(self, rows: Sequence[SourceRow], limits: Limits) -> list[Generation]:
        """Answers for rows of any tasks and widths in one batch, greedy ones where one is asked for.

        Raises KeyError for a task whose snapshot is not held.
        """

    def score(self, rows: Sequence[PairRow]) -> list[Score]:
        """Teacher-forced scores for rows of any tasks in one batch."""
