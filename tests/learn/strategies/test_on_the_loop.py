"""Every strategy on the real loop: it repeats, survives restarts, and is rebuilt byte for byte."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from edgeseq_core.errors import ConfigError
from edgeseq_core.learn.checkpoint_header import read_header
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.model.base import Base
from edgeseq_core.settings import EngineChoice, LearningSettings, StrategySettings, load_settings
from tests.learn.rig import SMALL, Learner, numbered

TASK = "numbers"
STRATEGIES: dict[str, dict[str, Any]] = {
    "balanced": {"replay": "balanced"},
    "loss": {"replay": "loss"},
    "mir": {"replay": "mir"},
    "anchor": {"objective": "anchor", "anchor_strength": 0.5},
    "distillation": {"objective": "distillation"},
    "der++": {"objective": "dark-replay"},
    "cls-er": {"objective": "consistency", "average": "ema-pair"},
    "snapshots": {"average": "snapshots"},
}
ENGINES: list[EngineChoice] = ["auto", "torch"]


def settings(strategy: str, **others: Any) -> LearningSettings:
    return LearningSettings(**SMALL.model_dump() | STRATEGIES[strategy] | others)


class Recorded(Learner):
    """Keeps every record, as Kafka's log would."""

    records: dict[str, bytes]

    def teach(self, start: int, stop: int, *, restarts: bool = False) -> None:
        """Pairs and their rehearsals; ``restarts``: in a new process each turn."""
        self.ingest(TASK, numbered(start, stop))
        self.records |= {p.key: p.record for p in self.buffer.read(TASK, "bulk")}
        while self.buffer.waiting(0):  # a turn after a person's decision finds itself fenced
            self.loop.run_once()
            if not self.buffer.waiting(0):
                while self.loop.run_once():
                    pass
            if restarts:
                self.restart()


def recorded(base: Base, config: LearningSettings) -> Recorded:
    learner = Recorded(base, config)
    learner.records = {}
    return learner


def learnt(base: Base, config: LearningSettings, *, restarts: bool = False) -> Recorded:
    learner = recorded(base, config)
    for start in range(0, 72, 24):
        learner.teach(start, start + 24, restarts=restarts)
    return learner


@pytest.fixture(scope="module")
def plain(base: Base) -> Recorded:
    return learnt(base, SMALL)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_that_is_killed_and_resumed_or_rebuilt_gives_equal_bytes(
    base: Base, plain: Recorded, strategy: str, engine: EngineChoice
) -> None:
    config = settings(strategy, engine=engine)
    once, resumed = learnt(base, config), learnt(base, config, restarts=True)
    assert resumed.checkpoints == once.checkpoints
    assert resumed.payloads(TASK) == once.payloads(TASK)
    assert resumed.buffer.journal(TASK) == once.buffer.journal(TASK)
    if engine == "auto":
        assert once.checkpoints[-1] != plain.checkpoints[-1]
    journal = once.buffer.journal(TASK)
    store, registry = rebuild(TASK, journal, once.records, base, config)
    assert store.state(TASK) == once.buffer.state(TASK)
    assert registry.status(TASK) == once.registry.status(TASK)


@pytest.mark.parametrize("strategy", ["anchor", "snapshots"])
def test_a_rebuild_follows_whom_the_learner_followed_when_a_person_chose(
    base: Base, strategy: str
) -> None:
    learner = recorded(base, settings(strategy, gate_interval_s=0.0))
    learner.teach(0, 48)
    served = [r for r in learner.registry.history(TASK) if r.promoted_ms is not None]
    champion, earlier = learner.registry.status(TASK).champion, served[-3].manifest.snapshot_id
    assert champion is not None
    line = {"kind": "promote", "action": "promote", "snapshot_id": earlier}
    learner.registry.promote(
        TASK, earlier, expected_champion=champion, now_ms=1, journal=json.dumps(line)
    )
    # Steps are taken before the next offer finds that another one serves.
    learner.teach(48, 72)
    followed = [step["champion"] for step in learner.steps(TASK)]
    after = [json.loads(entry) for entry in learner.buffer.journal(TASK)]
    promoted = next(at for at, entry in enumerate(after) if entry["kind"] == "promote")
    first = next(entry for entry in after[promoted:] if entry["kind"] == "step")
    assert first["champion"] == champion != earlier
    assert earlier in followed
    store, registry = rebuild(
        TASK, learner.buffer.journal(TASK), learner.records, base, learner.config
    )
    assert store.state(TASK) == learner.buffer.state(TASK)
    assert registry.status(TASK) == learner.registry.status(TASK)


@pytest.mark.parametrize("strategy", ["snapshots", "der++"])
def test_a_rollback_forks_a_strategy_s_memory_too(base: Base, strategy: str) -> None:
    learner = recorded(base, settings(strategy))
    learner.teach(0, 48)
    served = [r for r in learner.registry.history(TASK) if r.promoted_ms is not None]
    back, champion = served[-3].manifest, learner.registry.status(TASK).champion
    line = json.dumps({"kind": "rollback", "action": "rollback", "snapshot_id": back.snapshot_id})
    learner.registry.rollback(
        TASK, back.snapshot_id, expected_champion=champion, now_ms=1, journal=line
    )
    kept = learner.buffer.state(TASK).checkpoint
    assert kept is not None
    learner.teach(48, 72)
    if strategy == "snapshots":
        assert read_header(kept)["strategy"]["champion"] != back.snapshot_id
        (first, *_) = [step for step in learner.steps(TASK) if step["parent"] == back.step][-1:]
        assert first["champion"] == back.snapshot_id
    else:
        drawn = learner.buffer.draw(
            TASK, corrections=0, bulk=0, replay=[n / 100 for n in range(100)]
        )
        noted = {pair.key for pair in drawn.replay if pair.note}
        since = [step for step in learner.steps(TASK) if step["branch"] == 1]
        learnt_since = {key for step in since for key in (*step["bulk"], *step["released"])}
        assert noted
        assert noted <= learnt_since  # the notes of the branch before are gone
    store, _ = rebuild(TASK, learner.buffer.journal(TASK), learner.records, base, learner.config)
    assert store.state(TASK) == learner.buffer.state(TASK)


def test_an_average_that_does_worse_is_refused(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = recorded(base, settings("snapshots"))
    learner.teach(0, 72)
    offered = [json.loads(entry) for entry in learner.buffer.journal(TASK)]
    chosen = [entry.get("alternative", False) for entry in offered if entry["kind"] == "gate"]
    assert True in chosen
    assert False in chosen[3:]
    task = learner.loop._opened(TASK)
    spoilt = {name: 50 * t for name, t in task.learner.averages["champions"].items()}
    task.learner.averages["champions"] = spoilt
    learner.teach(72, 80)
    last = json.loads(learner.buffer.journal(TASK)[-1])
    assert (last["kind"], last.get("alternative")) == ("gate", None)


def test_the_default_is_what_it_was(base: Base, plain: Recorded) -> None:
    checkpoint = plain.buffer.state(TASK).checkpoint
    assert checkpoint is not None
    kinds = set(load(checkpoint))
    assert kinds == {"own", "average", "first", "second", "place", "signals"}
    assert not {"strategy", "notes"} & read_header(checkpoint).keys()
    assert all("champion" not in step for step in plain.steps(TASK))
    champion = plain.registry.history(TASK)[-1].manifest
    assert not StrategySettings.model_fields.keys() & champion.config.keys()
    assert champion.config.keys() - {"calibration"} == (
        LearningSettings.model_fields.keys() - StrategySettings.model_fields.keys()
    )


def test_a_default_average_is_the_one_of_before(base: Base) -> None:
    """Recomputed step by step from the checkpoints: nothing else may touch it."""
    learner, found = recorded(base, SMALL), list[dict[str, Any]]()
    commit = learner.buffer.commit
    learner.buffer.commit = lambda step: (  # type: ignore[method-assign]
        commit(step),
        found.append(load(step.checkpoint)),
    )[0]
    learner.teach(0, 24)
    for taken, (before, now) in enumerate(itertools.pairwise(found), 1):
        if len(before["average"]) != len(now["own"]):
            continue  # rows were added
        past = min(SMALL.averaging, taken / (taken + 5))
        wanted = torch.from_numpy(before["average"]).lerp(torch.from_numpy(now["own"]), 1 - past)
        assert np.array_equal(now["average"], wanted.numpy())


def test_a_manifest_names_the_strategy_that_made_it(base: Base) -> None:
    learner = recorded(base, settings("anchor"))
    learner.teach(0, 24)
    config = learner.registry.history(TASK)[-1].manifest.config
    assert (config["objective"], config["anchor_strength"]) == ("anchor", 0.5)
    assert "replay" not in config


def test_an_objective_without_its_averages_is_a_settings_error() -> None:
    with pytest.raises(ConfigError, match="consistency needs average ema-pair"):
        load_settings(learning={"objective": "consistency"})
