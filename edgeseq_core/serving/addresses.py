"""Reply addresses from record headers: allow-listed topics that exist, and partitions they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgeseq_core.clock import Clock
from edgeseq_core.keys import HEADER_REPLY_PARTITION, HEADER_REPLY_TOPIC, Topics
from edgeseq_core.serving.queued import ReplyAddress

Headers = Iterable[tuple[str, bytes]]

LOOK_AGAIN_S = 5.0  # a topic or partition that was not there is asked for again after this
ABSENT_KEPT = 1024


def header(headers: Headers, name: str) -> str | None:
    """The last value of a header as text; None when absent or no UTF-8."""
    found = None
    for key, value in headers:
        if key == name and value is not None:
            found = value
    try:
        return None if found is None else found.decode()
    except UnicodeDecodeError:
        return None


class ReplyAddresses:
    """Knows which reply partitions exist; used by one thread."""

    def __init__(
        self, topics: Topics, partitions_of: Callable[[str], Iterable[int] | None], clock: Clock
    ) -> None:
        self._allowed = topics.replies
        self._partitions_of = partitions_of
        self._clock = clock
        self._known: dict[str, frozenset[int]] = {}
        self._absent: dict[ReplyAddress, float] = {}  # -> when to look again

    def read(self, headers: Headers) -> ReplyAddress | None:
        """The address in the headers; None when it is missing, not allowed, or does not exist.

        Allowed are the reply topic and topics named after it: "<reply topic>.<anything>".
        """
        topic = header(headers, HEADER_REPLY_TOPIC)
        digits = header(headers, HEADER_REPLY_PARTITION) or ""
        if topic is None or not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
            return None
        if topic != self._allowed and not topic.startswith(f"{self._allowed}."):
            return None
        address = ReplyAddress(topic, int(digits))
        return address if self._exists(address) else None

    def _exists(self, address: ReplyAddress) -> bool:
        if address.partition in self._known.get(address.topic, ()):
            return True
        now_s = self._clock.monotonic()
        if now_s < self._absent.get(address, 0.0):
            return False
        if partitions := frozenset(self._partitions_of(address.topic) or ()):
            self._known[address.topic] = partitions
        if address.partition in partitions:
            return True
        if len(self._absent) >= ABSENT_KEPT:
            self._absent.clear()
        self._absent[address] = now_s + LOOK_AGAIN_S
        return False
