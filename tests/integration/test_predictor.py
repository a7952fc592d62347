"""The predictor on real brokers and a real Redis: nothing unanswered, nothing answered twice over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from edgeseq_core.keys import HEADER_ORIGIN, HEADER_REASON, HEADER_TRACE, partition_of
from edgeseq_core.messages import Control, Request, Series, StatusQuery
from edgeseq_core.replay.buffer import IncomingPair, Position, StepCommit
from edgeseq_core.replay.record import PairRecord, pack
from tests.brokers import Broker
from tests.integration.predictor_world import PARTITIONS, Heard, Running, World, wait_for
from tests.serving.examples import request

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def shared(kafka_broker: Broker, redis_url: str) -> Iterator[tuple[World, Running]]:
    """One predictor that serves ``dates`` and ``verbs``, for tests that leave it as it was."""
    world = World(kafka_broker, redis_url)
    world.promote("dates", 1)
    world.promote("verbs", 1)
    running = world.start()
    yield world, running
    world.close()


@pytest.fixture
def world(kafka_broker: Broker, redis_url: str) -> Iterator[World]:
    """A world of the test's own, without a predictor yet."""
    world = World(kafka_broker, redis_url)
    yield world
    world.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def fresh(source: object = "abc", **fields: object) -> Request:
    return request(source, **fields).model_copy(update={"sent_at_ms": now_ms()})


def dead_letters(world: World) -> list[dict[str, bytes]]:
    """Headers and value of all dead letters."""
    consumer = KafkaConsumer(bootstrap_servers=world.settings.kafka.bootstrap)
    at = TopicPartition(world.topics.dead_letters, 0)
    consumer.assign([at])
    end = consumer.end_offsets([at])[at]
    consumer.seek_to_beginning(at)
    found: list[dict[str, bytes]] = []
    while consumer.position(at) < end:
        for records in consumer.poll(timeout_ms=100).values():
            found += [{**dict(record.headers), "value": record.value} for record in records]
    consumer.close()
    return found


def committed(world: World) -> int:
    """Records of the requests topic that the group has behind it."""
    consumer = KafkaConsumer(
        bootstrap_servers=world.settings.kafka.bootstrap,
        group_id=f"{world.topics.prefix}.predictor",
        enable_auto_commit=False,
    )
    parts = [TopicPartition(world.topics.requests, n) for n in range(8)]
    total = sum(consumer.committed(part) or 0 for part in parts)
    consumer.close()
    return total


# --- answers and typed errors -------------------------------------------------------------------------


def test_a_request_is_answered_with_id_trace_and_snapshot(shared: tuple[World, Running]) -> None:
    world, _ = shared
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    name = world.ask(fresh("abc"), extra=((HEADER_TRACE, trace),))
    (reply,) = world.replies(name)
    (best,) = reply.hypotheses
    assert (best.target, reply.snapshot_id) == (
        "cba~dates1",
        next(s for s in world.promoted if s.startswith("dates-1-")),
    )
    assert world.ear.heard[name][0].headers[HEADER_TRACE] == trace


def test_what_cannot_be_answered_gets_its_typed_error(shared: tuple[World, Running]) -> None:
    world, _ = shared
    series = Series(times=[0.0, 1.0], values=[[1.0], [2.0]])
    names = [
        world.ask(fresh(task="nobody")),
        world.ask(fresh(task=None)),
        world.ask(fresh("x" * 200)),
        world.ask(fresh(series)),
        world.ask(fresh(deadline_ms=now_ms() - 1)),
        world.ask(fresh("fine")),
    ]
    assert world.codes(*names) == [
        "unknown_task",
        "missing_task",
        "too_long",
        "unsupported_source",
        "expired",
        None,
    ]


def test_bad_bytes_are_dead_lettered_and_their_client_is_told(
    shared: tuple[World, Running],
) -> None:
    world, running = shared
    nan = (
        b'{"kind":"request","schema_version":1,"request_id":"bad-nan","task":"dates","sent_at_ms":1,'
        b'"source":{"times":[0.0],"values":[[NaN]]}}'
    )
    future = fresh().model_dump_json().replace('"schema_version":1', '"schema_version":9')
    bad = {
        "bad-bytes": (b"\xff\x00 no json", b"undecodable"),
        "bad-version": (future.encode(), b"wrong_version"),
        "bad-kind": (b'{"kind":"pair","schema_version":1}', b"wrong_kind"),
        "bad-empty": (fresh().model_dump_json().replace('"abc"', '""').encode(), b"invalid"),
        "bad-nan": (nan, b"invalid"),
        "bad-large": (b'"' + b"x" * 900_000 + b'"', b"too_large"),
    }
    for name, (data, _) in bad.items():
        world.send(data, request_id=name, partition=2)
    good = world.ask(fresh("still"))
    assert world.codes(*bad, good) == ["invalid"] * len(bad) + [None]
    wait_for(lambda: len(dead_letters(world)) >= len(bad), "dead letters")
    kept = {letter["value"]: letter for letter in dead_letters(world)}
    for data, reason in bad.values():
        assert kept[data][HEADER_REASON][: len(reason)] == reason
        assert kept[data][HEADER_ORIGIN].startswith(world.topics.requests.encode() + b"/2/")
    assert running.metric("edgeseq_predictor_dead_letters_total", reason="too_large") == 1


def test_a_reply_address_outside_the_allow_list_gets_nothing(
    shared: tuple[World, Running],
) -> None:
    world, _ = shared
    outside = {
        "to-pairs": {"reply_topic": world.topics.pairs, "reply_partition": "0"},
        "to-other": {"reply_topic": "elsewhere"},
        "to-absent": {"reply_topic": f"{world.topics.replies}.absent"},
        "to-beyond": {"reply_partition": "9999"},
        "to-nowhere": {"reply_partition": ""},
    }
    before = len(dead_letters(world))
    for name, where in outside.items():
        world.ask(fresh(request_id=name), **where)
    world.replies(world.ask(fresh("after")))
    wait_for(lambda: len(dead_letters(world)) >= before + len(outside), "dead letters")
    letters = dead_letters(world)[before:]
    assert {letter[HEADER_REASON] for letter in letters} == {b"reply_topic"}
    assert len(letters) == len(outside)
    assert not world.ear.heard.keys() & outside.keys()
    consumer = KafkaConsumer(bootstrap_servers=world.settings.kafka.bootstrap)
    assert f"{world.topics.replies}.absent" not in consumer.topics()
    pairs = [TopicPartition(world.topics.pairs, n) for n in range(PARTITIONS)]
    assert sum(consumer.end_offsets(pairs).values()) == 0
    consumer.close()


def test_a_repeated_id_gets_the_identical_reply(shared: tuple[World, Running]) -> None:
    world, _ = shared
    one = fresh("again")
    for copies in (1, 3, 4):  # alone, then more
        world.ask(one)
        if copies == 3:
            world.ask(one)
        wait_for(lambda n=copies: len(world.ear.heard[one.request_id]) >= n, "repeats")  # type: ignore[misc]
    assert len({heard.data for heard in world.ear.heard[one.request_id]}) == 1


def test_a_snapshot_that_cannot_be_loaded_is_no_unknown_task(world: World) -> None:
    world.promote("dates", 1)
    world.promote("verbs", 1, base="another-base")
    early = [world.ask(fresh(task=task)) for task in ("dates", "verbs", "nobody")]
    running = world.start()  # the requests are there before the champions are loaded
    assert world.codes(*early) == [None, "internal", "unknown_task"]
    assert running.metric("edgeseq_predictor_swap_failures_total", task="verbs") >= 1


# --- the queue ----------------------------------------------------------------------------------------


def hold_with_one(world: World, running: Running) -> str:
    """Send a request that occupies the held engine."""
    name = world.ask(fresh("occupies"))
    assert running.engine.busy.wait(20)  # type: ignore[attr-defined]
    return name


def waiting(running: Running) -> int:
    return sum(
        int(running.metric("edgeseq_predictor_queue_requests", priority=priority))
        for priority in ("interactive", "normal", "bulk")
    )


def test_urgent_requests_pass_bulk_and_late_ones_are_not_computed(
    shared: tuple[World, Running],
) -> None:
    world, running = shared
    with running.engine.held():  # type: ignore[attr-defined]
        first = hold_with_one(world, running)
        slow = [world.ask(fresh(f"b{n}", priority="bulk")) for n in range(16)]
        wait_for(lambda: waiting(running) == 16, "bulk in the queue")
        late = world.ask(fresh("late", timeout_ms=1))
        quick = [world.ask(fresh(f"i{n}")) for n in range(4)]
        wait_for(lambda: waiting(running) == 21, "all in the queue")
    assert world.codes(first, late, *slow, *quick) == [None, "expired", *[None] * 20]
    at = {name: world.ear.heard[name][0].at_s for name in (*slow, *quick)}
    assert max(at[name] for name in quick) <= sorted(at[name] for name in slow)[8]
    computed = {row.source for batch in running.engine.batches for row in batch}
    assert "late" not in computed


def test_a_cancel_stops_queued_running_and_late_requests(shared: tuple[World, Running]) -> None:
    world, running = shared

    def cancel(request_id: str) -> None:
        message = Control(
            control_id=f"cancel-{request_id}",
            action="cancel",
            request_id=request_id,
            operator="tests",
            sent_at_ms=now_ms(),
        )
        world.send(message, request_id=message.control_id, topic=world.topics.control)

    with running.engine.held():  # type: ignore[attr-defined]
        computing = hold_with_one(world, running)
        inside = world.ask(fresh("queued to be cancelled"))
        for name in (computing, inside, "comes-later"):
            cancel(name)
        heard = running.service._loop._admission.is_cancelled
        wait_for(lambda: all(map(heard, (computing, inside, "comes-later"))), "the cancels")
    later = world.ask(fresh("too late", request_id="comes-later"))
    assert world.codes(computing, inside, later) == ["cancelled"] * 3
    computed = {row.source for batch in running.engine.batches for row in batch}
    assert not computed & {"queued to be cancelled", "too late"}


def test_overload_is_a_typed_error_and_bulk_waits_in_kafka(shared: tuple[World, Running]) -> None:
    world, running = shared
    with running.engine.held():  # type: ignore[attr-defined]
        hold_with_one(world, running)
        bulk = [world.ask(fresh(f"k{n}"), topic=world.topics.bulk) for n in range(300)]
        burst = [world.ask(fresh(f"o{n}")) for n in range(100)]
        refused = lambda: sum(name in world.ear.heard for name in burst)  # noqa: E731
        wait_for(lambda: refused() >= 100 - 64, "refusals")
        assert waiting(running) <= 64
    codes = world.codes(*burst)
    assert set(codes) == {None, "overloaded"}
    assert codes.count(None) >= 32
    assert world.codes(*bulk) == [None] * len(bulk)  # bulk is late, never refused


# --- what became of a pair ----------------------------------------------------------------------------


def test_a_producer_learns_what_became_of_its_pair(world: World) -> None:
    world.promote("dates", 1)
    partition = partition_of("dates", PARTITIONS)
    world.start()
    log = "log"
    consumer_epoch = world.store.acquire("consumer", partition)
    record = PairRecord(
        producer="p",
        pair_id="one",
        arrived_ms=now_ms(),
        topic=world.topics.pairs,
        offset=0,
        correction=False,
        source_ids=[5],
        target_ids=[6],
    )
    pair = IncomingPair(
        task="dates",
        producer="p",
        pair_id="one",
        topic=world.topics.pairs,
        offset=0,
        arrived_ms=record.arrived_ms,
        correction=False,
        record=pack(record, b"12345678"),
    )
    world.store.ingest(
        partition,
        [pair],
        epoch=consumer_epoch,
        topic=world.topics.pairs,
        expected=None,
        position=Position(log, 1),
        now_ms=now_ms(),
    )

    def status(request_id: str, pair_id: str = "one") -> tuple[object, ...]:
        query = StatusQuery(
            request_id=request_id, task="dates", producer="p", pair_id=pair_id, sent_at_ms=now_ms()
        )
        world.send(query, request_id=request_id)
        answer = world.pair_status(request_id)
        return answer.state, answer.step, answer.snapshot_id, answer.in_champion

    assert status("q0", "nobody") == ("unknown", 0, None, False)
    assert status("q1") == ("waiting", 0, None, False)
    (fresh_pair,) = world.store.draw("dates", corrections=1, bulk=1, replay=[]).fresh
    from edgeseq_core.replay.buffer import Move

    world.store.commit(
        StepCommit(
            task="dates",
            epoch=world.epochs[partition],
            branch=0,
            expected_step=1,
            step=2,
            checkpoint=b"checkpoint",
            journal="{}",
            moves=[Move(fresh_pair.key, "bulk", "reservoir", 0.5)],
        )
    )
    assert status("q2") == ("trained", 2, None, False)  # trained, not yet served
    third = world.promote("dates", 3)
    world.promote("dates", 4)
    assert status("q3") == ("trained", 2, third, True)


# --- swaps, several predictors, kills -----------------------------------------------------------------


def check_answers(world: World, names: dict[str, tuple[str, float]]) -> None:
    """Every request has one answer (repeats are identical) by a snapshot that served by then."""
    for name, (task, _) in names.items():
        heard: list[Heard] = world.ear.heard[name]
        assert len({one.data for one in heard}) == 1, f"{name} has different answers"
        reply = heard[0].reply
        assert reply.error is None
        assert reply.snapshot_id is not None
        begun_s, mark = world.promoted[reply.snapshot_id]
        assert reply.task == task
        assert reply.snapshot_id.startswith(f"{task}-")
        assert reply.hypotheses[0].target.endswith(f"~{mark}")
        assert heard[0].at_s >= begun_s


def test_swaps_under_load_lose_no_reply(world: World) -> None:
    tasks = ("dates", "verbs", "names")
    for task in tasks:
        world.promote(task, 1)
    running = world.start()
    ended = threading.Event()
    sent: dict[str, tuple[str, float]] = {}

    def load() -> None:
        at = 0
        while not ended.is_set():
            task = tasks[at % 3]
            sent[world.ask(fresh(f"s{at}", task=task))] = (task, time.monotonic())
            at += 1
            time.sleep(0.004)

    client = threading.Thread(target=load)
    client.start()
    for step in range(2, 22):
        for task in tasks[:2]:
            snapshot_id = world.promote(task, step)
            wait_for(
                lambda t=task, s=snapshot_id: running.engine.snapshot_id(t) == s,  # type: ignore[misc]
                "the swap",
            )
    ended.set()
    client.join()
    world.replies(*sent)
    check_answers(world, sent)
    used = {world.ear.heard[name][0].reply.snapshot_id for name in sent}
    assert len(used) > 10  # the load did cross the swaps
    assert sum(str(one).startswith("names-") for one in used) == 1
    assert running.metric("edgeseq_predictor_swaps_total", task="dates") == 21
    wait_for(lambda: committed(world) == len(sent), "all offsets committed")


def test_another_predictor_gives_the_same_answer_to_a_repeated_id(world: World) -> None:
    world.promote("dates", 1)
    first, second = world.start(), world.start()
    warm: list[str] = []

    def both_answer() -> bool:
        """The group has settled: each predictor computes its share."""
        for partition in range(8):
            warm.append(world.ask(fresh(f"w{len(warm)}"), partition=partition))
        world.replies(*warm)
        return bool(first.engine.batches) and bool(second.engine.batches)

    wait_for(both_answer, "both predictors to own partitions")
    one = fresh("same everywhere")
    for partition in range(8):
        world.ask(one, partition=partition)
    wait_for(lambda: len(world.ear.heard[one.request_id]) >= 8, "all replies")
    assert len({heard.data for heard in world.ear.heard[one.request_id]}) == 1


@pytest.mark.slow
def test_a_killed_predictor_leaves_no_request_unanswered(world: World, tmp_path: Path) -> None:
    world.promote("dates", 1)
    child = world.spawn(tmp_path, token_ms=2)
    sent: dict[str, tuple[str, float]] = {}
    replacement = None
    try:
        for at in range(240):
            sent[world.ask(fresh(f"s{at}"))] = ("dates", time.monotonic())
        heard = world.ear.heard
        wait_for(lambda: sum(name in heard for name in sent) >= 60, "the first replies")
        child.kill()
        child.wait()
        assert sum(name in heard for name in sent) < len(sent)  # it was in mid-stream
        world.promote("dates", 2)  # a repeat that were computed anew would differ
        for at in range(20):
            sent[world.ask(fresh(f"t{at}"))] = ("dates", time.monotonic())
        replacement = world.spawn(tmp_path)
        world.replies(*sent, timeout_s=60)
        wait_for(lambda: committed(world) == len(sent), "all offsets committed")
        check_answers(world, sent)
    finally:
        for process in filter(None, (child, replacement)):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_predictor_told_to_stop_answers_what_it_accepted(world: World, tmp_path: Path) -> None:
    world.promote("dates", 1)
    child = world.spawn(tmp_path, token_ms=2)
    replacement = None
    try:
        sent = {world.ask(fresh(f"s{at}")): ("dates", 0.0) for at in range(200)}
        wait_for(lambda: len(world.ear.heard) >= 20, "the first replies")
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        settled = committed(world)
        wait_for(lambda: len(world.ear.heard) >= settled, "what was committed is answered")
        replacement = world.spawn(tmp_path)
        world.replies(*sent, timeout_s=60)
        check_answers(world, sent)
        assert all(len(heard) == 1 for heard in world.ear.heard.values())  # nothing even repeated
    finally:
        for process in filter(None, (child, replacement)):
            process.kill()
            process.wait()


def test_without_redis_requests_are_still_answered(kafka_broker: Broker, tmp_path: Path) -> None:
    from tests.redis_server import RedisServer, debian_redis

    server = RedisServer(debian_redis(), tmp_path)
    server.start()
    world = World(kafka_broker, server.url)
    try:
        world.promote("dates", 1)
        running = world.start()
        world.replies(world.ask(fresh("before")))
        server.stop()
        one = fresh("without")
        assert world.codes(world.ask(one)) == [None]
        world.ask(one)
        wait_for(lambda: len(world.ear.heard[one.request_id]) == 2, "the repeat")
        assert len({heard.data for heard in world.ear.heard[one.request_id]}) == 1
        assert running.metric("edgeseq_predictor_uncached_replies_total") == 1
        query = StatusQuery(
            request_id="q", task="dates", producer="p", pair_id="x", sent_at_ms=now_ms()
        )
        world.send(query, request_id="q")
        assert world.codes("q") == ["internal"]
    finally:
        world.close()
        server.stop()
