"""Pairs that a task holds out for its gate: which, for how long, and when they are learnt after all."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgeseq_core.learn import regime
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.replay.buffer import Move, Part
from edgeseq_core.settings import LearningSettings


@dataclass
class HeldOut:
    """The newest in ``recent``, older ones in ``probe``; one that leaves both is learnt."""

    config: LearningSettings
    recent: deque[Example] = field(default_factory=deque)
    probe: list[Example] = field(default_factory=list)

    def elect(self, learner: TaskLearner, fresh: Sequence[Example]) -> list[bool]:
        """Which fresh pairs are held out: by their key's draw, and never more than the share so far.

        The share is larger after a drift, until the gate has enough pairs to see what was learnt since.
        """
        progress = learner.progress
        share, out = self.config.held_out_share, progress.held_out
        if learner.adapts and len(self.since_drift(learner)) < self.config.gate_min_pairs:
            share = max(share, self.config.drift_held_out_share)
        seen, held = progress.pairs + out, list[bool]()
        for example in fresh:
            seen += 1
            held.append(example.part == "bulk" and example.draw < share and out + 1 <= share * seen)
            out += held[-1]
        return held

    def take(
        self, learner: TaskLearner, chosen: Sequence[Example]
    ) -> tuple[list[Example], list[Move]]:
        """Put new pairs into the recent slice; what it pushes out goes to the probe, or is released.

        Pairs older than the last drift leave the probe first.  Returns the released pairs (to be
        trained now) and all moves but theirs: one a pair, however far it came in this step.
        """

        def first_to_go(example: Example) -> tuple[bool, float]:
            return regime.is_before(learner.progress, example), example.priority

        released, moves = list[Example](), list[Move]()
        for example in chosen:
            self.recent.append(example)
            if len(self.recent) <= self.config.recent_pairs:
                continue
            self.probe.append(self.recent.popleft())
            if len(self.probe) > self.config.probe_pairs:
                released.append(gone := max(self.probe, key=first_to_go))
                self.probe.remove(gone)
        parts: tuple[tuple[Part, deque[Example] | list[Example]], ...]
        parts = (("recent", self.recent), ("probe", self.probe))
        for part, held in parts:
            for at, example in enumerate(held):
                if example.part != part:
                    priority = example.priority if part == "probe" else 0.0
                    moves.append(Move(example.key, example.part, part, priority))
                    held[at] = replace(example, part=part)
        return released, moves

    def since_drift(self, learner: TaskLearner) -> list[Example]:
        """Recent pairs that came since the last drift."""
        return [e for e in self.recent if not regime.is_before(learner.progress, e)]

    def is_mixed(self, learner: TaskLearner) -> bool:
        """Whether pairs from before the last drift are still held out."""
        return any(regime.is_before(learner.progress, e) for e in self.all)

    @property
    def all(self) -> list[Example]:
        """Every one of them."""
        return [*self.recent, *self.probe]
