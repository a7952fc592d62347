"""The one answer to a request."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edgeseq_core.messages.fields import DurationMs, Identifier, Message, Note, Strict, TaskName

ErrorCode = Literal[
    "unknown_task",
    "missing_task",
    "too_long",
    "overloaded",
    "expired",
    "cancelled",
    "unsupported_source",
    "invalid",
    "internal",
]
SnapshotId = Annotated[str, Field(min_length=1, max_length=128)]
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Hypothesis(Strict):
    """One answer and its score (log-probability, nats); a remembered correction has none."""

    target: Annotated[str, Field(max_length=8192)]
    score: Annotated[float | None, Field(allow_inf_nan=False)]

    @property
    def confidence(self) -> float | None:
        """The probability of the whole target, 0 to 1; None where the model did not make it."""
        return None if self.score is None else min(1.0, math.exp(self.score))


class PairName(Strict):
    """What names a pair within its task."""

    producer: Identifier
    pair_id: Identifier


class ReplyError(Strict):
    """Why a request has no answer."""

    code: ErrorCode
    detail: Note = ""


class Timings(Strict):
    """Where the time went inside the predictor, milliseconds."""

    queue_ms: DurationMs
    compute_ms: DurationMs
    total_ms: DurationMs


class Reply(Message):
    """Hypotheses best first, or an abstention, or a typed error; names its snapshot."""

    kind: Literal["reply"] = "reply"
    request_id: Identifier
    task: TaskName | None = None
    hypotheses: list[Hypothesis] = Field(default_factory=list)
    confidence: Confidence | None = None
    abstained: bool = False
    snapshot_id: SnapshotId | None = None
    # Younger than its schema version, so it is written only where the request named no task.
    task_confidence: Annotated[Confidence | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )
    # As young: written only where the first hypothesis is what this correction said, word for word.
    memory: Annotated[PairName | None, Field(exclude_if=lambda value: value is None)] = None
    error: ReplyError | None = None
    timings: Timings

    @model_validator(mode="after")
    def _check_answer(self) -> Self:
        if self.error is None and self.snapshot_id is None:
            raise ValueError("a reply without an error names its snapshot")
        if self.error is not None and self.hypotheses:
            raise ValueError("a reply with an error has no hypotheses")
        return self
