"""A bare process with the native engine and one task, and a predictor: how soon they are there, and memory.

``python benchmarks/engine_start.py [--rounds N]``: a new Python process a round that reads a base, takes a
calibration and answers one row, 16 tokens to 16 tokens; the files are in the page cache.  Then a predictor
process with the same base and calibration, on the embedded broker and store.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.engine_swap import of_presets
from benchmarks.many_tasks import HOT, WARM_UP, Predictor, ask, register
from benchmarks.report import publish
from edgeseq_core.client import Client
from edgeseq_core.model.base import Base
from edgeseq_core.settings import PredictorSettings, load_settings
from edgeseq_services.up import up

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


def service(folder: Path) -> tuple[float, float]:
    """A predictor of one task after some answers: seconds until it was ready, and resident bytes."""
    base, payload = folder / "base.safetensors", (folder / "0.calibration").read_bytes()
    settings = load_settings(base={"path": base})
    with up(folder / "state", services=(), settings=settings) as instance:
        register(instance, [HOT], payload, Base.load(base))
        budget_bytes = PredictorSettings().tasks_budget_bytes
        made = Predictor(instance, folder / "predictor.log", budget_bytes)
        try:
            with Client(instance.endpoints.kafka) as client:
                for at in range(WARM_UP):
                    ask(client, HOT, at)
            return made.start_s, made.resident_bytes()
        finally:
            made.stop()


def measure(folder: Path, rounds: int) -> dict[str, object]:
    """One row of the table."""
    found = [bare(folder) for _ in range(rounds + 1)][1:]  # the first one reads the files

    def middle(name: str) -> float:
        return statistics.median(one[name] for one in found)

    ready_s, service_bytes = service(folder)
    return {
        "base (MB)": (folder / "base.safetensors").stat().st_size / MEGABYTE,
        "resident (MB)": middle("VmRSS") / MEGABYTE,
        "at most (MB)": middle("VmHWM") / MEGABYTE,
        "start to end of the first answer (s)": middle("wall_s"),
        "of which CPU (s)": middle("cpu_s"),
        "predictor (MB)": service_bytes / MEGABYTE,
        "predictor ready after (s)": ready_s,
    }


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    publish(
        "engine-start",
        f"benchmarks/engine_start.py --rounds {rounds}",
        of_presets(measure, rounds),
        "The first columns: a Python process without torch, that is interpreter, numpy, safetensors and "
        "native engine, with a base of random numbers, a vocabulary of 2,048, and one calibration of rank 8. "
        "Medians; wall time to the end of the process. Predictor: one process of the service with its client "
        f"libraries, after {WARM_UP} answers; ready: Kafka's assignment included. Wanted for d=256: "
        "50 MB and 0.5 s (aim 35 MB, 0.2 s); a predictor 110 MB (aim 80).",
    )


if __name__ == "__main__":
    main()
