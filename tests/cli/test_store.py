"""tasks, status, snapshots: what commands read from a real store."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from edgeseq_core.keys import partition_of
from edgeseq_core.model.base_file import read_header
from edgeseq_core.replay import recall
from edgeseq_core.replay.buffer import IncomingPair, Move, Position, StepCommit
from edgeseq_core.replay.record import PairRecord, pack, unpack
from edgeseq_core.snapshots.manifest import (
    GateReport,
    GateScore,
    SnapshotManifest,
    SnapshotRecord,
    payload_digest,
)
from edgeseq_core.snapshots.registry import Offer
from edgeseq_core.telemetry.health import Health, HealthServer
from edgeseq_core.telemetry.metrics import LearnerMetrics
from edgeseq_core.testing.base import CHARACTERS, write_tiny_base
from edgeseq_core.text.vocabulary import Vocabulary
from tests.cli.conftest import Run, Stored
from tests.client.responder import PARTITIONS

PARTITION = partition_of("dates", PARTITIONS)


def _ingest(stored: Stored, count: int, *, told: bytes = b"") -> None:
    epoch = stored.buffer.acquire("consumer", PARTITION)
    pairs = [
        IncomingPair(
            task="dates",
            producer="p",
            pair_id=str(n),
            topic="pairs",
            offset=n,
            arrived_ms=1,
            correction=n == 0,
            record=b"record",
            told=told,
        )
        for n in range(count)
    ]
    stored.buffer.ingest(
        PARTITION,
        pairs,
        epoch=epoch,
        topic="pairs",
        expected=None,
        position=Position("log", count),
        now_ms=1,
    )


def _offer(stored: Stored, step: int, parent: str | None, reason: str) -> str:
    epoch = stored.buffer.acquire("learner", PARTITION)
    state = stored.buffer.state("dates")
    stored.buffer.commit(
        StepCommit(
            task="dates",
            epoch=epoch,
            branch=state.branch,
            expected_step=state.step,
            step=step,
            checkpoint=b"checkpoint",
            journal="{}",
        )
    )
    payload = f"bytes {step}".encode()
    manifest = SnapshotManifest(
        task="dates",
        base="base",
        parent=parent,
        step=step,
        positions={},
        payload_digest=payload_digest(payload),
        payload_bytes=len(payload),
        checkpoint_digest="c",
        config={"calibration": {"percent_of_base": 10 * step}},
    )
    score = {"recent": GateScore(pairs=8, loss=1.0, exact=4)}
    verdict = "promote" if reason == "better" else "hold"
    gate = GateReport.model_validate(
        {"verdict": verdict, "reasons": (reason,), "candidate": score, "champion": score}
    )
    stored.registry.offer(
        Offer(
            task="dates",
            epoch=epoch,
            branch=state.branch,
            record=SnapshotRecord(manifest=manifest, gate=gate, created_ms=step),
            payload=payload,
            expected_champion=parent,
            journal="{}",
        )
    )
    return manifest.snapshot_id


def test_tasks_are_set_and_listed(run: Run, stored: Stored) -> None:
    assert run("tasks", "list", "--json").documents == []
    ran = run("tasks", "set", "dates", "--abstain-below", "0.25", "--json")
    assert ran.code == 0
    assert run("tasks", "set", "dates", "--fresh-quota", "9", "--json").code == 0
    (listed,) = run("tasks", "list", "--json").documents
    expected = {"task": "dates", "abstain_below": 0.25, "fresh_quota": 9}
    assert expected.items() <= listed.items()
    assert stored.buffer.tasks(PARTITION)["dates"].abstain_below == 0.25
    assert "dates" in run("tasks", "list").out


def test_a_memory_is_switched_on_and_off(run: Run, stored: Stored) -> None:
    assert run("tasks", "set", "dates", "--memory", "on").out.endswith("memory on\n")
    assert stored.buffer.tasks(PARTITION)["dates"].memory
    (changed,) = run("tasks", "set", "dates", "--abstain-below", "0.25", "--json").documents
    assert changed["memory"] is True
    assert run("tasks", "list").out.split()[-1] == "on"
    told = recall.pack("abc", recall.Remembered("right", "p", "0"))
    _ingest(stored, 1, told=told)
    assert run("status", "--json").documents[0]["tasks"][0]["remembered"] == 1
    assert run("tasks", "set", "dates", "--memory", "off").code == 0
    assert run("status", "--json").documents[0]["tasks"][0]["remembered"] == 0
    assert run("tasks", "set", "dates", "--memory", "maybe").code == 2


def test_status_of_a_task(run: Run, stored: Stored) -> None:
    _ingest(stored, 3)
    champion = _offer(stored, 1, None, "better")
    _offer(stored, 2, champion, "the recent slice got worse")
    ran = run("status", "--json")
    assert ran.code == 0
    (task,) = ran.documents[0]["tasks"]
    expected = {
        "task": "dates",
        "waiting_corrections": 1,
        "waiting_bulk": 2,
        "champion": champion,
        "pinned": False,
        "percent_of_base": 20,
        "verdict": "hold",
        "reasons": ["the recent slice got worse"],
        "drift": None,
    }
    assert expected.items() <= task.items()
    text = run("status")
    assert champion in text.out
    assert "3 (corrections: 1)" in text.out
    assert "20.0 %" in text.out


@pytest.mark.parametrize(
    ("flag", "since", "told"),
    [
        (0, {}, "none"),
        (1, {"loss": 20}, "recent"),
        (
            0,
            {"source_length": 20, "distance": 299, "confidence": 300},
            "changed: source length, distance",
        ),
        (1, {"loss": 5, "distance": 9}, "recent; changed: distance"),
    ],
)
def test_status_says_which_signals_have_changed(
    run: Run,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    flag: int,
    since: dict[str, int],
    told: str,
) -> None:
    _ingest(stored, 1)
    metrics = LearnerMetrics(CollectorRegistry())
    metrics.drift_flag.labels("dates").set(flag)
    for signal, pairs in since.items():
        metrics.drift_since_pairs.labels("dates", signal).set(pairs)
    server = HealthServer(Health(), metrics.registry, port=0)
    monkeypatch.setenv("EDGESEQ_LEARNER__HTTP_PORT", str(server.port))
    try:
        (row,) = (line for line in run("status").out.splitlines() if line.startswith("dates"))
        assert f"  {told}  " in row
        drift = run("status", "--json").documents[0]["tasks"][0]["drift"]
        assert (drift["flag"], drift["since_pairs"]) == (bool(flag), since)
    finally:
        server.close()


def test_snapshots_of_a_task(run: Run, stored: Stored) -> None:
    first = _offer(stored, 1, None, "better")
    second = _offer(stored, 2, first, "worse")
    held_back, last = run("snapshots", "dates", "--json").documents
    assert (held_back["snapshot_id"], held_back["champion"]) == (first, True)
    assert (last["snapshot_id"], last["champion"]) == (second, False)
    assert last["gate"]["verdict"] == "hold"
    assert [
        d["snapshot_id"] for d in run("snapshots", "dates", "--limit", "1", "--json").documents
    ] == [second]
    assert (held_back["kept"], last["kept"]) == (True, True)
    assert len(run("snapshots", "dates", "--kept", "--json").documents) == 2
    for step in range(3, 6):
        _offer(stored, step, first, "worse")
    kept = [d["snapshot_id"] for d in run("snapshots", "dates", "--kept", "--json").documents]
    assert len(kept) == 4
    assert first in kept
    assert second not in kept
    text = run("snapshots", "dates").out
    assert "●" in text
    assert "50.0 %" in text
    assert "worse" in text


def test_a_task_is_told_to_learn_anew(run: Run, stored: Stored) -> None:
    ran = run("tasks", "relearn", "dates")
    assert ran.code == 2
    assert "task dates is not registered" in ran.err
    _ingest(stored, 3)
    champion = _offer(stored, 1, None, "better")
    (told,) = run("tasks", "relearn", "dates", "--reason", "a test", "--json").documents
    assert told == {"task": "dates", "champion": champion, "branch": 1}
    assert '"reason": "a test"' in stored.buffer.journal("dates")[-1]
    (task,) = run("status", "--json").documents[0]["tasks"]
    assert (task["relearning"], task["champion"]) == (True, champion)
    assert "learns anew" in run("status").out


def test_a_pair_is_purged_and_the_receipt_checked(run: Run, stored: Stored) -> None:
    digest = read_header(None).record_digest
    epoch = stored.buffer.acquire("consumer", PARTITION)
    stored.buffer.ingest(
        PARTITION,
        [text_pair(n, digest, "x") for n in range(3)],
        epoch=epoch,
        topic="pairs",
        expected=None,
        position=Position("log", 3),
        now_ms=1,
    )
    (receipt,) = run("purge", "dates", "--producer", "p", "--pair", "1", "--json").documents
    assert (receipt["removed"], receipt["relearnt"]) == (["log:p:1"], False)
    assert receipt["faults"] == []
    listed = run("receipts", "dates")
    assert listed.code == 0
    assert receipt["digest"][:12] in listed.out

    _offer(stored, 1, None, "better")
    moves = [Move(f"log:p:{n}", "bulk", "reservoir", n / 4) for n in (0, 2)]
    stored.buffer.commit(
        StepCommit(
            task="dates",
            epoch=stored.buffer.acquire("learner", PARTITION),
            branch=0,
            expected_step=1,
            step=2,
            checkpoint=b"checkpoint",
            journal="{}",
            moves=moves,
        )
    )
    waits = run("purge", "dates", "--producer", "p", "--pair", "2", "--wait", "0", "--json")
    assert waits.code == 1  # no learner runs
    (pending,) = waits.documents
    assert pending["done"] is False
    assert stored.registry.status("dates").purging
    again = run("purge", "dates", "--resume", pending["purge"], "--wait", "0")
    assert again.code == 1
    assert f"--resume {pending['purge']}" in again.err
    assert len(run("receipts", "dates", "--json").documents) == 1


@pytest.mark.parametrize("what", [[], ["--whole-task", "--producer", "p"]])
def test_a_purge_says_what_to_forget(run: Run, stored: Stored, what: list[str]) -> None:
    ran = run("purge", "dates", *what)
    assert ran.code == 2
    assert "say what to forget" in ran.err


def test_the_base_is_changed_and_changed_back(run: Run, stored: Stored, tmp_path: Path) -> None:
    base, short = (
        write_tiny_base(tmp_path / f"{n}.safetensors", seed=n, max_tokens=n) for n in (64, 24)
    )
    digest = read_header(base).record_digest
    epoch = stored.buffer.acquire("consumer", PARTITION)
    stored.buffer.ingest(
        PARTITION,
        [text_pair(n, digest, "x" * (10 * n)) for n in range(5)],
        epoch=epoch,
        topic="pairs",
        expected=None,
        position=Position("log", 5),
        now_ms=1,
    )
    ran = run("base", "change", str(short), "--former", str(base))
    assert ran.code == 0, ran.err
    assert "dates: 3 pairs re-encoded" in ran.out
    assert "2 pairs too long for the new base, in quarantine" in ran.out
    assert f"EDGESEQ_BASE__PATH={short}, predictors last" in ran.out
    (back,) = run("base", "change", str(base), "--former", str(short), "--json").documents
    assert (back["rewritten"], back["let_out"], back["too_long"]) == (3, 2, 0)
    found = stored.buffer.read("dates", "bulk")
    assert sorted(len(unpack(pair.record, digest).source_ids) for pair in found) == [
        0,
        10,
        20,
        30,
        40,
    ]
    same = run("base", "change", str(base), "--former", str(base))
    assert same.code == 2
    assert "name the former one with --former" in same.err


def test_the_base_of_a_folder_without_a_store_cannot_be_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGESEQ_REDIS__URL", raising=False)
    short = write_tiny_base(tmp_path / "short.safetensors")
    ran = run("base", "change", str(short), "--dir", str(tmp_path))
    assert ran.code == 2
    assert "holds no store: name one with --dir or --redis" in ran.err


def text_pair(number: int, digest: bytes, source: str) -> IncomingPair:
    record = PairRecord(
        producer="p",
        pair_id=str(number),
        arrived_ms=1,
        topic="pairs",
        offset=number,
        correction=False,
        source_ids=tuple(Vocabulary(CHARACTERS).encode(source)),
        target_ids=(300,),
    )
    return IncomingPair(
        task="dates",
        producer="p",
        pair_id=str(number),
        topic="pairs",
        offset=number,
        arrived_ms=1,
        correction=False,
        record=pack(record, digest),
    )


def test_looking_at_an_empty_server_makes_no_store(
    run: Run, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEQ_REDIS__KEY_PREFIX", "nobody")
    for _ in range(2):
        ran = run("status")
        assert ran.code == 2
        assert "holds nothing under 'nobody'" in ran.err


def test_another_partition_count_is_refused(
    run: Run, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEQ_KAFKA__PARTITIONS", "5")
    ran = run("status")
    assert ran.code == 2
    assert "partitions" in ran.err
