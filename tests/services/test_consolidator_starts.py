"""When the consolidator begins, and how it waits after it gave way or a base was judged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.settings import load_settings
from edgeseq_services import consolidation_run, consolidator
from edgeseq_services.consolidator import ConsolidatorService
from edgeseq_services.handover import GaveWay
from edgeseq_services.runtime import MAIN_LOOP, Context

LEARNT = 5_000


class World:
    """A service whose tasks, runs and time are made up."""

    def __init__(self, service: ConsolidatorService, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service, self.now, self.learnt = service, 1_000.0, LEARNT
        service._quiet_since = self.now
        self.flat, self.runs = ["a", "b"], 0
        self.outcome: str | Exception = "refused"
        self.waiting = False
        monkeypatch.setattr(consolidator.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(consolidator, "learnt", lambda *_: self.learnt)
        monkeypatch.setattr(consolidator, "flat_tasks", lambda *_, **__: self.flat)
        monkeypatch.setattr(service, "_waiting", lambda: self.waiting)
        monkeypatch.setattr(consolidation_run.ConsolidationRun, "run", lambda _: self._run())

    def _run(self) -> str:
        self.runs += 1
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def passes(self, seconds: int) -> int:
        """Looks once a second for so long; how many runs there were."""
        before = self.runs
        for _ in range(seconds):
            self.now += 1
            self.service.run_once()
        return self.runs - before

    def count(self, outcome: str) -> float:
        registry = self.service._to.registry
        name = "edgeseq_consolidator_runs_total"
        return registry.get_sample_value(name, {"outcome": outcome}) or 0.0


@pytest.fixture
def world(
    redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr(consolidator, "IDLE_S", 0.0)
    context = Context(
        settings=load_settings(
            redis={"url": redis_url, "key_prefix": prefix},
            consolidator={"automatic": True, "folder": tmp_path, "quiet_s": 10},
        )
    )
    context.health.watch(MAIN_LOOP, limit_s=60)
    service = ConsolidatorService(context)
    yield World(service, monkeypatch)
    service.drain()


def test_it_begins_once_it_has_been_quiet_and_tasks_are_flat(world: World) -> None:
    world.flat = ["a"]
    assert world.passes(100) == 0
    world.flat = ["a", "b"]
    assert world.passes(100) == 0  # nothing was learnt since it looked
    world.learnt += 1
    assert world.passes(30) == 1


def test_pairs_that_wait_or_are_learnt_between_looks_put_it_off(world: World) -> None:
    for _ in range(10):
        world.waiting = True
        assert world.passes(1) == 0
        world.waiting = False
        assert world.passes(9) == 0
    for _ in range(10):
        world.learnt += 1
        assert world.passes(10) == 0
    assert world.passes(25) == 1


@pytest.mark.parametrize("outcome", ["refused", "published"])
def test_a_base_that_was_judged_is_the_last_for_a_while(
    world: World, tmp_path: Path, outcome: str
) -> None:
    world.outcome = outcome
    assert world.passes(30) == 1
    assert world.count(outcome) == 1
    assert json.loads((tmp_path / "last.json").read_text())["learnt"] == LEARNT
    world.learnt += 10_000
    assert world.passes(200) == 0


def test_after_giving_way_it_waits_twice_as_long_each_time(world: World) -> None:
    world.outcome = GaveWay("pairs wait")
    began = [at for at in range(1, 400) if world.passes(1)]
    waits = [b - a for a, b in pairwise(began)]
    assert world.count("gave_way") == len(began) >= 4
    assert waits[:3] == [
        pytest.approx(20, abs=2),
        pytest.approx(40, abs=2),
        pytest.approx(80, abs=2),
    ]
    world.outcome = "refused"
    assert world.passes(500) == 1


def test_a_task_that_cannot_be_judged_is_told_and_tried_again_with_more_pairs(world: World) -> None:
    world.outcome = ConfigError("task a is pinned to its champion: unpin it first")
    assert world.passes(200) == 1
    assert world.count("failed") == 1
    world.learnt += 1
    assert world.passes(30) == 1


def test_without_a_folder_it_says_who_starts_it(redis_url: str) -> None:
    context: Any = Context(settings=load_settings(redis={"url": redis_url}))
    with pytest.raises(ConfigError, match="start it by `edgeseq up`"):
        ConsolidatorService(context)
