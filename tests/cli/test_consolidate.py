"""``edgeseq base consolidate`` on a real store: published and changed back, refused, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeseq_core.clock import SystemClock
from edgeseq_core.errors import FencedError
from edgeseq_core.keys import partition_of
from edgeseq_core.learn.loop import LearnerLoop
from edgeseq_core.model.base import Base
from edgeseq_core.replay.buffer import IncomingPair, Position
from edgeseq_core.replay.record import PairRecord, pack
from edgeseq_core.settings import LearningSettings
from edgeseq_core.testing.base import write_tiny_base
from tests.cli.conftest import Run, Stored
from tests.client.responder import PARTITIONS

TASK = "numbers"
PARTITION = partition_of(TASK, PARTITIONS)
START_S = 60.0  # a child imports torch
QUICK = LearningSettings(
    rank=2,
    fresh_per_step=16,
    replay_per_step=16,
    rehearsals_per_step=20,
    held_out_share=0.2,
    learning_rate=2e-2,
    warmup_steps=2,
)
DULL = QUICK.model_copy(update={"learning_rate": 4e-3, "rehearsals_per_step": 8})


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base of the instance."""
    path = write_tiny_base(tmp_path / "old.safetensors")
    monkeypatch.setenv("EDGESEQ_BASE__PATH", str(path))
    return path


def learner(stored: Stored, base: Base, settings: LearningSettings) -> LearnerLoop:
    return LearnerLoop(
        stored.buffer,
        stored.registry,
        base,
        settings,
        partitions=range(PARTITIONS),
        partition_count=PARTITIONS,
        clock=SystemClock(),
    )


def teach(stored: Stored, base: Base, settings: LearningSettings) -> str:
    """A task whose every target is the same, learnt; returns its champion."""
    digest, encode = base.header.record_digest, base.vocabulary.encode
    names = [{"producer": "p", "pair_id": str(n), "topic": "pairs", "offset": n} for n in range(60)]
    pairs = [
        IncomingPair(
            task=TASK,
            arrived_ms=1,
            correction=False,
            record=pack(
                PairRecord(
                    arrived_ms=1,
                    correction=False,
                    source_ids=tuple(encode(f"number {n}")),
                    target_ids=tuple(encode("x")),
                    **name,  # type: ignore[arg-type]
                ),
                digest,
            ),
            **name,  # type: ignore[arg-type]
        )
        for n, name in enumerate(names)
    ]
    stored.buffer.ingest(
        PARTITION,
        pairs,
        epoch=stored.buffer.acquire("consumer", PARTITION),
        topic="pairs",
        expected=None,
        position=Position("log", len(pairs)),
        now_ms=1,
    )
    loop = learner(stored, base, settings)
    for _ in range(40):
        loop.run_once()
    champion = stored.registry.status(TASK).champion
    assert champion is not None
    return champion


def test_it_is_published_and_changed_back(
    run: Run, stored: Stored, old: Path, tmp_path: Path
) -> None:
    champion, state = teach(stored, Base.load(old), DULL), stored.buffer.state(TASK)
    payload = stored.registry.payload(stored.registry.record(TASK, champion).manifest)
    new = tmp_path / "new.safetensors"
    ran = run("base", "consolidate", str(new), "--cpu-s", "3", "--json")
    assert ran.code == 0, ran.err
    outcome, change = ran.documents
    (score,) = outcome["trials"][-1]["scores"]
    assert (outcome["published"], score["task"], score["learnt_from"]) == (True, TASK, 49)
    assert score["after"] > score["before"]
    status = stored.registry.status(TASK)
    assert status.champion == change["snapshot_id"] != champion
    assert status.base == Base.load(new).digest
    back = run("base", "change", str(old), "--former", str(new))
    assert back.code == 0, back.err
    assert f"is served by {champion}" in back.out
    assert stored.registry.status(TASK).champion == champion
    assert (
        stored.registry.payload(stored.registry.record(TASK, champion).manifest),
        stored.buffer.state(TASK).checkpoint,
    ) == (payload, state.checkpoint)


def test_one_that_is_no_better_is_refused_with_a_table(
    run: Run, stored: Stored, old: Path, tmp_path: Path
) -> None:
    champion = teach(stored, Base.load(old), QUICK)  # all right: nothing can rise
    ran = run("base", "consolidate", str(tmp_path / "new.safetensors"), "--cpu-s", "0.5")
    assert ran.code == 1
    assert "100.0 %" in ran.out
    assert "not published, and nothing was changed" in ran.err
    assert "the mean of the tasks does not rise" in ran.err
    status = stored.registry.status(TASK)
    assert (status.champion, status.base) == (champion, None)
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


@pytest.mark.timeout(2 * START_S)
def test_killed_in_the_middle_it_leaves_all_on_the_old_base(
    stored: Stored, old: Path, tmp_path: Path
) -> None:
    base = Base.load(old)
    champion, state = teach(stored, base, QUICK), stored.buffer.state(TASK)
    mine = stored.buffer.acquire("learner", PARTITION)
    new = tmp_path / "new.safetensors"
    words = (sys.executable, "-m", "edgeseq_services.cli", "base", "consolidate", str(new))
    child = subprocess.Popen([*words, "--cpu-s", "600"], env=dict(os.environ))
    try:
        deadline = time.monotonic() + START_S
        while not _fenced(stored, mine):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    status = stored.registry.status(TASK)
    assert (status.champion, status.base) == (champion, None)
    assert stored.buffer.state(TASK) == state
    assert not new.exists()
    loop = learner(stored, base, QUICK)  # and learning goes on
    loop.look()
    assert loop.run_once() is None or stored.buffer.state(TASK).last_step > state.last_step


def _fenced(stored: Stored, epoch: int) -> bool:
    """Whether the child has read the tasks, and trains."""
    try:
        stored.buffer.confirm("learner", {PARTITION: epoch})
    except FencedError:
        return True
    return False


def test_a_base_does_not_shrink(run: Run, stored: Stored, old: Path, tmp_path: Path) -> None:
    teach(stored, Base.load(old), QUICK)
    ran = run("base", "consolidate", str(tmp_path / "new.safetensors"), "--grow", "1")
    assert ran.code == 2
    assert "ask for more than that" in ran.err


def test_a_time_that_is_none_is_refused(run: Run) -> None:
    ran = run("base", "consolidate", "new.safetensors", "--cpu-s", "0")
    assert ran.code == 2
    assert "give at least a few seconds" in ran.err
