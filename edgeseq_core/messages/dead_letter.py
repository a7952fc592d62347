"""A dead letter as people see it; on its topic it is the original bytes with headers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeseq_core.messages.fields import Strict, TimeMs

Reason = Literal[
    "too_large",
    "undecodable",
    "wrong_version",
    "wrong_kind",
    "invalid",
    "too_long",
    "reply_topic",
    "wrong_partition",
    "clock",
    "unknown_task",
    "quarantine_full",
]


class DeadLetter(Strict):
    """Why a record could not be used, where it came from, and how often it was tried."""

    reason: str
    detail: str
    origin_topic: str
    origin_partition: Annotated[int, Field(ge=0)]
    origin_offset: Annotated[int, Field(ge=0)]
    attempts: Annotated[int, Field(ge=1)]
    first_seen_ms: TimeMs
    size_bytes: Annotated[int, Field(ge=0)]
    headers: dict[str, str] = Field(default_factory=dict)  # the record's own
    partition: Annotated[int, Field(ge=0)]  # where it lies on the dead-letter topic
    offset: Annotated[int, Field(ge=0)]

    @property
    def name(self) -> str:
        """ "<partition>/<offset>" on the dead-letter topic: what redrive takes."""
        return f"{self.partition}/{self.offset}"
