"""A run of the consolidator without its process: it gives way, and whatever cuts it off, one base is left."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from edgeseq_core.learn.change_base import change_base
from edgeseq_core.learn.consolidation_due import flat_tasks
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_base, read_header, write_base
from edgeseq_core.settings import Settings, load_settings
from edgeseq_core.telemetry.metrics import ConsolidatorMetrics
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.cli.store import Store
from edgeseq_services.consolidation_run import ConsolidationRun
from edgeseq_services.handover import GaveWay, Handover, bases, finish, present_base
from tests.learn.rig import SMALL, Learner

TASKS = ("upper", "lower")
pytestmark = pytest.mark.timeout(120)  # each trains, on a machine that may be busy
DULL = SMALL.model_copy(update={"learning_rate": 1e-6})


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_tiny_base(tmp_path / "old.safetensors")


@pytest.fixture
def learner(old: Path) -> Learner:
    """Two tasks that have learnt nothing yet, and could."""
    learner = Learner(Base.load(old), DULL)
    for task in TASKS:
        learner.ingest(task, [(f"number {n}", task[0]) for n in range(80)])
    learner.learn()
    return learner


def store_of(learner: Learner) -> Store:
    return Store(learner.buffer, learner.registry, 1)  # type: ignore[arg-type]


class Cut:
    """Counts look-ups; at one of them it does something."""

    def __init__(self, handover: Handover, at: str, act: Any) -> None:
        self._handover, self._at, self._act = handover, at, act

    def __call__(self, *, pairs: bool = True) -> None:
        if not pairs:  # it has asked, and waits until consumer and learner are stopped
            assert self._handover.held_back() == ("consumer", "learner")
            self._handover.grant()
        if self._at == ("training" if pairs else "asking"):
            self._act()


def run(learner: Learner, old: Path, handover: Handover, cut: Cut) -> str:
    settings: Settings = load_settings(base={"path": str(old)}, consolidator={"cpu_s": 5})
    metrics = ConsolidatorMetrics(CollectorRegistry())
    settings = settings.model_copy(update={"learning": DULL})
    return ConsolidationRun(store_of(learner), settings, handover, metrics, look_up=cut).run()


def state(learner: Learner) -> list[Any]:
    found = [(learner.buffer.state(t), learner.registry.status(t)) for t in TASKS]
    return [*found, *(learner.buffer.journal(t) for t in TASKS)]


def give_way() -> None:
    raise GaveWay("pairs wait")


@pytest.mark.parametrize("when", ["training", "asking"])
def test_it_gives_way_and_nothing_has_changed(
    learner: Learner, old: Path, tmp_path: Path, when: str
) -> None:
    before, handover = state(learner), Handover(tmp_path / "bases")
    handover.folder.mkdir()
    with pytest.raises(GaveWay, match="pairs wait"):
        run(learner, old, handover, Cut(handover, when, give_way))
    assert state(learner) == before
    assert list(handover.folder.iterdir()) == []
    assert handover.held_back() == ()


def test_what_a_task_learns_meanwhile_is_not_lost(
    learner: Learner, old: Path, tmp_path: Path
) -> None:
    handover = Handover(tmp_path / "bases")
    handover.folder.mkdir()

    def learn() -> None:
        learner.ingest("upper", [("number 900", "u")])
        learner.learn()

    with pytest.raises(GaveWay, match="task upper has learnt since"):
        run(learner, old, handover, Cut(handover, "asking", learn))
    assert bases(store_of(learner)) == set()
    assert list(handover.folder.iterdir()) == []


def test_it_is_published_and_the_store_says_which_base_that_is(
    learner: Learner, old: Path, tmp_path: Path
) -> None:
    handover = Handover(tmp_path / "bases")
    handover.folder.mkdir()
    assert present_base(old, handover.folder, store_of(learner)) == old
    assert run(learner, old, handover, Cut(handover, "", None)) == "published"
    (new,) = handover.folder.iterdir()
    assert read_header(new).notes["consolidated_from"] == read_header(old).digest
    assert bases(store_of(learner)) == {read_header(new).digest}
    assert present_base(old, handover.folder, store_of(learner)) == new
    other = write_tiny_base(tmp_path / "other.safetensors", seed=5)
    assert present_base(other, handover.folder, store_of(learner)) == other  # a person's choice
    new.unlink()
    assert present_base(old, handover.folder, store_of(learner)) == old


def consolidated(old: Path, to: Path) -> Path:
    """A base that says it was consolidated from another."""
    stored, tensors = read_base(old)
    header = stored.header
    notes = {**header.notes, "consolidated_from": header.digest}
    write_base(to, tensors, config=header.config, vocabulary=header.vocabulary, notes=notes)
    return to


def test_a_publication_that_was_killed_before_it_began_is_dropped(
    learner: Learner, old: Path, tmp_path: Path
) -> None:
    before, handover = state(learner), Handover(tmp_path)
    new = consolidated(old, tmp_path / "new.safetensors")
    handover.ask(old, new)
    pending = Handover(tmp_path).pending  # as after a restart
    assert pending is not None
    finish(pending, store_of(learner))
    handover.done()
    assert not new.exists()
    assert state(learner) == before
    assert (handover.pending, handover.granted) == (None, False)


def test_a_publication_that_was_killed_in_the_middle_is_finished(
    learner: Learner, old: Path, tmp_path: Path
) -> None:
    handover, store = Handover(tmp_path / "bases"), store_of(learner)
    handover.folder.mkdir()
    new = consolidated(old, handover.folder / "new.safetensors")
    asked = handover.ask(old, new)
    changes = change_base(
        learner.buffer,
        learner.registry,
        old=read_header(old),
        new=read_header(new),
        partitions=1,
        clock=learner.clock,
    )
    first = next(changes).task
    changes.close()
    (last,) = set(TASKS) - {first}
    assert learner.registry.status(last).base is None
    finish(asked, store)
    assert [learner.registry.status(task).base for task in TASKS] == [read_header(new).digest] * 2
    assert present_base(old, handover.folder, store) == new
    finish(asked, store)  # once more changes nothing
    learner.base = Base.load(new)
    learner.restart()
    while learner.loop.run_once():
        pass
    assert learner.registry.relearning([0]) == {}


def test_a_chain_of_consolidations_leads_back_to_the_configured_base(
    learner: Learner, old: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bases"
    first = consolidated(old, folder / "1.safetensors")
    second = consolidated(first, folder / "2.safetensors")
    store, headers = store_of(learner), [read_header(path) for path in (old, first, second)]
    for before, after in pairwise(headers):
        where = (learner.buffer, learner.registry)
        list(change_base(*where, old=before, new=after, partitions=1, clock=learner.clock))
    assert present_base(old, folder, store) == second
    assert present_base(first, folder, store) == second
    first.unlink()
    assert present_base(old, folder, store) == old


def test_plateaus_are_read_from_the_store(learner: Learner) -> None:
    where = (learner.buffer, learner.registry, 1)
    assert flat_tasks(*where, looks=1) == []
    learner.ingest("upper", [(f"number {n}", "u") for n in range(100, 500)])
    learner.learn()
    assert flat_tasks(*where, looks=1) == ["upper"]
    assert flat_tasks(*where, looks=2) == []
