"""EdgeSeq itself: the service's learner over the in-memory store, gate and int8 snapshots included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from edgeseq_core.corpus.streams import Pair
from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.methods.method import Stored, Terms, int8_bytes
from edgeseq_core.learn.offline import OfflineLearner
from edgeseq_core.replay.buffer import TaskSettings

CALIBRATION_BYTES = (
    128 << 10
)  # of a task's bytes, so that it cannot grow; its reservoir gets the rest


class EdgeSeq:
    """A calibration a task on the frozen base; what answers is the champion of its gate."""

    online: ClassVar[bool] = True

    def __init__(self, terms: Terms, **strategy: Any) -> None:
        """``strategy``: settings of `StrategySettings` that differ from the defaults."""
        if terms.task_bytes <= CALIBRATION_BYTES:
            raise ConfigError(
                f"{terms.task_bytes} bytes a task leave no room beside a calibration: give more than "
                f"{CALIBRATION_BYTES}"
            )
        self._terms = terms
        own = {"growth_max_bytes": CALIBRATION_BYTES, **strategy}
        learning = terms.learning.model_copy(update=own)
        self._learner = OfflineLearner(terms.base, learning)
        settings = TaskSettings(reservoir_bytes=terms.task_bytes - CALIBRATION_BYTES)
        for task in terms.tasks:
            self._learner.buffer.set_task(task, settings)

    def learn(self, task: str, pairs: Sequence[Pair]) -> None:
        """As in a service that nothing else waits for: a step, rehearsals, and candidates to the gate."""
        self._learner.ingest(task, pairs)
        while self._learner.loop.run_once() is not None:
            pass

    def end(self, *, last: bool) -> None:
        """Nothing: no pair of another task can change this one."""

    def answers(self, task: str, sources: Sequence[str]) -> list[str]:
        return self._learner.answers(task, sources)

    def stored(self) -> Stored:
        tasks = self._terms.tasks
        payloads = sum(len(self._learner.payload(task) or b"") for task in tasks)
        kept = sum(sum(self._learner.buffer.stats(task).bytes.values()) for task in tasks)
        return Stored(int8_bytes(self._terms.base.model) + payloads, kept)
