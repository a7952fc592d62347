"""The native engine of two checkouts in turns: what a change to it brought.

    python benchmarks/engine_builds.py BEFORE --name NAME [--rounds 10] [--seconds 0.8]

BEFORE is another checkout in which `setup.py build_ext --inplace` ran.  Every turn is a process of its own,
one at work at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from report import publish

from edgeseq_core.evaluate.engines.models import write_models
from edgeseq_core.evaluate.engines.own import native

HERE = Path(__file__).resolve().parents[1]
CELLS = (("128", 1), ("128", 32), ("256", 1), ("256", 8), ("256", 32), ("512", 1), ("512", 32))


def turn(folder: Path, batch: int, seconds: float) -> float:
    """The least CPU milliseconds of a batch, of as many as fit into so many seconds."""
    work = native(folder, 1, None).prepare(batch, 0)
    work()
    least, until = float("inf"), time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.thread_time()
        work()
        least = min(least, time.thread_time() - began)
    return 1e3 * least


def of_build(build: Path, folder: Path, batch: int, seconds: float) -> float:
    """A turn of a checkout's engine."""
    done = subprocess.run(
        [sys.executable, __file__, "--turn", str(folder), str(batch), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(build)},  # before what is installed
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def compare(args: argparse.Namespace) -> None:
    """Measure both builds and publish."""
    builds = {"before": args.before.resolve(), "now": HERE}
    rows: list[dict[str, object]] = []
    with TemporaryDirectory() as scratch:
        for preset in sorted({preset for preset, _ in CELLS}):
            folder = Path(scratch, preset)
            folder.mkdir()
            write_models(folder, preset)
        for preset, batch in CELLS:
            taken: dict[str, list[float]] = {name: [] for name in builds}
            for _ in range(args.rounds):
                for name, build in builds.items():
                    taken[name].append(of_build(build, Path(scratch, preset), batch, args.seconds))
            row: dict[str, object] = {"cell": f"d={preset}, batch {batch}"}
            for kind, of in (("least", min), ("median", median)):
                before, now = of(taken["before"]), of(taken["now"])
                row |= {f"before, {kind} (ms)": before, f"now, {kind} (ms)": now}
                row[f"less time, {kind}"] = f"{100 * (1 - now / before):.0f} %"
            rows.append(row)
            print(rows[-1], flush=True)
    publish(
        args.name,
        f"python benchmarks/engine_builds.py BEFORE --name {args.name} --rounds {args.rounds} "
        f"--seconds {args.seconds}",
        rows,
        f"The native engine of two checkouts, {args.rounds} turns each; 16 source tokens to 16 target "
        "tokens, no calibration, one thread, random weights. CPU milliseconds of a turn's fastest batch: the "
        "least of all turns, which others on the machine disturbed least, and the median.",
    )


def main() -> None:
    """Compare two builds, or be a turn of one."""
    if sys.argv[1:2] == ["--turn"]:
        folder, batch, seconds = sys.argv[2:]
        print(turn(Path(folder), int(batch), float(seconds)))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("--name", required=True, help="of the table")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.8, help="of a turn")
    args = parser.parse_args()
    if not any((args.before / "edgeseq_core" / "native").glob("_engine*.so")):
        parser.error(
            f"{args.before} has no built engine: run `python setup.py build_ext --inplace` there"
        )
    compare(args)


if __name__ == "__main__":
    main()
