"""One engine in a process of its own, which answers a batch again and again when it is told to.

Each line of the input is ``BATCH TASKS SECONDS``, each of the output a JSON object with medians a call.
The first argument names the engine, the second the folder with the base and its calibrations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
from edgeseq_core.engine import Engine, Limits, SourceRow

TOKENS = 16  # of a source, its end included, and of an answer
LEAST_CALLS = 2
SOURCE = "a source of text"[: TOKENS - 1]

Work = Callable[[], object]
Peer = Callable[[int, int], Work]  # batch and tasks (0: no calibration) -> one call


def of_edgeseq(engine: Engine, folder: Path) -> Peer:
    """Answers of the shipped network; every calibration keeps it from ending early."""
    for path in folder.glob("*.calibration"):
        engine.swap(path.stem, "1", path.read_bytes())
    limits = Limits(max_tokens=TOKENS)

    def prepare(batch: int, tasks: int) -> Work:
        rows = [SourceRow(str(at % tasks) if tasks else "none", SOURCE) for at in range(batch)]
        (made,) = {answer.tokens for answer in engine.generate(rows, limits)}
        assert made == TOKENS
        return lambda: engine.generate(rows, limits)

    return prepare


def native(folder: Path, threads: int, instructions: str | None) -> Peer:
    from edgeseq_core.native.engine import NativeEngine

    path = folder / "base.safetensors"
    return of_edgeseq(NativeEngine(path, instructions=instructions, threads=threads), folder)


def torch(folder: Path, threads: int, _: str | None) -> Peer:
    import torch

    from edgeseq_core.model.base import Base
    from edgeseq_core.model.torch_engine import TorchEngine

    torch.set_num_threads(threads)
    return of_edgeseq(TorchEngine(Base.load(folder / "base.safetensors")), folder)


def ctranslate2(folder: Path, threads: int, split: str | None) -> Peer:
    from ctranslate2_peer import load

    return load(folder, threads, by_rows=split == "rows", tokens=TOKENS)


def onnxruntime(folder: Path, threads: int, _: str | None) -> Peer:
    from onnx_peer import load

    return load(folder, threads, tokens=TOKENS)


PEERS = {"native": native, "torch": torch, "ctranslate2": ctranslate2, "onnxruntime": onnxruntime}
PACKAGES = {
    "native": "edgeseq",
    "torch": "torch",
    "ctranslate2": "ctranslate2",
    "onnxruntime": "onnxruntime",
}


def measure(work: Work, seconds: float) -> dict[str, float]:
    """Medians of wall and CPU milliseconds a call, of all threads, and CPU seconds in all."""
    walls, cpus = list[float](), list[float]()
    began, cpu_began = time.perf_counter(), time.process_time()
    while len(walls) < LEAST_CALLS or time.perf_counter() - began < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(1e3 * (time.perf_counter() - wall))
        cpus.append(1e3 * (time.process_time() - cpu))
    return {
        "wall_ms": statistics.median(walls),
        "cpu_ms": statistics.median(cpus),
        "cpu_s": time.process_time() - cpu_began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant")
    args = parser.parse_args()
    out = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    prepare = PEERS[args.engine](args.folder, args.threads, args.variant)
    print(json.dumps({"version": version(PACKAGES[args.engine])}), file=out, flush=True)
    works = dict[tuple[int, int], Work]()
    for line in sys.stdin:
        batch, tasks, seconds = line.split()
        cell = int(batch), int(tasks)
        if cell not in works:
            works[cell] = prepare(*cell)
            works[cell]()
        print(json.dumps(measure(works[cell], float(seconds))), file=out, flush=True)


if __name__ == "__main__":
    main()
