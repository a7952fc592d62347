"""Signals beside the loss: each names itself, restarts change nothing, none makes a task adapt."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from safetensors.numpy import load, save

from edgeseq_core.engine import Score
from edgeseq_core.learn.drift import MEMORY_PAIRS
from edgeseq_core.learn.example import Example
from edgeseq_core.learn.learner import TaskLearner
from edgeseq_core.learn.loop import Turn
from edgeseq_core.learn.rebuild import rebuild
from edgeseq_core.learn.signals import WATCHED, Signals, observed
from edgeseq_core.model.base import Base
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.telemetry.metrics import LearnerMetrics
from edgeseq_services.cli.overview import read_drifts
from edgeseq_services.learner import MeteredTurns
from tests.learn.rig import SMALL, Learner, Pairs

TASK = "answers"
DELTA = 0.002


def example(source: str) -> Example:
    return Example("log:p:1", "bulk", source, "target", "pairs", 1, 0, 0.5, 0.5)


def test_the_values_of_a_pair(base: Base) -> None:
    score = Score(loss=math.log(4), tokens=7, exact=True)
    assert observed(example("a漢b字"), score, None, base.vocabulary) == {
        "confidence": pytest.approx(0.25),
        "target_length": 7,
        "source_length": 4,
        "unknown_characters": 0.5,
    }
    assert observed(example("a"), score, 1.5, base.vocabulary)["distance"] == 1.5


@pytest.mark.parametrize(
    ("signal", "before", "after", "told"),
    [
        ("confidence", 0.9, 0.2, True),
        ("confidence", 0.2, 0.9, False),  # it learns
        ("target_length", 9.0, 5.0, True),
        ("source_length", 5.0, 9.0, True),
        ("unknown_characters", 0.0, 0.5, True),
        ("unknown_characters", 0.5, 0.0, False),
        ("distance", 1.0, 2.5, True),
        ("distance", 2.5, 1.0, False),  # its place gets better
    ],
)
def test_a_change_names_its_signal_and_when_it_began(
    signal: str, before: float, after: float, told: bool
) -> None:
    rng, signals, found = random.Random(1), Signals(delta=DELTA), list[dict[str, int]]()
    for at in range(360):
        level = before if at < 300 else after
        values = {"confidence": 0.5, signal: level + rng.gauss(0, 0.05)}
        found.append(signals.update(values))
    alarms = {at: alarm for at, alarm in enumerate(found) if alarm}
    if not told:
        assert not alarms
        assert not signals.since
        return
    ((at, alarm),) = alarms.items()  # shown more than once, told once
    assert 300 <= at < 330
    assert alarm == {signal: pytest.approx(at - 299, abs=2)}
    assert signals.since == {signal: pytest.approx(60, abs=2)}


def test_a_value_that_is_no_number_is_left_out() -> None:
    signals = Signals(delta=DELTA)
    assert signals.update({"confidence": math.nan}) == {}
    assert signals.to_state()[0]["counts"]["confidence"] == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_restarts_change_nothing(seed: int) -> None:
    rng, whole, pieces = random.Random(seed), Signals(delta=DELTA), Signals(delta=DELTA)
    for at in range(MEMORY_PAIRS + 600):
        if at % 211 == 0:
            kept, values = pieces.to_state()
            pieces = Signals(delta=DELTA)
            pieces.restore(json.loads(json.dumps(kept, sort_keys=True)), values)
        level = 1 + (at > 700) + 2 * (at > MEMORY_PAIRS)
        drawn = {name: abs(rng.gauss(level, 0.3)) for name in WATCHED}
        assert whole.update(drawn) == pieces.update(drawn)
        assert whole.statistics == pieces.statistics
        assert whole.since == pieces.since
    assert set(whole.since) == set(WATCHED) - {"confidence"}


def test_signals_of_another_version_are_let_go() -> None:
    signals = Signals(delta=DELTA)
    kept = {"counts": {"heat": 2, "source_length": 2}, "since": {"heat": 4, "source_length": 7}}
    signals.restore(kept, np.array([10_000, 10_000, 50_000, 70_000], np.int32))
    assert signals.statistics["source_length"] == 6.0
    assert signals.since == {"source_length": 7}


# --- in the learner ---------------------------------------------------------------------------------


def asked(form: str, start: int, stop: int) -> Pairs:
    """One answer, whatever is asked."""
    return [(form.format(n), "yes") for n in range(start, stop)]


@pytest.fixture(scope="module")
def changed(base: Base) -> tuple[Learner, list[Turn], dict[str, bytes]]:
    """Sources become longer and other ones, their answers stay."""
    learner, turns, records = Learner(base, SMALL), list[Turn](), dict[str, bytes]()
    pairs = asked("{:04d}", 0, 200) + asked("what is {}?", 200, 300)
    for at in range(0, len(pairs), 8):
        learner.ingest(TASK, pairs[at : at + 8])
        records |= {pair.key: pair.record for pair in learner.buffer.read(TASK, "bulk")}
        turns += learner.learn()
    return learner, turns, records


Changed = tuple[Learner, list[Turn], dict[str, bytes]]


def test_a_changed_input_is_told_and_the_task_does_not_adapt(changed: Changed) -> None:
    _, turns, _ = changed
    told = {signal for turn in turns for signal in turn.step.changed}
    assert {"source_length", "distance"} <= told
    assert not told & {"target_length", "unknown_characters"}
    task = turns[-1].learner
    assert (task.progress.drifts, task.adapts) == (0, False)
    assert task.changed_since["source_length"] == pytest.approx(100, abs=2)
    assert "loss" not in task.changed_since


def test_a_rebuild_has_the_same_signals(base: Base, changed: Changed) -> None:
    learner, _, records = changed
    store, _ = rebuild(TASK, learner.buffer.journal(TASK), records, base, SMALL)
    assert store.state(TASK) == learner.buffer.state(TASK)


def test_a_checkpoint_of_before_loads_and_its_signals_begin_anew(
    base: Base, changed: Changed
) -> None:
    data = changed[0].buffer.state(TASK).checkpoint
    assert data is not None
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["header"])
    del header["signals"]
    tensors = {name: tensor for name, tensor in load(data).items() if name != "signals"}
    before = save(tensors, metadata={"header": json.dumps(header)})
    encoder = CachingEncoder(base, calibrated_layers=SMALL.encoder_layers)
    old = TaskLearner.from_checkpoint(before, base, TASK, SMALL, encoder)
    new = TaskLearner.from_checkpoint(data, base, TASK, SMALL, encoder)
    assert old.drift.values == new.drift.values
    assert old.signals.since == {}
    assert new.signals.since
    assert new.signals.to_state()[0] != old.signals.to_state()[0]


def test_metrics_and_status_name_the_signal(changed: Changed) -> None:
    registry = CollectorRegistry()
    meter = MeteredTurns(LearnerMetrics(registry))
    for turn in changed[1]:
        meter.turn(turn)
    labels = {"task": TASK, "signal": "source_length"}
    assert registry.get_sample_value("edgeseq_learner_drift_alarms_total", labels) == 1
    assert registry.get_sample_value("edgeseq_learner_drifts_total", {"task": TASK}) is None
    drift = read_drifts(generate_latest(registry).decode())[TASK]
    assert not drift.flag
    assert set(drift.statistic) == {"loss", *WATCHED}
    assert drift.statistic["source_length"] > 10
    assert "source_length" in drift.recent
    assert "loss" not in drift.recent
