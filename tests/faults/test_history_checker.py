"""The history checker passes sound histories and catches bugs planted into real components."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import redis

from edgeseq_core.errors import StoreError
from edgeseq_core.messages import Series
from edgeseq_core.replay.buffer import Position, TaskSettings
from edgeseq_core.streams.placing import Placer
from tests.faults.bench import Bench
from tests.faults.history import Facts, violations

TASKS = ("dates", "glosses")


def teach(bench: Bench, start: int, stop: int) -> None:
    for n in range(start, stop):
        bench.send(TASKS[n % 2], f"p{n}")
        if n % 10 == 0:
            bench.send(TASKS[n % 2], f"c{n}", correction=True)
    bench.consume()


def plant(script: Any, client: redis.Redis, old: str, new: str) -> Any:
    """A script of the store with one place changed."""
    assert script.script.count(old) == 1
    return client.register_script(script.script.replace(old, new))


def test_a_sound_history_passes(bench: Bench) -> None:
    bench.buffer.set_task("edits", TaskSettings(fresh_quota=3))
    teach(bench, 0, 30)
    bench.learn()
    for n in range(6):
        bench.send("edits", f"e{n}")  # three too many
    bench.send("dates", "p0")  # an id again
    bench.send("dates", "s0", source=Series(times=[0.0], values=[[1.0]]))
    bench.send_raw("dates", "junk", b"\xff")
    bench.consume()
    bench.ask("dates", "r1")
    first = bench.registry.status("dates").champion
    assert first is not None
    for action in ("pin", "unpin"):  # what a person pinned is kept for the way back
        line = {"kind": "pin", "action": action, "snapshot_id": first}
        bench.registry.pin(
            "dates", action == "pin", now_ms=bench.clock.wall_ms(), journal=json.dumps(line)
        )
    teach(bench, 30, 50)
    bench.learn()
    bench.start_consumer()
    bench.start_learner()
    second = bench.registry.status("dates").champion
    assert second not in (None, first)
    line = {"kind": "rollback", "action": "rollback", "snapshot_id": first}
    bench.registry.rollback(
        "dates",
        first,
        expected_champion=second,
        now_ms=bench.clock.wall_ms(),
        journal=json.dumps(line),
    )
    bench.ask("dates", "r2")
    teach(bench, 50, 70)
    bench.learn()
    bench.ask("dates", "r3")
    bench.buffer.remove("glosses", pair_id="p1")
    teach(bench, 70, 80)

    facts = bench.facts()
    assert violations(facts) == []
    states = {outcome.state for outcome in facts.outcomes.values() if outcome}
    everything = {
        "waiting",
        "held_out",
        "trained",
        "shed",
        "quarantined",
        "dead_lettered",
        "forgotten",
    }
    assert states == everything
    assert [reply.snapshot_id for reply in facts.heard] == [first] * 3


# --- planted bugs ---------------------------------------------------------------------------------


def test_a_skipped_position_is_caught(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Placer._target

    def beyond(self: Placer, *args: Any) -> Position:
        position = real(self, *args)
        return Position(position.log, position.offset + 1)

    monkeypatch.setattr(Placer, "_target", beyond)
    teach(bench, 0, 40)
    bench.learn()
    found = violations(bench.facts())
    assert found
    assert all("is lost: its outcome is unknown" in sentence for sentence in found)


def test_a_double_append_is_caught(redis_bench: Bench, client: redis.Redis) -> None:
    scripts = redis_bench.buffer._scripts  # type: ignore[attr-defined]
    check = "if known and REPEATED[outcome_of(known)] then return 'duplicate' end"
    scripts["ingest"] = plant(scripts["ingest"], client, check, "")
    teach(redis_bench, 0, 20)
    redis_bench.send("dates", "p2")  # a producer whose first acknowledgement was lost
    redis_bench.consume()
    found = violations(redis_bench.facts())
    assert any("('dates', 'erp', 'p2') is in 2 places" in sentence for sentence in found)
    redis_bench.learn()
    found = violations(redis_bench.facts())
    assert any("('dates', 'erp', 'p2') is in 2 places" in sentence for sentence in found)


def test_a_redelivered_batch_that_is_placed_again_is_caught(
    redis_bench: Bench, client: redis.Redis, prefix: str
) -> None:
    scripts = redis_bench.buffer._scripts  # type: ignore[attr-defined]
    check = "if known and REPEATED[outcome_of(known)] then return 'duplicate' end"
    scripts["ingest"] = plant(scripts["ingest"], client, check, "")
    teach(redis_bench, 0, 20)
    redis_bench.learn()
    for key in client.scan_iter(f"{{{prefix}:p*}}:positions"):
        client.delete(key)  # as if the position were not stored with its pairs
    redis_bench.start_consumer()
    redis_bench.consume()
    redis_bench.learn()
    found = violations(redis_bench.facts())
    assert any("is taken again in step" in sentence for sentence in found)
    assert any("is trained twice" in sentence for sentence in found)


def test_a_pointer_moved_before_its_bytes_is_caught(
    redis_bench: Bench, client: redis.Redis
) -> None:
    teach(redis_bench, 0, 20)
    redis_bench.learn()
    redis_bench.ask("dates", "r1")
    assert violations(redis_bench.facts()) == []
    scripts = redis_bench.registry._scripts  # type: ignore[attr-defined]
    stored = "redis.call('HSET', keys.payloads, id, ARGV[7])"
    crash = (
        "redis.call('HSET', keys.champions, task, id)\ndo return redis.error_reply('ERR died') end"
    )
    scripts["offer"] = plant(scripts["offer"], client, stored, crash)
    teach(redis_bench, 20, 40)
    with pytest.raises(StoreError, match="died"):
        redis_bench.learn()
    redis_bench.ask("dates", "r2")  # the watch refuses it, so what serves is still sound
    found = violations(redis_bench.facts())
    assert any("is not in the registry" in sentence for sentence in found)
    assert any("has no bytes" in sentence for sentence in found)


# --- single facts ---------------------------------------------------------------------------------


@pytest.fixture
def sound(memory_bench: Bench) -> Facts:
    teach(memory_bench, 0, 20)
    memory_bench.learn()
    memory_bench.ask("dates", "r1")
    facts = memory_bench.facts()
    assert violations(facts) == []
    return facts


def test_replies_are_checked(sound: Facts) -> None:
    reply = sound.heard[0]
    sound.heard = [reply, replace(reply, answer=b"another")]
    assert violations(sound) == ["request r1 got 2 different answers"]
    sound.heard = []
    assert violations(sound) == ["request r1 got no answer"]
    sound.heard = [replace(reply, snapshot_id="dates-9-unknown")]
    assert "never promoted" in violations(sound)[0]
    sound.heard = [replace(reply, sent_ms=5)]
    assert "before it was promoted" in violations(sound)[0]


def test_champions_and_bytes_are_checked(sound: Facts) -> None:
    held = sound.tasks["dates"]
    (champion,) = held.champions

    def with_held(**changes: Any) -> list[str]:
        return violations(replace(sound, tasks={**sound.tasks, "dates": replace(held, **changes)}))

    assert "2 champions" in with_held(champions=[champion, champion])[0]
    assert "0 champions" in with_held(champions=[])[0]
    assert "has no bytes" in with_held(missing=frozenset({champion}))[0]
    assert "not those of its manifest" in with_held(damaged=frozenset({champion}))[0]
    assert "names parent" in with_held(journal=held.journal[::-1])[0]
    unsaid = [line for line in held.journal if json.loads(line)["kind"] == "step"]
    assert "no journal line let it" in with_held(journal=unsaid)[0]


def test_pairs_that_change_places_are_noticed(sound: Facts) -> None:
    held = sound.tasks["dates"]
    key = held.parts["reservoir"][0]
    parts = {**held.parts, "bulk": [key]}
    found = violations(replace(sound, tasks={**sound.tasks, "dates": replace(held, parts=parts)}))
    assert any("is in 2 places" in sentence for sentence in found)
    sent = [pair for pair in sound.sent if pair.key != key]
    found = violations(replace(sound, sent=sent))
    assert any("which nobody sent" in sentence for sentence in found)
