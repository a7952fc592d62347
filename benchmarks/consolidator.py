"""A consolidation that starts by itself, while clients ask: what it brings, and what they notice.

    python benchmarks/consolidator.py [--pairs 2400] [--cpu-s 60]

The demo's tasks are taught at once; then nothing, until `edgeseq up` has consolidated the base.  From when it
begins, five requests a second are asked.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from prometheus_client.parser import text_string_to_metric_families
from report import percentile, publish
from rig import demo_pairs, megabytes, running

from edgeseq_core.client import Client
from edgeseq_core.client.prediction import Options
from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.errors import EdgeSeqError
from edgeseq_services.up import Instance

UNSEEN = 150  # pairs a task
REQUESTS_A_SECOND = 5
PATIENCE_S = 1_500.0
Pairs = Sequence[tuple[str, str]]


class Asking(threading.Thread):
    """Requests at an even pace; what each took."""

    def __init__(self, kafka: str, sources: Mapping[str, Pairs]) -> None:
        super().__init__(daemon=True)
        self._kafka, self._sources, self.ended = kafka, sources, threading.Event()
        self.took: list[tuple[float, float]] = []  # when it was asked (monotonic), seconds
        self.failed = 0

    def run(self) -> None:
        with Client(self._kafka) as client:
            while not self.ended.wait(1 / REQUESTS_A_SECOND):
                task = list(self._sources)[len(self.took) % len(self._sources)]
                began = time.monotonic()
                try:
                    client.predict(task, self._sources[task][0][0], timeout_s=60)
                    self.took.append((began, time.monotonic() - began))
                except EdgeSeqError:
                    self.failed += 1

    def latencies(self, after: float = 0.0) -> list[float]:
        """Seconds of those asked later than ``after``."""
        return [seconds for asked, seconds in self.took if asked >= after]


def metrics(instance: Instance) -> dict[str, float]:
    """Of the consolidator, by name and outcome; empty while it does not answer."""
    url = f"http://127.0.0.1:{instance.endpoints.http['consolidator']}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            families = text_string_to_metric_families(answer.read().decode())
    except OSError:
        return {}
    return {
        s.name.removeprefix("edgeseq_consolidator_") + s.labels.get("outcome", ""): s.value
        for family in families
        for s in family.samples
    }


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.5)


def accuracy(kafka: str, unseen: Mapping[str, Pairs]) -> float:
    """Exact answers in percent, mean of the tasks."""
    found = []
    with Client(kafka) as client:
        for task, pairs in unseen.items():
            options = Options(task=task, timeout_s=120)
            answers = client.predict_each([source for source, _ in pairs], options)
            found.append(fmean(a.target == t for a, (_, t) in zip(answers, pairs, strict=True)))
    return 100 * fmean(found)


def told(instance: Instance, event: str) -> dict[str, float]:
    """The latest such line in the consolidator's log."""
    lines = (instance.directory / "logs/consolidator.log").read_text().splitlines()
    found: list[dict[str, float]] = [json.loads(line) for line in lines if f'"{event}"' in line]
    return found[-1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=2_400)
    parser.add_argument("--cpu-s", type=float, default=60.0)
    args = parser.parse_args()
    mine = {
        "automatic": True,
        "flat_looks": 1,
        "least_tasks": 1,
        "quiet_s": 10,
        "cpu_s": args.cpu_s,
    }
    taught = {task: demo_pairs(task, args.pairs) for task in DEMO_TASKS}
    unseen = {
        name: [(example.source, example.target) for example in task.held_out(UNSEEN, 1)]
        for name, task in DEMO_TASKS.items()
    }
    with running("embedded", consolidator=mine) as instance:
        kafka = instance.endpoints.kafka
        with Client(kafka) as client:
            for task, pairs in taught.items():
                client.teach(task, pairs)
        idle = megabytes(instance)["consolidator"]
        until(lambda: metrics(instance).get("running_tasks"), "it begins")
        # ...so all is learnt: it waited until nothing did.
        before, asking = accuracy(kafka, unseen), Asking(kafka, unseen)
        asking.start()
        quiet, most = time.monotonic(), 0
        while metrics(instance).get("running_tasks"):
            most = max(most, megabytes(instance).get("consolidator", 0))
            time.sleep(0.5)
        published = told(instance, "base_published")
        switched = time.monotonic() - published["held_s"] - 5
        until(lambda: all(s.state == "running" for s in instance.supervisor.status().values()), "")
        time.sleep(20)
        asking.ended.set()
        asking.join()
        training = [s for at, s in asking.took if quiet <= at < switched]
        publish(
            "consolidator",
            f"python benchmarks/consolidator.py --pairs {args.pairs} --cpu-s {args.cpu_s:g}",
            [
                {
                    "tasks": len(taught),
                    "pairs a task": args.pairs,
                    "unseen right before, %": before,
                    "after, %": accuracy(kafka, unseen),
                    "steps": told(instance, "consolidation_judged")["steps"],
                    "consumer and learner held, s": published["held_s"],
                    "reply p50 while it trains, ms": 1_000 * percentile(training, 0.5),
                    "p99, ms": 1_000 * percentile(training, 0.99),
                    "longest reply when the predictor starts anew, s": max(
                        asking.latencies(switched)
                    ),
                    "requests failed": asking.failed,
                    "MB waiting": idle,
                    "MB training, most": most,
                }
            ],
            f"{UNSEEN} pairs a task that were not taught; {REQUESTS_A_SECOND} requests a second.",
        )


if __name__ == "__main__":
    main()
