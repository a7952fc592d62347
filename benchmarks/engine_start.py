"""A bare process with the native engine and one task: how soon it has answered, and what memory it holds.

``python benchmarks/engine_start.py [--rounds N]``: a new Python process a round that reads a base, takes a
calibration and answers one row, 16 tokens to 16 tokens; the files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import publish
from edgeseq_core.evaluate.engines.models import write_models

WANTED_MB, WANTED_S = 50, 0.5
MEGABYTE = 1_000_000
# The process that is measured: resident memory is asked after the answer.
BARE = """
import json, sys, time
from pathlib import Path
from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.native.engine import NativeEngine

folder = Path(sys.argv[1])
engine = NativeEngine(folder / "base.safetensors")
engine.swap("0", "0-1", (folder / "0.calibration").read_bytes())
engine.generate([SourceRow("0", "a source of tex")], Limits(max_tokens=16))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
sizes = {name: 1024 * int(status[name].split()[0]) for name in ("VmRSS", "VmHWM")}
print(json.dumps(sizes | {"cpu_s": time.process_time()}), flush=True)
"""


def bare(folder: Path) -> dict[str, float]:
    """One process: seconds from its start to its answer, and bytes."""
    began_s = time.perf_counter()
    made = subprocess.run(
        [sys.executable, "-c", BARE, str(folder)], capture_output=True, check=True, text=True
    )
    found: dict[str, float] = json.loads(made.stdout)
    return found | {"wall_s": time.perf_counter() - began_s}


def measure(folder: Path, rounds: int) -> dict[str, object]:
    """One row of the table."""
    found = [bare(folder) for _ in range(rounds + 1)][1:]  # the first one reads the files

    def middle(name: str) -> float:
        return statistics.median(one[name] for one in found)

    return {
        "base (MB)": (folder / "base.safetensors").stat().st_size / MEGABYTE,
        "resident (MB)": middle("VmRSS") / MEGABYTE,
        "at most (MB)": middle("VmHWM") / MEGABYTE,
        "start to end of the first answer (s)": middle("wall_s"),
        "of which CPU (s)": middle("cpu_s"),
    }


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rows = []
    for preset in ("128", "256", "512"):
        with TemporaryDirectory() as folder:
            write_models(Path(folder), preset)
            rows.append({"d": preset} | measure(Path(folder), rounds))
    publish(
        "engine-start",
        f"benchmarks/engine_start.py --rounds {rounds}",
        rows,
        "A Python process without torch: interpreter, numpy, safetensors, native engine, a base of random "
        "numbers with a vocabulary of 2,048, one calibration of rank 8. Medians; wall time to the end of the "
        f"process. Wanted for d=256: {WANTED_MB} MB, {WANTED_S} s; aim 35 MB, 0.2 s.",
    )


if __name__ == "__main__":
    main()
