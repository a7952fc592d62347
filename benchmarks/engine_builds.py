"""The native engine of two checkouts in turns: what a change to it brought.

    python benchmarks/engine_builds.py BEFORE --name NAME [--rounds 10] [--seconds 0.8] [--products avx512]

BEFORE is another checkout in which `setup.py build_ext --inplace` ran.  Every turn is a process of its own,
one at work at a time.  ``--products`` measures not answers but single products of a set of instructions.
"""

from __future__ import annotations

import argparse
import json
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
from edgeseq_core.native.engine import native as engine

HERE = Path(__file__).resolve().parents[1]
PRODUCTS = ((128, 128), (512, 256), (256, 1024), (2048, 512))  # outputs, inputs
PRODUCT_ROWS = (1, 2, 3, 4, 6, 8, 32)
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


def products(instructions: str, seconds: float) -> list[float]:
    """Multiply-adds a second of each product."""
    return [
        engine.multiply_adds_a_second(instructions, rows, outputs, inputs, seconds)
        for rows in PRODUCT_ROWS
        for outputs, inputs in PRODUCTS
    ]


def of_build(build: Path, *turn_of: str) -> str:
    """What a turn of a checkout's engine says."""
    done = subprocess.run(
        [sys.executable, __file__, *turn_of],
        env={**os.environ, "PYTHONPATH": str(build)},  # before what is installed
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def compare_products(args: argparse.Namespace) -> None:
    """Measure single products of both builds and publish."""
    best: dict[Path, list[float]] = {args.before.resolve(): [], HERE: []}
    for _ in range(args.rounds):
        for build, before in best.items():
            found = json.loads(of_build(build, "--turn-products", args.products, str(args.seconds)))
            best[build] = list(map(max, before, found)) if before else found
    pairs = iter(zip(*best.values(), strict=True))
    rows = []
    for count in PRODUCT_ROWS:
        row: dict[str, object] = {"rows": count}
        for outputs, inputs in PRODUCTS:
            before, now = next(pairs)
            row[f"{outputs} x {inputs}"] = (
                f"{before / 1e9:.0f} → {now / 1e9:.0f} ({now / before:.2f})"
            )
        rows.append(row)
    publish(
        args.name,
        f"python benchmarks/engine_builds.py BEFORE --name {args.name} --products {args.products} "
        f"--rounds {args.rounds} --seconds {args.seconds}",
        rows,
        f"Exact products of int8 of two checkouts, {args.products}, one thread, {args.rounds} turns each: "
        "10^9 multiply-adds a second, before → now (their ratio); outputs x inputs of the matrix. The most "
        "of all turns, which others on the machine disturbed least; the matrix stays in the caches it fits.",
    )


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
                    said = of_build(
                        build, "--turn", str(Path(scratch, preset)), str(batch), str(args.seconds)
                    )
                    taken[name].append(float(said))
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
    if sys.argv[1:2] == ["--turn-products"]:
        print(json.dumps(products(sys.argv[2], float(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("--name", required=True, help="of the table")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.8, help="of a turn, or of a product")
    parser.add_argument(
        "--products",
        choices=engine.instruction_sets() if engine else (),
        help="compare single products",
    )
    args = parser.parse_args()
    if not any((args.before / "edgeseq_core" / "native").glob("_engine*.so")):
        parser.error(
            f"{args.before} has no built engine: run `python setup.py build_ext --inplace` there"
        )
    compare_products(args) if args.products else compare(args)


if __name__ == "__main__":
    main()
