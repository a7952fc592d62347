"""How long the native engine takes to swap one task, and what answers lose to it meanwhile.

``python benchmarks/engine_swap.py [--rounds N]``: one row of 16 tokens to 16 tokens, wall times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import percentile, publish
from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.evaluate.engines.models import write_models
from edgeseq_core.native.engine import NativeEngine

SWAP_EVERY_S = 0.005
ROW, LIMITS = SourceRow("0", "a source of tex"), Limits(max_tokens=16)


def microseconds(
    work: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time of each call."""
    out = []
    for _ in range(times):
        start = clock()
        work()
        out.append(1e6 * (clock() - start))
    return out


@contextmanager
def swapping(engine: NativeEngine, payload: bytes) -> Iterator[None]:
    """Another task is swapped all the time, by another thread."""
    stop = threading.Event()

    def swap_on() -> None:
        while not stop.wait(SWAP_EVERY_S):
            engine.swap("1", "1", payload)

    thread = threading.Thread(target=swap_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def measure(folder: Path, rounds: int) -> dict[str, object]:
    """One row of the table."""
    engine = NativeEngine(folder / "base.safetensors")
    payload = (folder / "0.calibration").read_bytes()
    times: dict[str, list[float]] = defaultdict(list)

    def swap() -> None:
        engine.swap("0", "1", payload)

    def answer() -> None:
        engine.generate([ROW], LIMITS)

    for _ in range(rounds):
        fresh = NativeEngine(folder / "base.safetensors")
        times["of a new engine"] += microseconds(lambda: fresh.swap("0", "1", payload), 1)  # noqa: B023
        times["swap"] += microseconds(swap, 30)
        times["alone"] += microseconds(answer, 30)
        with swapping(engine, payload):
            times["beside"] += microseconds(answer, 30)
        for _ in range(20):
            times["between"] += microseconds(swap, 1)
            first, second = microseconds(answer, 2, time.thread_time)
            times["first answer"].append(first - second)
    bank, served = {"0": object()}, object()
    replaced = microseconds(lambda: bank.__setitem__("0", served), 1_000)
    return {
        "snapshot (KiB)": len(payload) / 1024,
        "packed, in memory (KiB)": engine._bank["0"].calibration.bytes / 1024,
        "swap (us)": statistics.median(times["swap"]),
        "between answers": statistics.median(times["between"]),
        "a new engine's first": statistics.median(times["of a new engine"]),
        "replacing the reference alone (us)": statistics.median(replaced),
        "first answer after a swap, more CPU (us)": statistics.median(times["first answer"]),
        "answer, no swaps: p50, p95 (ms)": _p50_p95(times["alone"]),
        f"answer, {1 / SWAP_EVERY_S:.0f} swaps/s: p50, p95 (ms)": _p50_p95(times["beside"]),
    }


def _p50_p95(us: list[float]) -> str:
    return f"{percentile(us, 0.5) / 1e3:.2f}, {percentile(us, 0.95) / 1e3:.2f}"


def of_presets(
    measure: Callable[[Path, int], dict[str, object]], rounds: int
) -> list[dict[str, object]]:
    """A row a width, of models in a folder of their own."""
    rows = list[dict[str, object]]()
    for preset in ("128", "256", "512"):
        with TemporaryDirectory() as folder:
            write_models(Path(folder), preset)
            rows.append({"d": preset} | measure(Path(folder), rounds))
    return rows


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    publish(
        "engine-swap",
        f"benchmarks/engine_swap.py --rounds {rounds}",
        of_presets(measure, rounds),
        "A swap checks and packs a calibration of rank 8 (decoder and top layer), on the thread that watches "
        "snapshots and mostly without the interpreter's lock; then it replaces one entry of a dictionary, "
        "which is all that an answering thread meets (timed with the call around it). Wanted: 50 us a swap, "
        "aim 10.\n\n"
        "Swap: one after another, of a task whose snapshot before had the same header and layout, as most "
        "have. Between answers: the same when two answers have taken the caches since. A new engine's first: "
        "nothing of it was seen before. The keys and values of the task's tokens are made by the first "
        "answer after a swap, which so takes longer than the next one.",
    )


if __name__ == "__main__":
    main()
