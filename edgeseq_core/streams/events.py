"""What the consumer tells whoever measures it; the default listens to nothing."""

from __future__ import annotations


class ConsumerEvents:
    """Override what is of interest; called on the consumer's own thread."""

    def pairs(self, task: str, outcome: str, count: int) -> None:
        """Pairs of a task by what became of them."""

    def dead_letter(self, reason: str) -> None:
        """A record went to the dead-letter topic."""

    def log_reset(self, topic: str) -> None:
        """A log was found re-created, truncated or expired."""

    def control(self, action: str, outcome: str) -> None:
        """A control message was applied, refused, passed on, or its reply topic was not allowed."""

    def batch(self, seconds: float) -> None:
        """One batch of one partition was stored."""

    def paused(self, partitions: int) -> None:
        """Partitions that wait: the fresh part is over its budget, or the store refuses."""

    def lag(self, topic: str, partition: int, records: int) -> None:
        """Records of a partition not yet consumed."""
