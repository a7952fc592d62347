"""One batch of greedy answers by the native engine and by PyTorch, on the base that ships.

CPU time of one thread, so that other processes count little: medians of rounds in which the engines
alternate.  ``python benchmarks/engine.py [--rounds N]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import publish
from edgeseq_core.engine import Engine, Limits, SourceRow
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine, native

TOKENS, TASKS = 16, 32
SOURCE = "a source of text"[: TOKENS - 1]  # and EOS


def payloads(base: Base) -> Iterator[bytes]:
    """Calibrations that answer without an end, so that every answer is as long."""
    for seed in range(TASKS):
        calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(), seed=seed)
        calibration.admit(["abcdefghijklmnopqrstuvwxyz"])
        calibration.tensors["row_bias"][0] = -100.0  # EOS
        for name in calibration.tensors:
            if name.endswith(".b"):
                calibration.tensors[name] += 0.01
        yield calibration.to_payload(base.digest)


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU time of one call, of all threads."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    base = Base.load()
    engines: dict[str, Engine] = {
        name: NativeEngine(instructions=name) for name in native.instruction_sets()
    }
    engines["PyTorch fp32"] = TorchEngine(base)
    for number, payload in enumerate(payloads(base)):
        for engine in engines.values():
            engine.swap(str(number), "1", payload)
    rows = []
    for batch, tasks in ((1, 1), (8, 1), (8, 8), (32, 1), (32, 32)):
        requests = [SourceRow(str(at % tasks), SOURCE) for at in range(batch)]
        found: dict[str, list[float]] = {name: [] for name in engines}
        for round_, (name, engine) in product(range(rounds + 1), engines.items()):
            limits = Limits(max_tokens=TOKENS)
            spent = cpu_ms(partial(engine.generate, requests, limits))
            if round_:  # the first one warms up
                found[name].append(spent)
        medians = {name: statistics.median(times) for name, times in found.items()}
        cells = {name: f"{ms:.2f}" for name, ms in medians.items()}
        best = medians["PyTorch fp32"] / medians[native.instruction_sets()[0]]
        rows.append({"batch": batch, "tasks": tasks} | cells | {"PyTorch / first": f"{best:.0f}"})
    publish(
        "engine",
        f"benchmarks/engine.py --rounds {rounds}",
        rows,
        f"CPU milliseconds of a batch, {TOKENS} source tokens to {TOKENS} target tokens, one thread, "
        "calibrations of rank 8; columns are sets of instructions of the native engine.",
    )


if __name__ == "__main__":
    main()
