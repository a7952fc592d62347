"""Consolidation: published only when no task falls and the mean rises; the way back; nothing before that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edgeseq_core.engine import PairRow
from edgeseq_core.errors import ConfigError, FencedError
from edgeseq_core.learn.change_base import TaskChange, change_base
from edgeseq_core.learn.consolidate import Outcome, consolidate, publish, widened
from edgeseq_core.learn.consolidation import ConsolidationSettings
from edgeseq_core.learn.consolidation_tasks import Kept, kept_tasks
from edgeseq_core.learn.consolidation_trials import TaskScore, why_not
from edgeseq_core.learn.relearn import relearn
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_base
from edgeseq_core.model.calibration import Calibration
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.replay.buffer import PARTS
from edgeseq_core.snapshots.registry import Offer
from tests.learn.rig import SMALL, Learner, Pairs, numbered

NUMBERS, LETTERS = "numbers", "letters"
RUN = ConsolidationSettings(cpu_s=24, base_rate=5e-3, calibration_rate=2e-2, batches=2, batch=16)
RUINOUS = ConsolidationSettings(cpu_s=10, base_rate=10.0, calibration_rate=10.0, batches=2)


def steps() -> Callable[[], float]:
    """A clock that counts one second a step."""
    seconds = count()
    return lambda: float(next(seconds))


def lettered(start: int, stop: int) -> Pairs:
    return [(f"letter {n}", "abcd"[n % 4]) for n in range(start, stop)]


@pytest.fixture
def learner(base: Base) -> Learner:
    """Two tasks that have learnt a little."""
    learner = Learner(base, SMALL)
    learner.ingest(NUMBERS, numbered(0, 60))
    learner.ingest(LETTERS, lettered(0, 60))
    learner.learn()
    return learner


def kept(learner: Learner) -> list[Kept]:
    return kept_tasks(learner.buffer, learner.registry, learner.base, partitions=1)


def consolidated(learner: Learner, out: Path, settings: ConsolidationSettings = RUN) -> Outcome:
    return consolidate(
        kept(learner), learner.base, out, settings=settings, learning=SMALL, clock=steps()
    )


def published(learner: Learner, outcome: Outcome) -> list[TaskChange]:
    """Publish, and start consumer and learner with the new base."""
    assert outcome.made is not None
    changes = list(
        publish(
            outcome.made,
            learner.buffer,
            learner.registry,
            old=learner.base,
            learning=SMALL,
            partitions=1,
            clock=learner.clock,
        )
    )
    run_on(learner, outcome.made.base)
    return changes


def run_on(learner: Learner, base: Base) -> None:
    learner.base = base
    learner.restart()
    learner._epoch = learner.buffer.acquire("consumer", 0)


def state(learner: Learner) -> dict[str, Any]:
    """All that serves and is learnt from."""
    found: dict[str, Any] = {}
    for task in (NUMBERS, LETTERS):
        found[task] = (
            learner.registry.status(task),
            learner.buffer.state(task),
            learner.buffer.journal(task),
            [learner.buffer.read(task, part) for part in PARTS],
            learner.payload(task),
        )
    return found


def test_a_base_that_is_better_is_published_and_serves_at_once(
    learner: Learner, tmp_path: Path
) -> None:
    outcome = consolidated(learner, tmp_path / "new.safetensors")
    assert outcome.made is not None
    assert outcome.steps == 24
    rows = outcome.trials[-1].scores
    assert not any(row.falls for row in rows)
    assert sum(row.after for row in rows) > sum(row.before for row in rows)
    before = {task: learner.registry.status(task).champion for task in (NUMBERS, LETTERS)}
    judged = {task: refit.learner.payload() for task, refit in outcome.made.refits.items()}
    changes = published(learner, outcome)
    assert {one.task: one.relearns for one in changes} == {LETTERS: False, NUMBERS: False}
    assert learner.registry.relearning([0]) == {}
    for change in changes:
        champion = learner.registry.status(change.task).champion
        assert champion == change.snapshot_id != before[change.task]
        assert learner.payload(change.task) == judged[change.task]  # what was judged serves
        assert learner.registry.is_learnt(change.task, 1)
    assert outcome.made.base.digest == Base.load(tmp_path / "new.safetensors").digest


def test_learning_goes_on_from_the_new_base(learner: Learner, tmp_path: Path) -> None:
    progress = learner.loop._opened(NUMBERS).learner.progress
    published(learner, consolidated(learner, tmp_path / "new.safetensors"))
    after = learner.loop._opened(NUMBERS).learner.progress
    assert (after.pairs, after.positions) == (progress.pairs, progress.positions)
    assert after.step == progress.step + 1
    learner.ingest(NUMBERS, numbered(60, 100))
    assert len(learner.learn()) == 5
    offered = learner.registry.history(NUMBERS, last=1)[0]
    assert offered.manifest.base == learner.base.digest
    assert offered.manifest.step == after.step
    assert offered.gate is not None
    assert offered.gate.reference_id == learner.registry.history(NUMBERS)[-6].manifest.snapshot_id


def test_a_base_that_grows_computes_what_it_did_then_learns_and_serves(
    learner: Learner, tmp_path: Path
) -> None:
    base, tasks = learner.base, kept(learner)
    champions = {
        one.task: Calibration.from_payload(one.payload, base.model, base.vocabulary, base.digest)
        for one in tasks
    }
    units = 2 * base.config.encoder_ffn
    wide, carried = widened(base, champions, units)
    rows = [PairRow(NUMBERS, *pair) for pair in numbered(60, 80)]
    scores = []
    for on, calibrations in ((base, champions), (wide, carried)):
        engine = TorchEngine(on)
        engine.swap(NUMBERS, NUMBERS, calibrations[NUMBERS].to_payload(on.digest))
        scores.append([score.loss for score in engine.score(rows)])
    assert scores[1] == pytest.approx(scores[0], rel=1e-4)

    old = state(learner)
    outcome = consolidated(learner, tmp_path / "wide", replace(RUN, encoder_ffn=units))
    published(learner, outcome)
    new = Base.load(tmp_path / "wide")
    assert new.config.encoder_ffn == units
    _, tensors = read_base(tmp_path / "wide")
    assert any(tensor[:, units // 2 :].any() for name, tensor in tensors.items() if "_down" in name)
    learner.ingest(NUMBERS, numbered(60, 100))
    assert learner.learn()[-1].learner.base.config.encoder_ffn == units
    where = (learner.buffer, learner.registry)
    for change in change_base(
        *where, old=new.header, new=base.header, partitions=1, clock=learner.clock
    ):
        assert change.snapshot_id
    run_on(learner, base)
    assert learner.payload(LETTERS) == old[LETTERS][-1]


def test_a_base_does_not_shrink(learner: Learner, tmp_path: Path) -> None:
    less = replace(RUN, encoder_ffn=learner.base.config.encoder_ffn)
    with pytest.raises(ConfigError, match="ask for more than that"):
        consolidated(learner, tmp_path / "new", less)
    assert list(tmp_path.iterdir()) == []


def test_the_way_back_restores_bytes_and_answers(learner: Learner, tmp_path: Path) -> None:
    old, before = learner.base, state(learner)
    sources = [source for source, _ in numbered(0, 20)]
    answers = learner.answers(NUMBERS, sources)
    outcome = consolidated(learner, tmp_path / "new.safetensors")
    published(learner, outcome)
    assert outcome.made is not None
    changes = change_base(
        learner.buffer,
        learner.registry,
        old=outcome.made.base.header,
        new=old.header,
        partitions=1,
        clock=learner.clock,
    )
    assert not any(change.relearns for change in changes)
    run_on(learner, old)
    after = state(learner)
    for task in (NUMBERS, LETTERS):
        was, now = before[task], after[task]
        assert isinstance(was, tuple)
        assert isinstance(now, tuple)
        assert now[0].champion == was[0].champion
        assert now[1].checkpoint == was[1].checkpoint
        assert now[3:] == was[3:]  # every pair's bytes, and those that serve
    assert learner.answers(NUMBERS, sources) == answers


def test_a_base_that_is_worse_leaves_everything_as_it_was(learner: Learner, tmp_path: Path) -> None:
    before = state(learner)
    outcome = consolidated(learner, tmp_path / "new.safetensors", RUINOUS)
    assert outcome.made is None
    assert [bool(trial.refused) for trial in outcome.trials] == [True, True]
    assert state(learner) == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_held_out_is_not_learnt_from(learner: Learner) -> None:
    for one in kept(learner):
        assert one.held_out
        assert not set(one.replay.pairs) & set(one.held_out)


def test_one_that_was_interrupted_in_training_has_changed_nothing(
    learner: Learner, tmp_path: Path
) -> None:
    before, seconds = state(learner), count()

    def stops() -> float:
        if (now := next(seconds)) > 5:
            raise KeyboardInterrupt
        return now

    with pytest.raises(KeyboardInterrupt):
        consolidate(
            kept(learner),
            learner.base,
            tmp_path / "new.safetensors",
            settings=RUN,
            learning=SMALL,
            clock=stops,
        )
    assert state(learner) == before
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_interrupted_while_published_is_ended_by_a_change_of_base(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = consolidated(learner, tmp_path / "new.safetensors")
    old = learner.base
    champions = {task: learner.registry.status(task).champion for task in (NUMBERS, LETTERS)}
    real = learner.registry.offer

    def first_alone(offer: Offer) -> bool:
        if len(learner.registry.relearning([0])) < 2:
            raise InterruptedError
        return real(offer)

    with monkeypatch.context() as patched:
        patched.setattr(learner.registry, "offer", first_alone)
        with pytest.raises(InterruptedError):
            published(learner, outcome)
    (left,) = learner.registry.relearning([0])
    assert learner.registry.status(left).champion == champions[left]  # where its base is loaded
    assert outcome.made is not None
    again = change_base(
        learner.buffer,
        learner.registry,
        old=old.header,
        new=outcome.made.base.header,
        partitions=1,
        clock=learner.clock,
    )
    assert {one.task for one in again if one.relearns} == {left}
    run_on(learner, outcome.made.base)
    while learner.loop.run_once() is not None:
        pass
    now = learner.registry.status(left).champion
    assert now is not None
    assert learner.registry.record(left, now).manifest.base == outcome.made.base.digest


def test_a_learner_that_runs_is_fenced_and_one_that_ran_since_is_noticed(
    learner: Learner, tmp_path: Path
) -> None:
    outcome = consolidated(learner, tmp_path / "new.safetensors")
    with pytest.raises(FencedError):
        learner.loop.look()
    run_on(learner, learner.base)
    learner.ingest(NUMBERS, numbered(60, 80))
    learner.learn()
    before = state(learner)
    with pytest.raises(ConfigError, match="has learnt since"):
        published(learner, outcome)
    assert state(learner) == before


def test_tasks_that_are_not_what_they_should_be_are_refused(learner: Learner) -> None:
    learner.registry.pin(NUMBERS, True, now_ms=1, journal="{}")
    with pytest.raises(ConfigError, match=f"task {NUMBERS} is pinned"):
        kept(learner)
    learner.registry.pin(NUMBERS, False, now_ms=2, journal="{}")
    learner.buffer.remove(NUMBERS, producer="offline", pair_id="3")
    with pytest.raises(ConfigError, match=f"task {NUMBERS} is to be learnt anew"):
        kept(learner)


def test_a_task_that_is_being_learnt_anew_is_refused(learner: Learner) -> None:
    relearn(learner.registry, LETTERS, clock=learner.clock)
    with pytest.raises(ConfigError, match=f"task {LETTERS} is to be learnt anew"):
        kept(learner)


def test_a_task_that_holds_out_nothing_is_refused(learner: Learner) -> None:
    learner.ingest("corrected", numbered(0, 20), correction=True)
    learner.learn()
    with pytest.raises(ConfigError, match="task corrected holds out no pairs"):
        kept(learner)


def test_a_file_that_is_there_is_never_overwritten(learner: Learner, tmp_path: Path) -> None:
    out = tmp_path / "new.safetensors"
    out.write_bytes(b"a base in use")
    with pytest.raises(ConfigError, match="name another file"):
        consolidated(learner, out)
    assert out.read_bytes() == b"a base in use"


def test_an_empty_store_is_told() -> None:
    with pytest.raises(ConfigError, match="teach some first"):
        kept(Learner(Base.load()))


def row(task: str, before: float, after: float, nats: float = 1.0) -> TaskScore:
    return TaskScore(task, 100, 200, before, after, 1.0, nats)


def test_the_rule() -> None:
    assert why_not([row("a", 50.0, 49.5), row("b", 50.0, 51.0)]) == []
    (fallen,) = why_not([row("a", 50.0, 49.0), row("b", 50.0, 60.0)])
    assert fallen == "task a falls from 50.0 to 49.0 % of 200 held-out pairs"
    (flat,) = why_not([row("a", 50.0, 49.5), row("b", 50.0, 50.5)])
    assert flat == "the mean of the tasks does not rise (50.00 to 50.00 %)"
    (lucky,) = why_not([row("a", 50.0, 51.0, 1.3), row("b", 50.0, 50.0, 0.9)])
    assert lucky == "the mean loss of the tasks rises (1.000 to 1.100 nats a token)"
