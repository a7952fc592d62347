"""What the learner's tests share: settings, pairs, and a record of what was committed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgeseq_core.learn.loop import LearnerLoop, Turn
from edgeseq_core.learn.offline import OfflineLearner
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import StepCommit
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.clock import FakeClock

SMALL = LearningSettings(
    rank=2,
    fresh_per_step=8,
    replay_per_step=8,
    recent_pairs=6,
    probe_pairs=6,
    held_out_share=0.3,
    gate_interval_s=0.0,
    rehearsals_per_step=1,
    learning_rate=2e-2,
    warmup_steps=2,
)
Pairs = list[tuple[str, str]]


def numbered(start: int, stop: int) -> Pairs:
    """Pairs whose target depends on the source."""
    return [(f"number {n}", "even" if n % 2 == 0 else "odd") for n in range(start, stop)]


class Learner(OfflineLearner):
    """An offline learner that notes every checkpoint, and can be restarted."""

    def __init__(self, base: Base, config: LearningSettings = SMALL) -> None:
        super().__init__(base, config, clock=FakeClock())
        self.checkpoints: list[str] = []
        commit = self.buffer.commit

        def noted(step: StepCommit) -> None:
            commit(step)
            self.checkpoints.append(hashlib.sha256(step.checkpoint).hexdigest())

        self.buffer.commit = noted  # type: ignore[method-assign]

    def restart(self) -> None:
        """A new process on the same store."""
        self.loop = LearnerLoop(
            self.buffer,
            self.registry,
            self.base,
            self.config,
            partitions=[0],
            partition_count=1,
            clock=self.clock,
        )

    def learn(self, *, turns: int = 10_000) -> list[Turn]:
        """Take turns while pairs wait: no rehearsals, so nothing depends on when this was called."""
        done: list[Turn] = []
        while len(done) < turns and self.buffer.waiting(0):
            turn = self.loop.run_once()
            assert turn is not None
            done.append(turn)
        return done

    def steps(self, task: str) -> list[dict[str, Any]]:
        """The task's step lines."""
        lines = [json.loads(line) for line in self.buffer.journal(task)]
        return [line for line in lines if line["kind"] == "step"]

    def payloads(self, task: str) -> list[str]:
        """Digests of all candidates, oldest first."""
        return [r.manifest.payload_digest for r in self.registry.history(task)]
