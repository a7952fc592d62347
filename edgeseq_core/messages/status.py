"""What became of a pair: the question and the answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeseq_core.messages.fields import Identifier, Message, Note, TaskName, TimeMs
from edgeseq_core.messages.reply import SnapshotId

OutcomeState = Literal[
    "waiting",
    "held_out",
    "trained",
    "shed",
    "forgotten",
    "quarantined",
    "dead_lettered",
    "unknown",  # never seen, or outside the window in which ids are remembered
]


class StatusQuery(Message):
    """A question about a pair; sent on the requests topic, answered by the predictor."""

    kind: Literal["pair_status"] = "pair_status"
    request_id: Identifier
    task: TaskName
    producer: Identifier
    pair_id: Identifier
    sent_at_ms: TimeMs


class PairStatus(Message):
    """What became of a pair, and the first promoted snapshot that learnt it."""

    kind: Literal["pair_outcome"] = "pair_outcome"
    request_id: Identifier
    task: TaskName
    producer: Identifier
    pair_id: Identifier
    state: OutcomeState
    step: Annotated[int, Field(ge=0)] = 0  # 0: not trained
    snapshot_id: SnapshotId | None = None
    in_champion: bool = False
    detail: Note = ""
