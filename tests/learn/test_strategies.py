"""Every strategy on the real loop: it repeats, survives restarts, and is rebuilt byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.model.base import Base
from edgeseq_core.settings import EngineChoice, LearningSettings
from tests.learn.rig import SMALL, Learner, numbered

TASK = "numbers"
STRATEGIES: dict[str, dict[str, Any]] = {
    "balanced": {"replay": "balanced"},
    "loss": {"replay": "loss"},
    "mir": {"replay": "mir"},
    "anchor": {"objective": "anchor", "anchor_strength": 0.5},
    "distillation": {"objective": "distillation"},
    "cls-er": {"objective": "consistency", "average": "ema-pair"},
    "snapshots": {"average": "snapshots"},
}
ENGINES: list[EngineChoice] = ["auto", "torch"]


def settings(strategy: str, engine: EngineChoice = "auto") -> LearningSettings:
    return LearningSettings(**SMALL.model_dump() | STRATEGIES[strategy] | {"engine": engine})


class Recorded(Learner):
    """Keeps every record, as Kafka's log would."""

    records: dict[str, bytes]

    def teach(self, start: int, stop: int, *, turns: int = 10_000) -> None:
        self.ingest(TASK, numbered(start, stop))
        self.records |= {p.key: p.record for p in self.buffer.read(TASK, "bulk")}
        while self.learn(turns=turns):
            self.rehearse()
            if turns < 10_000:
                self.restart()

    def rehearse(self) -> None:
        """As while nothing waits."""
        if not self.buffer.waiting(0):
            while self.loop.run_once():
                pass


def learnt(base: Base, config: LearningSettings, *, turns: int = 10_000) -> Recorded:
    learner = Recorded(base, config)
    learner.records = {}
    for start in range(0, 72, 24):
        learner.teach(start, start + 24, turns=turns)
    return learner


@pytest.fixture(scope="module")
def plain(base: Base) -> Recorded:
    return learnt(base, SMALL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_that_is_killed_and_resumed_or_rebuilt_gives_equal_bytes(
    base: Base, plain: Recorded, strategy: str, engine: EngineChoice
) -> None:
    config = settings(strategy, engine)
    once, resumed = learnt(base, config), learnt(base, config, turns=1)
    assert resumed.checkpoints == once.checkpoints
    assert resumed.payloads(TASK) == once.payloads(TASK)
    assert resumed.buffer.journal(TASK) == once.buffer.journal(TASK)
    if engine == "auto":
        assert once.checkpoints[-1] != plain.checkpoints[-1]
    journal = once.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, once.records, base, config)
    assert store.state(TASK) == once.buffer.state(TASK)
    assert registry.status(TASK) == once.registry.status(TASK)
