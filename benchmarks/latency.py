"""Latency of request -> reply: one client, one request at a time, while idle and while learning.

    python benchmarks/latency.py [--broker embedded|apache] [--preset 256] [--requests 300]

The base is a random one of the preset, and every answer has 12 tokens (the predictor's limit), so that
the work is that of a twelve-character answer whatever was learnt.
"""

from __future__ import annotations

import argparse
import string
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from report import percentile, publish
from rig import demo_pairs, megabytes, running

from edgeseq_core.client import Client
from edgeseq_core.errors import EdgeSeqError
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.config import preset
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.text.vocabulary import Vocabulary

TASK = "german-plurals"
ANSWER_TOKENS = 12
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", default="embedded", choices=("embedded", "apache"))
    parser.add_argument("--preset", default="256")
    parser.add_argument("--requests", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = random_base(args.preset, Path(folder) / "base.safetensors")
        sections: dict[str, dict[str, object]] = {
            "base": {"path": base},
            "predictor": {"max_tokens": ANSWER_TOKENS},
        }
        with (
            running(args.broker, **sections) as instance,
            Client(instance.endpoints.kafka) as client,
        ):
            client.teach(TASK, demo_pairs(TASK, 100))
            wait_served(client)
            time.sleep(20)  # rehearsals end
            rows = [{"broker": args.broker, "learner": "idle", **times(client, args.requests)}]
            with busy(instance.endpoints.kafka):
                rows.append(
                    {"broker": args.broker, "learner": "busy", **times(client, args.requests)}
                )
            memory = megabytes(instance)
    publish(
        f"latency-{args.broker}-{args.preset}",
        f"python benchmarks/latency.py --broker {args.broker} --preset {args.preset}",
        rows,
        f"Resident memory (MB): {memory}, in all {sum(memory.values())}.",
    )


def random_base(name: str, path: Path) -> Path:
    """A base of the preset's shape with random weights."""
    vocabulary = Vocabulary(string.printable[:95] + "äöüßÄÖÜ")
    config = preset(name, vocabulary_size=len(vocabulary))
    torch.manual_seed(0)
    model = EdgeFormer(config)
    tensors = {key: p.detach().numpy() for key, p in model.named_parameters()}
    write_base(path, tensors, config=config, vocabulary=vocabulary, notes={"made_for": "latency"})
    return path


def wait_served(client: Client) -> None:
    """Until the task has a champion."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client.predict(TASK, "Haus n", timeout_s=5)
        except EdgeSeqError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def times(client: Client, requests: int) -> dict[str, float]:
    """Milliseconds from sending to receiving, and the part that was computing."""
    whole, compute = [], []
    for at in range(WARM_UP + requests):
        began = time.perf_counter()
        answer = client.predict(TASK, f"Wortstamm {at % 90:02d}", timeout_s=10)
        if at >= WARM_UP:
            whole.append(1_000 * (time.perf_counter() - began))
            compute.append(answer.timings.compute_ms if answer.timings else 0.0)
    return {
        "requests": requests,
        "p50 ms": percentile(whole, 0.5),
        "p95 ms": percentile(whole, 0.95),
        "p99 ms": percentile(whole, 0.99),
        "compute p50 ms": percentile(compute, 0.5),
    }


@contextmanager
def busy(kafka: str) -> Iterator[None]:
    """Teach without end in the background, so that the learner never idles."""
    stop = threading.Event()

    def teach() -> None:
        with Client(kafka) as client:
            at = 0
            while not stop.is_set():
                client.teach(TASK, demo_pairs(TASK, 50, skip=100 + at))
                at += 50
                stop.wait(1.0)

    teaching = threading.Thread(target=teach)
    teaching.start()
    try:
        yield
    finally:
        stop.set()
        teaching.join()


if __name__ == "__main__":
    main()
