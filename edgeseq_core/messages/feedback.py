"""Feedback on an answer: the right target, which becomes a correction pair."""

from __future__ import annotations

from typing import Literal

from edgeseq_core.messages.fields import Identifier, Message, Source, TaskName, Text, TimeMs


class Feedback(Message):
    """The right answer; carries source and task so that it works after every cache has expired."""

    kind: Literal["feedback"] = "feedback"
    pair_id: Identifier
    producer: Identifier
    request_id: Identifier | None = None  # the request whose reply it corrects
    task: TaskName
    source: Source
    target: Text
    sent_at_ms: TimeMs
