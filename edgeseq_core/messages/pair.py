"""A labelled pair: what a producer teaches."""

from __future__ import annotations

from typing import Literal

from edgeseq_core.messages.fields import Identifier, Message, Source, TaskName, Text, TimeMs


class Pair(Message):
    """One labelled example; ``pair_id`` is the producer's own, remembered for a window."""

    kind: Literal["pair"] = "pair"
    pair_id: Identifier
    producer: Identifier
    task: TaskName
    source: Source
    target: Text
    sent_at_ms: TimeMs
