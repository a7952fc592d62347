"""The native engine against CTranslate2, ONNX Runtime and PyTorch, and what calibrations cost it.

    python benchmarks/engine.py [--calibrations] [--name engine-peers] [--rounds 11] [--seconds 0.15]

The first is `edgeseq bench engine` with what is wanted beside it; the peers come with the extra `bench`.
``--calibrations`` measures the native engine alone, a set of instructions at a time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import RESULTS, publish
from edgeseq_core.evaluate.engines.models import TASKS, VOCABULARY, write_models
from edgeseq_core.evaluate.engines.table import Cell, Row
from edgeseq_core.native.engine import native
from edgeseq_services.engine_bench import EnginePlan, run_engine_bench
from edgeseq_services.engine_workers import alternate, started


class Wanted(NamedTuple):
    """How many times the speed of whom, and what is aimed at."""

    times: float
    than: str = "CTranslate2 int8"
    aim: str = ""


WANTED = {
    str(Cell("256", 1)): Wanted(3.5, aim="5"),
    str(Cell("256", 32)): Wanted(2, aim="2.5"),
    str(Cell("512", 1)): Wanted(2, aim="2.5"),
    str(Cell("512", 32)): Wanted(1.5, aim="2"),
    str(Cell("256", 8, threads=2)): Wanted(3),
    str(Cell("256", 1, instructions="avx2")): Wanted(1, "ONNX Runtime int8", "CTranslate2's"),
    str(Cell("256", 32, instructions="avx2")): Wanted(1, "ONNX Runtime int8", "CTranslate2's"),
}


def line(rows: Sequence[Row]) -> dict[str, object]:
    """A cell's row of the table."""
    by = {(row.engine, row.calibrated): row for row in rows}
    bare, calibrated = by["native int8", False], by["native int8", True]
    others = [row for row in rows if row.engine != bare.engine]
    wanted = WANTED.get(bare.cell)
    reached = by.get((wanted.than, False)) if wanted else None
    return {
        "cell": bare.cell,
        "native, bare (ms)": bare.ms,
        "calibrated (ms)": calibrated.ms,
        **{f"{row.engine} (ms)": row.ms for row in others},
        **{f"times {row.engine}": row.native_is_faster for row in others},
        "wanted": f"{wanted.times:g} times {wanted.than}" if wanted else "",
        "aim": wanted.aim if wanted else "",
        "reached": ("yes" if reached.native_is_faster >= wanted.times else "no")
        if wanted and reached
        else "",
        "floor (ms)": bare.floor_ms,
        "at the floor": next(
            (row.ms / row.floor_ms for row in others if wanted and row.engine == wanted.than), ""
        ),
        "cores in use by others": bare.cores_of_others,
    }


def against_peers(args: argparse.Namespace) -> None:
    """The table of cells, with the picture beside it."""
    rows: list[Row] = []
    with TemporaryDirectory() as scratch:
        plan = EnginePlan(rounds=args.rounds, seconds=args.seconds)
        for found in run_engine_bench(plan, Path(scratch)):
            rows += found.rows
            print(found.left_out or line(found.rows), flush=True)
        (RESULTS / f"{args.name}.png").write_bytes(Path(scratch, "engine.png").read_bytes())
    cells = list(dict.fromkeys(row.cell for row in rows))
    bare = [row for row in rows if not row.calibrated]
    told = {row.engine: f"{row.engine} {row.version}: {row.answers_like_fp32}" for row in bare}
    peak = bare[0]
    publish(
        args.name,
        f"python benchmarks/engine.py --name {args.name} --rounds {args.rounds} --seconds {args.seconds}",
        [line([row for row in rows if row.cell == cell]) for cell in cells],
        f"16 source tokens to 16 target tokens, vocabulary {VOCABULARY}, random weights. Milliseconds a "
        "batch: CPU time on one thread (others share the machine), wall time on two. Medians of "
        f"{args.rounds} rounds in turns, ratios within rounds. CTranslate2 has no calibration, and a "
        "transformer of its own with equally large products; malloc is tuned for it, and where AVX2 is "
        "forced, it and MKL are held to it, and so is ONNX Runtime, by a copy of its library that finds no "
        "AVX-512; on two threads the better of both ways to split. ONNX Runtime, PyTorch and the bare "
        "engine compute the same network without a calibration. `calibrated`: one task of rank 8 at decoder "
        "and top layer. PyTorch int8 is its dynamic quantization.\n\n"
        "The same answers as PyTorch in fp32, all 16 tokens of the shipped base's, on weights that were "
        f"trained: {'; '.join(told.values())}.\n\n"
        f"The floor: {peak.peak_multiply_adds_a_second / 1e9:.0f} G multiply-adds a second were measured "
        f"of this engine's int8 kernels in cache ({peak.instructions}, one thread), and "
        f"{peak.peak_bytes_a_second / 1e9:.0f} GB/s read of as many bytes as a step needs "
        f"({peak.cell}: {peak.step_bytes / 1e6:.2f} MB). It counts products alone. At the floor: how many "
        "times as fast as the wanted engine that would be, the most that is possible here.",
    )


def calibrations(args: argparse.Namespace) -> None:
    """What calibrations cost, a set of instructions at a time."""
    rows = []
    with TemporaryDirectory() as scratch:
        for preset in ("128", "256"):
            folder = Path(scratch, preset)
            folder.mkdir()
            write_models(folder, preset)
            rows += [
                row
                for name in native.instruction_sets()
                if name != "plain"  # takes minutes, and the least of all for a calibration
                for row in _of_instructions(folder, preset, name, args)
            ]
    publish(
        "engine",
        f"python benchmarks/engine.py --calibrations --rounds {args.rounds} --seconds {args.seconds}",
        rows,
        "CPU milliseconds of a batch, 16 source tokens to 16 target tokens, one thread, vocabulary "
        f"{VOCABULARY}, random weights; calibrations of rank 8 at decoder and top layer. Wanted: one task at "
        "most 10 % over none, 32 tasks in a batch of 32 at most 25 % over one.",
    )


def _of_instructions(
    folder: Path, preset: str, name: str, args: argparse.Namespace
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with started("native", folder, variant=name) as worker:
        for batch in (1, 8, 32):
            asked = {"none": (worker, 0), "one": (worker, 1), "many": (worker, min(batch, TASKS))}
            found = alternate(
                asked, batch, rounds=args.rounds, seconds=args.seconds / 2, clock="cpu_ms"
            )
            rows.append(
                {
                    "d": preset,
                    "instructions": name,
                    "batch": batch,
                    "no calibration (ms)": found.median("none"),
                    "one task (ms)": found.median("one"),
                    "a task a row (ms)": found.median("many"),
                    "one against none": _percent(found.faster("none", ["one"])),
                    "a task a row against one": _percent(found.faster("one", ["many"])),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _percent(times: float) -> str:
    return f"{100 * (times - 1):+.0f} %"


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibrations", action="store_true")
    parser.add_argument("--name", default="engine-peers", help="of the table against peers")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.15, help="of an engine's turn, at least")
    args = parser.parse_args()
    if args.calibrations:
        calibrations(args)
    else:
        against_peers(args)


if __name__ == "__main__":
    main()
