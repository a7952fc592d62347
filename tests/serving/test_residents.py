"""Which tasks are held: those asked last, under a budget, and never one in use."""

from __future__ import annotations

import threading

import pytest

from edgeseq_core.errors import SnapshotError
from edgeseq_core.serving.residents import AWAY_S, Residents, Wish
from edgeseq_core.testing.clock import FakeClock
from edgeseq_core.testing.engine import FakeEngine, fake_payload
from tests.serving.examples import CountingMeter

SIZE = len(fake_payload("a", "1"))
NAMES = "abcd"


class World:
    """An engine under a budget of two tasks, and what the meter was told."""

    def __init__(self, budget: float = 2) -> None:
        self.clock, self.meter, self.engine = FakeClock(), CountingMeter(), FakeEngine()
        self.woken = 0
        self.residents = Residents(
            self.engine, budget_bytes=int(budget * SIZE), clock=self.clock, meter=self.meter
        )
        self.residents.subscribe(self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def load(self, *names: str) -> None:
        for name in names:
            self.residents.load(name, f"{name}-1", fake_payload(name, "1"))

    def note(self, *names: str) -> None:
        for name in names:
            self.residents.note(name, f"{name}-1")

    def held(self) -> str:
        return "".join(name for name in NAMES if self.engine.snapshot_id(name))

    def wish(self) -> Wish | None:
        return self.residents.next_wish(0)


@pytest.fixture
def world() -> World:
    return World()


def test_who_was_asked_longest_ago_is_let_go(world: World) -> None:
    world.load("a", "b")
    world.residents.blocked(["a"])
    world.load("c")
    assert world.held() == "ac"
    assert [world.residents.snapshot_id(name) for name in NAMES] == ["a-1", "b-1", "c-1", None]
    assert [world.residents.is_cold(name) for name in NAMES] == [False, True, False, False]
    assert world.meter.resident == (2, 1, 2 * SIZE)


def test_room_is_what_is_left_of_the_budget() -> None:
    world = World(budget=3)
    world.load("a")
    assert world.residents.has_room(SIZE)
    world.load("b")
    assert not world.residents.has_room(SIZE)  # it may take twice its bytes, for all one knows


def test_asking_for_a_cold_task_wishes_it_once_in_the_order_of_asking(world: World) -> None:
    world.note("a", "b", "c")
    assert world.wish() is None
    assert world.residents.blocked(["b"]) == {"b"}
    assert world.residents.blocked(["a", "b", "nobody"]) == {"a", "b"}
    assert world.wish() == ("b", True)
    world.clock.advance(0.5)
    woken = world.woken
    world.load("b")
    assert world.woken > woken
    assert world.meter.cold_loads == [0.5]
    assert world.wish() == ("a", True)
    assert world.residents.blocked(["b"]) == set()


def test_what_was_loaded_for_a_request_stays_until_it_is_answered(world: World) -> None:
    world.note("a", "b", "c", "d")
    world.residents.blocked(NAMES)
    for name in "ab":
        assert world.wish() == (name, True)
        world.load(name)
    assert world.wish() is None  # c would push out one that nobody could take up yet
    world.residents.taken({"a"}, waiting={"b", "c", "d"})
    assert world.wish() == ("c", True)
    world.load("c")  # a is being answered, b waits to be
    assert world.held() == "abc"
    world.residents.taken({"b", "c"}, waiting={"d"})
    assert world.wish() == ("d", True)
    assert world.held() == "bc"  # a was done


def test_who_no_longer_waits_keeps_nothing(world: World) -> None:
    world.note("a", "b", "c")
    world.residents.blocked("abc")
    world.load("a", "b")
    world.residents.taken(set(), waiting={"c"})  # requests of a and b expired
    assert world.wish() == ("c", True)
    world.load("c")
    assert world.held() == "bc"


def test_one_task_larger_than_the_budget_is_served(world: World) -> None:
    small = World(budget=0.5)
    small.note("a", "b")
    small.residents.blocked("ab")
    small.load("a")
    assert small.wish() is None
    assert small.held() == "a"
    small.residents.taken({"a"}, waiting={"b"})
    small.load("b")
    small.residents.taken({"b"}, waiting=set())
    small.wish()
    assert small.held() == "b"


def test_a_held_task_cannot_be_let_go_before_the_next_batch(world: World) -> None:
    world.load("a", "b")
    assert world.residents.hold("a")
    world.load("c")
    assert world.held() == "ac"
    world.residents.taken(set(), waiting=set())
    world.load("b")
    assert world.held() == "bc"
    assert not world.residents.hold("a")
    assert world.wish() == ("a", True)


def test_a_cold_task_with_another_snapshot_leaves_nothing_of_the_former(world: World) -> None:
    world.load("a", "b", "c")
    assert world.engine.infer(["a:"])[0].task == "a"  # unloaded: its place is known
    assert world.residents.blocked([None]) == set()
    world.residents.note("a", "a-2")
    assert world.residents.snapshot_id("a") == "a-2"
    assert world.engine.infer(["a:"])[0].task is None


def test_a_request_without_task_waits_for_all_places(world: World) -> None:
    world.note("a", "b")
    world.load("c")
    assert world.residents.blocked([None, "c"]) == {None}
    assert world.residents.lacks_places()
    world.residents.blocked(["b"])
    assert world.wish() == ("b", True)  # whole tasks first
    world.load("b")
    assert world.wish() == ("a", False)
    world.residents.place("a", fake_payload("a", "1"))
    assert world.wish() is None
    assert world.residents.blocked([None]) == set()
    assert world.engine.infer(["a:"])[0].task == "a"
    assert world.held() == "bc"


def test_bytes_that_are_none_change_nothing(world: World) -> None:
    world.note("a")
    world.residents.blocked("a")
    for take in (world.residents.place, lambda n, p: world.residents.load(n, "a-1", p)):
        with pytest.raises(SnapshotError):
            take("a", b"nonsense")
    assert world.wish() == ("a", True)
    assert world.held() == ""


def test_while_the_store_is_away_nothing_waits_for_it(world: World) -> None:
    world.note("a", "b")
    world.residents.blocked(["a", None])
    world.residents.cannot_reach_store()
    assert world.residents.store_is_away()
    assert world.meter.failed_loads == 2
    assert world.residents.blocked(["a", "b", None]) == set()
    assert world.wish() is None
    world.clock.advance(AWAY_S)
    assert world.residents.blocked(["b"]) == {"b"}
    assert world.wish() == ("b", True)


def test_a_task_that_is_dropped_is_waited_for_no_more(world: World) -> None:
    world.note("a")
    world.residents.blocked("a")
    world.residents.drop("a")
    assert world.wish() is None
    assert world.residents.blocked("a") == ()
    assert world.residents.snapshot_id("a") is None
    assert world.meter.resident == (0, 0, 0)


def test_a_task_that_is_being_loaded_is_never_unknown() -> None:
    world = World()
    world.note("a")
    thread = threading.Thread(target=lambda: world.load("a"))
    real = world.engine.snapshot_id

    def slow(task: str) -> str | None:
        found = real(task)
        if not thread.ident:
            thread.start()
            thread.join(0.2)  # all the time that a load needs
        return found

    world.engine.snapshot_id = slow  # type: ignore[method-assign]
    assert world.residents.snapshot_id("a") == "a-1"
    thread.join()
    assert world.held() == "a"
