"""What the predictor reports about itself, whatever the metrics system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgeseq_core.messages import Priority

Stage = Literal["queue", "compute", "total"]


class Meter:
    """Counts nothing; a service passes a subclass that does."""

    def request(self, task: str | None, outcome: str) -> None:
        """A reply was made: "answered", "remembered", "abstained", "repeated", or an error code."""

    def latency(self, stage: Stage, seconds: float) -> None:
        """How long an answered request spent in a stage."""

    def batch(self, rows: int) -> None:
        """A batch is answered together."""

    def queue(self, depth: Mapping[Priority, int]) -> None:
        """Waiting requests by priority."""

    def swap(self, task: str) -> None:
        """A task is served by another snapshot."""

    def swap_failed(self, task: str) -> None:
        """A champion could not be loaded; the old snapshot serves on."""

    def residents(self, held: int, cold: int, held_bytes: int) -> None:
        """How many served tasks the engine holds, and how many are loaded only when they are asked."""

    def cold_load(self, seconds: float) -> None:
        """A cold task was loaded so long after it was asked for."""

    def cold_loads_failed(self, tasks: int) -> None:
        """Cold tasks that were asked for and could not be loaded."""

    def snapshot_age(self, task: str, seconds: float) -> None:
        """How long ago the serving snapshot was promoted."""

    def freshness(self, task: str, seconds: float) -> None:
        """Arrival of one pair to its snapshot being served."""

    def dead_letter(self, reason: str) -> None:
        """A record could not be answered and went to the dead-letter topic."""

    def uncached(self, replies: int) -> None:
        """Replies that the shared reply cache did not take."""
