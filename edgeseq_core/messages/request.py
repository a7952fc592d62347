"""A request for a prediction."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from edgeseq_core.messages.fields import Identifier, Message, Source, TaskName, TimeMs

Priority = Literal["interactive", "normal", "bulk"]


class Request(Message):
    """What a client wants answered; a repeated ``request_id`` gets the same answer."""

    kind: Literal["request"] = "request"
    request_id: Identifier
    task: TaskName | None = None
    source: Source
    n_best: Annotated[int, Field(ge=1, le=8)] = 1
    # Younger than its schema version, so it is written only where it is asked for.
    constrained: Annotated[bool, Field(exclude_if=operator.not_)] = False
    deadline_ms: TimeMs | None = None  # absolute wall clock
    timeout_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = None  # from receipt
    priority: Priority = "interactive"
    sent_at_ms: TimeMs
