"""Freshness: a pair is acknowledged -> a reply comes from a snapshot that learnt it.

    python benchmarks/freshness.py [--broker embedded|apache] [--seconds 120]

Four tasks are taught at 20 pairs/s in all while a second client asks 5 requests/s, in turn over the
tasks.  A pair counts from its acknowledgement to the first reply, received by the asking client, whose
snapshot's step is not below the step that trained the pair; a pair in a held candidate keeps ageing.
Held-out pairs are counted apart.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter, defaultdict

from report import percentile, publish
from rig import demo_pairs, megabytes, running

from edgeseq_core.client import Client
from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.errors import EdgeSeqError

PAIRS_A_SECOND = 20
REQUESTS_A_SECOND = 5
SETTLE_S = 20.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default="embedded", choices=("embedded", "apache"))
    parser.add_argument("--seconds", type=int, default=120)
    args = parser.parse_args()
    tasks = list(DEMO_TASKS)
    with running(args.broker) as instance:
        warm(instance.endpoints.kafka, tasks)
        acknowledged, replies, latencies = measure(instance.endpoints.kafka, tasks, args.seconds)
        outcomes = ask_outcomes(instance.endpoints.kafka, acknowledged)
        memory = megabytes(instance)
    ages, states = freshness(acknowledged, replies, outcomes)
    publish(
        f"freshness-{args.broker}",
        f"python benchmarks/freshness.py --broker {args.broker} --seconds {args.seconds}",
        [
            {
                "broker": args.broker,
                "pairs": len(acknowledged),
                "served": len(ages),
                "held out": states["held_out"],
                "never served": states["not served"],
                "p50 s": percentile(ages, 0.5),
                "p95 s": percentile(ages, 0.95),
                "p99 s": percentile(ages, 0.99),
                "reply p50 ms": 1_000 * percentile(latencies, 0.5),
                "reply p99 ms": 1_000 * percentile(latencies, 0.99),
            }
        ],
        f"Resident memory (MB): {memory}.",
    )


def warm(kafka: str, tasks: list[str]) -> None:
    """Two hundred pairs a task, so that every task serves and the gate has held-out pairs."""
    with Client(kafka) as client:
        for task in tasks:
            client.teach(task, demo_pairs(task, 200))
        deadline = time.monotonic() + 120
        for task in tasks:
            while True:
                try:
                    client.predict(task, "x", timeout_s=5)
                    break
                except EdgeSeqError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)
        time.sleep(SETTLE_S)


def measure(
    kafka: str, tasks: list[str], seconds: int
) -> tuple[list[tuple[str, str, float]], dict[str, list[tuple[float, int]]], list[float]]:
    """(task, pair id, acknowledged at), replies of each task as (received at, step), latencies (s)."""
    acknowledged: list[tuple[str, str, float]] = []
    replies: dict[str, list[tuple[float, int]]] = defaultdict(list)
    latencies: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        sources = {t: [e.source for e in DEMO_TASKS[t].held_out(50, 1)] for t in tasks}
        with Client(kafka) as client:
            began, sent = time.monotonic(), 0
            while not stop.is_set():
                task = tasks[sent % len(tasks)]
                at = time.monotonic()
                answer = client.predict(task, sources[task][sent % 50], timeout_s=10)
                now = time.monotonic()
                latencies.append(now - at)
                replies[task].append((now, step_of(answer.snapshot_id)))
                sent += 1
                stop.wait(max(0.0, began + sent / REQUESTS_A_SECOND - time.monotonic()))

    asking = threading.Thread(target=ask)
    asking.start()
    lessons = {
        task: demo_pairs(task, 1 + seconds * PAIRS_A_SECOND // len(tasks), skip=200)
        for task in tasks
    }
    with Client(kafka) as client:
        began = time.monotonic()
        for at in range(seconds * PAIRS_A_SECOND):
            task = tasks[at % len(tasks)]
            report = client.teach(task, [lessons[task][at // len(tasks)]], producer="bench")
            acknowledged.append((task, report.pair_ids[0], time.monotonic()))
            time.sleep(max(0.0, began + (at + 1) / PAIRS_A_SECOND - time.monotonic()))
    time.sleep(SETTLE_S)
    stop.set()
    asking.join()
    return acknowledged, replies, latencies


def ask_outcomes(
    kafka: str, acknowledged: list[tuple[str, str, float]]
) -> dict[str, tuple[str, int]]:
    """State and training step of each pair."""
    outcomes = {}
    with Client(kafka) as client:
        for task, pair_id, _ in acknowledged:
            status = client.pair_status(task, "bench", pair_id)
            outcomes[pair_id] = (status.state, status.step)
    return outcomes


def freshness(
    acknowledged: list[tuple[str, str, float]],
    replies: dict[str, list[tuple[float, int]]],
    outcomes: dict[str, tuple[str, int]],
) -> tuple[list[float], Counter[str]]:
    """Ages (s) of served pairs, and how many pairs were not: held out, or not served in time."""
    ages, states = [], Counter[str]()
    for task, pair_id, at in acknowledged:
        state, step = outcomes[pair_id]
        if state != "trained":
            states[state] += 1
            continue
        first = next((when for when, served in replies[task] if when > at and served >= step), None)
        if first is None:
            states["not served"] += 1
        else:
            ages.append(first - at)
    return ages, states


def step_of(snapshot_id: str | None) -> int:
    """The learner step in a snapshot id "<task>-<step>-<digest>"."""
    assert snapshot_id is not None
    return int(snapshot_id.rsplit("-", 2)[1])


if __name__ == "__main__":
    main()
