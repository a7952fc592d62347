"""Memory of corrections: when a corrected source is answered right, and what looking it up costs.

    python benchmarks/memory.py [--broker embedded|apache] [--corrections 20] [--rounds 100]

Two tasks are taught the same 400 pairs; one has a memory.  Held-out sources that both answer wrong are
corrected in each, and asked again without a pause until the answer is right, for ten seconds at most.
Then one predictor in this process, with the task's champion and the same Redis, answers batches with
the memory off, on for sources that nobody corrected (the model's work is the same), and on for
sources that were corrected; in turns with the look-up alone, so that what disturbs the machine hits
all alike.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from math import inf

import torch
from report import percentile, publish
from rig import demo_pairs, running

from edgeseq_core.client import Client
from edgeseq_core.clock import SystemClock
from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.errors import RequestError
from edgeseq_core.messages import Request
from edgeseq_core.model.base import Base
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.replay.buffer import TaskSettings
from edgeseq_core.replay.connection import connect
from edgeseq_core.replay.redis import RedisStore
from edgeseq_core.serving.predictor import Predictor
from edgeseq_core.serving.recall import Recall
from edgeseq_core.serving.replies import MemoryReplyCache, RedisReplyCache, SteadyReplyCache
from edgeseq_core.settings import PredictorSettings
from edgeseq_core.snapshots.redis_registry import RedisRegistry
from edgeseq_services.up import Instance

LESSON = "german-plurals"
ON, OFF = "with-memory", "without"
GIVE_UP_S = 10.0
SETTLE_S = 20.0
BATCHES = (1, 16)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default="embedded", choices=("embedded", "apache"))
    parser.add_argument("--corrections", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    with running(args.broker) as instance, Client(instance.endpoints.kafka) as client:
        store_of(instance).set_task(ON, TaskSettings(memory=True))
        for task in (ON, OFF):
            client.teach(task, demo_pairs(LESSON, 400))
        time.sleep(SETTLE_S)
        corrected = []
        waits: dict[str, list[float]] = {ON: [], OFF: []}
        for at, (source, target) in enumerate(islice(both_wrong(client), args.corrections)):
            corrected.append(source)
            for task in (ON, OFF) if at % 2 else (OFF, ON):
                waits[task].append(until_right(client, task, source, target))
        time.sleep(SETTLE_S)
        costs = lookup_costs(instance, corrected, args.rounds)
    command = f"python benchmarks/memory.py --broker {args.broker}"
    publish(
        f"memory-{args.broker}",
        command,
        [answered(args.broker, task, waits[task]) for task in (ON, OFF)],
        "Seconds from sending the correction to the right answer, over all corrections.",
    )
    publish(
        "memory-lookup",
        command,
        costs,
        "CPU of the predictor's thread; wall time includes the round trip to Redis.",
    )


# --- from a correction to its answer ----------------------------------------------------------------


def both_wrong(client: Client) -> Iterator[tuple[str, str]]:
    """Held-out pairs that neither task answers right."""
    for example in DEMO_TASKS[LESSON].held_out(1_000, 1):
        answers = [client.predict(task, example.source).target for task in (ON, OFF)]
        if example.target not in answers:
            yield example.source, example.target


def until_right(client: Client, task: str, source: str, target: str) -> float:
    """Seconds until the corrected source is answered right; infinite when that takes too long."""
    began = time.monotonic()
    client.correct(task, source, target)
    while time.monotonic() < began + GIVE_UP_S:
        if client.predict(task, source).target == target:
            return time.monotonic() - began
    return inf


def answered(broker: str, task: str, waits: list[float]) -> dict[str, object]:
    """A row of the first table."""
    shown = {f"p{100 * share:g} s": percentile(waits, share) for share in (0.5, 0.95)}
    return {
        "broker": broker,
        "memory": "on" if task == ON else "off",
        "corrections": len(waits),
        f"right in {GIVE_UP_S:g} s": sum(wait < inf for wait in waits),
        **{name: wait if wait < inf else f"> {GIVE_UP_S:g}" for name, wait in shown.items()},
    }


# --- what a look-up costs ----------------------------------------------------------------------------


def store_of(instance: Instance) -> RedisStore:
    """The instance's store."""
    settings = instance.settings
    return RedisStore(
        connect(instance.endpoints.redis),
        prefix=settings.redis.key_prefix,
        partitions=settings.kafka.partitions,
    )


def lookup_costs(instance: Instance, corrected: list[str], rounds: int) -> list[dict[str, object]]:
    """Rows of the second table: median microseconds a request."""
    torch.set_num_threads(1)
    strange = [f"{source}x" for source in corrected]
    rows: list[dict[str, object]] = []
    for size in BATCHES:
        off, on = (predictor_of(instance, is_allowed=allowed) for allowed in (False, True))
        recall = Recall(store_of(instance), is_allowed=lambda _task: True, clock=SystemClock())
        ways: dict[str, tuple[Callable[[list[str]], object], list[str]]] = {
            "off": (partial(answer, off), strange),
            "on, not corrected": (partial(answer, on), strange),
            "on, corrected": (partial(answer, on), corrected),
            "the look-up alone": (partial(look_up, recall), strange),
        }
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for turn in range(rounds):
            for way, (act, sources) in ways.items():
                some = [sources[(turn + n) % len(sources)] for n in range(size)]
                wall_s, cpu_s = time.perf_counter(), time.thread_time()
                act(some)
                spent = time.perf_counter() - wall_s, time.thread_time() - cpu_s
                times[way].append(spent)
        wall = {way: 1e6 * statistics.median(w for w, _ in found) for way, found in times.items()}
        cpu = {way: 1e6 * statistics.median(c for _, c in found) for way, found in times.items()}
        rows += [
            {
                "rows of a batch": size,
                "memory": way,
                "CPU µs a request": cpu[way] / size,
                "wall µs a request": wall[way] / size,
                "CPU, of off": cpu[way] / cpu["off"],
                "wall, of off": wall[way] / wall["off"],
            }
            for way in ways
        ]
    return rows


def predictor_of(instance: Instance, *, is_allowed: bool) -> Predictor:
    """A predictor as the service puts it together, serving the taught task's champion."""
    clock, settings, store = SystemClock(), instance.settings, store_of(instance)
    client, prefix = connect(instance.endpoints.redis), settings.redis.key_prefix
    registry = RedisRegistry(client, prefix=prefix, partitions=settings.kafka.partitions)
    champion = registry.status(ON).champion
    if champion is None:
        raise RequestError("unknown_task", f"{ON} has no champion yet")
    engine = TorchEngine(Base.load(settings.base.path))
    engine.swap(ON, champion, registry.payload(registry.record(ON, champion).manifest))
    cache = SteadyReplyCache(
        RedisReplyCache(client, prefix, window_s=60), MemoryReplyCache(clock, window_s=60), clock
    )
    return Predictor(
        engine,
        cache=cache,
        clock=clock,
        recall=Recall(store, is_allowed=lambda _task: is_allowed, clock=clock),
        settings=PredictorSettings(),
    )


_numbers = count()


def answer(predictor: Predictor, sources: list[str]) -> None:
    """One batch; every request has an id of its own."""
    sent_ms = time.time_ns() // 1_000_000
    batch = [
        predictor.receive(
            Request(request_id=f"b{next(_numbers)}", task=ON, source=source, sent_at_ms=sent_ms)
        )
        for source in sources
    ]
    for reply in predictor.answer(batch):
        if reply.error is not None:
            raise RequestError(reply.error.code, reply.error.detail)


def look_up(recall: Recall, sources: list[str]) -> None:
    """What the memory adds to a batch."""
    recall([(ON, source) for source in sources])


if __name__ == "__main__":
    main()
