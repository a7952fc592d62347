"""Following the champions: verified swaps, failures that keep the old one, freshness."""

from __future__ import annotations

import threading

import pytest

from edgeseq_core.errors import StoreUnavailableError
from edgeseq_core.messages import StatusQuery
from edgeseq_core.replay.buffer import PairOutcome, StepCommit, TaskSettings
from edgeseq_core.replay.memory import MemoryStore
from edgeseq_core.serving.lineage import Lineage
from edgeseq_core.serving.pair_status import PairStatusReader
from edgeseq_core.serving.residents import Residents
from edgeseq_core.serving.watch import SnapshotWatch
from edgeseq_core.snapshots.manifest import SnapshotManifest, SnapshotRecord
from edgeseq_core.snapshots.memory_registry import MemoryRegistry
from edgeseq_core.snapshots.registry import TaskStatus
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.testing.engine import FakeEngine, fake_payload
from tests.serving.examples import CountingMeter, offer


class World:
    """A store, a registry, an engine and a watch on a clock set by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(partitions=2)
        self.registry = MemoryRegistry(self.store.memory)
        self.engine = FakeEngine()
        self.meter = CountingMeter()
        self.champion: dict[str, str] = {}
        self.epochs = {n: self.store.acquire("learner", n) for n in range(2)}
        self.watch = self.new_watch()

    def new_watch(self) -> SnapshotWatch:
        return self.watch_of(Residents(self.engine, budget_bytes=1 << 20, clock=self.clock))

    def watch_of(self, residents: Residents) -> SnapshotWatch:
        return SnapshotWatch(
            self.engine,
            residents,
            self.registry,
            self.store,
            partitions=range(2),
            clock=self.clock,
            meter=self.meter,
        )

    def promote(self, task: str, step: int, **fields: object) -> str:
        """Offer a candidate that serves at once; returns its id."""
        one = offer(
            task,
            step,
            parent=self.champion.get(task),
            mark=f"m{step}",
            now_ms=self.clock.wall_ms(),
            **fields,  # type: ignore[arg-type]
        )
        state = self.store.state(task)
        self.store.commit(
            StepCommit(
                task=task,
                epoch=1,
                branch=0,
                expected_step=state.step,
                step=step,
                checkpoint=b"checkpoint",
                journal="{}",
            )
        )
        assert self.registry.offer(one)
        self.champion[task] = one.record.manifest.snapshot_id
        return self.champion[task]


@pytest.fixture
def world() -> World:
    return World()


def test_a_new_champion_is_swapped_in_once(world: World) -> None:
    first = world.promote("dates", 1)
    verbs = world.promote("verbs", 1)
    assert sorted(world.watch.poll()) == sorted([first, verbs])
    assert world.watch.poll() == []
    second = world.promote("dates", 2)
    assert world.watch.poll() == [second]
    assert (world.engine.snapshot_id("dates"), world.engine.snapshot_id("verbs")) == (second, verbs)
    assert sorted(world.meter.swaps) == ["dates", "dates", "verbs"]


def test_not_ready_before_the_first_poll(world: World) -> None:
    assert not world.watch.ready
    world.watch.poll()
    assert world.watch.ready


def test_a_champion_of_another_base_is_passed_over_and_the_old_one_serves(world: World) -> None:
    first = world.promote("dates", 1)
    world.watch.poll()
    world.promote("dates", 2, base="another")
    reads = 0
    real = world.registry.record

    def counted(task: str, snapshot_id: str) -> SnapshotRecord:
        nonlocal reads
        reads += 1
        return real(task, snapshot_id)

    world.registry.record = counted  # type: ignore[method-assign]
    for _ in range(3):
        assert world.watch.poll() == []
        world.clock.advance(30)
    assert reads == 1
    world.promote("dates", 3, base="another")
    assert world.watch.poll() == []
    assert world.engine.snapshot_id("dates") == first
    assert world.meter.failures == ["dates"]  # counted and said once, however many follow
    fourth = world.promote("dates", 4)
    assert world.watch.poll() == [fourth]
    world.promote("dates", 5, base="another")
    world.watch.poll()
    assert world.meter.failures == ["dates", "dates"]


def test_a_predictor_of_the_new_base_waits_for_the_first_champion_of_it(world: World) -> None:
    world.promote("dates", 1, base="former")
    assert world.watch.poll() == []
    assert world.watch.ready
    assert world.engine.snapshot_id("dates") is None
    assert world.watch.cannot_load("dates")  # the task is not unknown
    second = world.promote("dates", 2)
    assert world.watch.poll() == [second]
    assert not world.watch.cannot_load("dates")


def test_bytes_that_fail_are_left_alone_for_a_while(world: World) -> None:
    first = world.promote("dates", 1)
    world.watch.poll()
    world.promote("dates", 2, payload=b"no snapshot")
    assert world.watch.poll() == []
    assert world.engine.snapshot_id("dates") == first
    assert world.meter.failures == ["dates"]
    world.watch.poll()
    assert world.meter.failures == ["dates"]  # left alone for a while
    world.clock.advance(0.3)
    world.watch.poll()
    assert world.meter.failures == ["dates", "dates"]
    assert world.watch.cannot_load("dates")
    third = world.promote("dates", 3)
    assert world.watch.poll() == [third]  # a good one is not held up
    assert not world.watch.cannot_load("dates")


def test_bytes_that_are_not_the_manifests_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote("dates", 1)
    real = world.registry.payload

    def damaged(manifest: SnapshotManifest) -> bytes:
        return real(manifest) + b" "

    with monkeypatch.context() as patched:
        patched.setattr(world.registry, "payload", damaged)
        assert world.watch.poll() == []
    assert world.meter.failures == ["dates"]
    world.clock.advance(1)
    assert len(world.watch.poll()) == 1


def test_bytes_that_the_engine_cannot_read_are_refused(world: World) -> None:
    world.promote("dates", 1, payload=b"no snapshot")
    assert world.watch.poll() == []
    assert world.engine.snapshot_id("dates") is None
    assert world.meter.failures == ["dates"]


def test_freshness_counts_each_pair_once_and_no_rollback(world: World) -> None:
    now_ms = world.clock.wall_ms()
    first = world.promote("dates", 1, arrivals_ms=(now_ms - 500, now_ms - 250))
    world.watch.poll()
    assert world.meter.fresh == [("dates", 0.5), ("dates", 0.25)]
    world.clock.advance(1)
    second = world.promote("dates", 2, arrivals_ms=(now_ms + 900,))
    world.watch.poll()
    assert world.meter.fresh[2:] == [("dates", 0.1)]
    world.registry.rollback(
        "dates",
        first,
        expected_champion=second,
        now_ms=world.clock.wall_ms(),
        journal="{}",
    )
    assert world.watch.poll() == [first]
    assert len(world.meter.fresh) == 3


def test_freshness_of_champions_between_two_polls_is_counted(world: World) -> None:
    world.promote("dates", 1)
    world.watch.poll()
    now_ms = world.clock.wall_ms()
    world.promote("dates", 2, arrivals_ms=(now_ms,))
    world.promote("dates", 3, arrivals_ms=(now_ms,))
    world.promote("dates", 4, arrivals_ms=(now_ms,))
    world.clock.advance(2)
    world.watch.poll()
    assert world.meter.fresh == [("dates", 2.0)] * 3


def test_freshness_ignores_what_was_promoted_before_the_start(world: World) -> None:
    now_ms = world.clock.wall_ms()
    world.promote("dates", 1, arrivals_ms=(now_ms,))
    world.clock.advance(3600)
    world.new_watch().poll()
    assert world.meter.fresh == []


def test_the_settings_of_a_task_arrive(world: World) -> None:
    world.watch.poll()
    assert world.watch.abstain_below("dates") == 0.0
    assert not world.watch.has_memory("dates")
    world.store.set_task("dates", TaskSettings(abstain_below=0.4, memory=True))
    world.clock.advance(1)
    world.watch.poll()
    assert world.watch.abstain_below("dates") == 0.4
    assert world.watch.has_memory("dates")


def test_a_task_without_champion_is_no_longer_served(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.promote("dates", 1)
    world.watch.poll()
    monkeypatch.setattr(world.registry, "champions", lambda _partitions: {})
    world.watch.poll()
    assert world.engine.snapshot_id("dates") is None


def test_an_unreachable_store_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = world.promote("dates", 1)
    world.watch.poll()
    stop = threading.Event()
    beats: list[int] = []
    real = world.registry.champions

    def failing(partitions: range) -> dict[str, str]:
        if len(beats) < 2:
            raise StoreUnavailableError("down")
        return real(partitions)

    def beat() -> None:
        beats.append(len(beats))
        if len(beats) == 4:
            stop.set()

    monkeypatch.setattr(world.registry, "champions", failing)
    world.watch.run(stop, poll_ms=1, beat=beat)
    assert len(beats) == 4
    assert world.engine.snapshot_id("dates") == first


# --- what became of a pair ----------------------------------------------------------------------------


def test_the_first_snapshot_that_learnt_a_step(world: World) -> None:
    ids = {step: world.promote("dates", step) for step in (2, 5, 9)}
    lineage = Lineage(world.registry)
    champion = ids[9]
    wanted = {1: 2, 2: 2, 3: 5, 5: 5, 6: 9, 9: 9}
    for step, first in wanted.items():
        assert lineage.first_since("dates", champion, step) == ids[first]
    assert lineage.first_since("dates", champion, 10) is None
    ids[12] = world.promote("dates", 12)
    assert lineage.first_since("dates", ids[12], 10) == ids[12]
    assert lineage.first_since("dates", ids[5], 6) is None  # after a rollback to 5


def test_a_long_line_is_read_in_a_few_round_trips(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [world.promote("dates", step) for step in range(1, 101)]
    reads: list[str] = []
    record, history = world.registry.record, world.registry.history
    monkeypatch.setattr(
        world.registry, "record", lambda task, name: (reads.append(name), record(task, name))[1]
    )
    monkeypatch.setattr(
        world.registry, "history", lambda task: (reads.append("all"), history(task))[1]
    )
    assert Lineage(world.registry).first_since("dates", ids[-1], 3) == ids[2]
    assert len(reads) <= 20


def query(pair_id: str) -> StatusQuery:
    return StatusQuery(request_id="q", task="dates", producer="p", pair_id=pair_id, sent_at_ms=1)


def test_a_pair_nobody_saw_is_unknown(world: World) -> None:
    answer = PairStatusReader(world.store, world.registry).answer(query("x"))
    assert (answer.state, answer.step, answer.snapshot_id) == ("unknown", 0, None)


def test_a_trained_pair_names_its_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PairStatusReader(world.store, world.registry)
    monkeypatch.setattr(
        world.store, "outcome", lambda _task, _producer, _pair: PairOutcome("trained", step=2)
    )
    learnt = {"now": False}
    monkeypatch.setattr(world.registry, "is_learnt", lambda _task, _step: learnt["now"])
    held = reader.answer(query("p"))
    assert (held.state, held.step, held.in_champion, held.snapshot_id) == (
        "trained",
        2,
        False,
        None,
    )
    world.promote("dates", 1)
    third = world.promote("dates", 3)
    world.promote("dates", 4)
    learnt["now"] = True
    status: TaskStatus = world.registry.status("dates")
    assert status.champion == world.champion["dates"]
    known = reader.answer(query("p"))
    assert (known.in_champion, known.snapshot_id) == (True, third)


def test_the_fake_engine_refuses_what_is_no_payload_of_the_task() -> None:
    engine = FakeEngine()
    with pytest.raises(Exception, match="another task"):
        engine.swap("dates", "x", fake_payload("verbs", "v"))
