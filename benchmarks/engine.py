"""The native engine against CTranslate2, ONNX Runtime and PyTorch: batches of 16 tokens to 16 tokens.

``python benchmarks/engine.py --peers FOLDER``, after
``pip install --target FOLDER ctranslate2 onnxruntime onnx``.  Every engine is a process of its own; they take
turns in short rounds, one at work at a time.  A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import publish
from edgeseq_core.model.config import PRESETS

VOCABULARY, TASKS = 2_048, 32
WORKER = Path(__file__).parent / "peers" / "worker.py"

# CTranslate2 at its best here (shared memory is not given back to the system between batches), and with AVX2.
MEMORY = "mmap_threshold=1073741824", "trim_threshold=4294967296", "top_pad=67108864"
TUNED = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{one}" for one in MEMORY)}
AVX512 = TUNED | {"CT2_FORCE_CPU_ISA": "AVX512"}
AVX2 = TUNED | {
    "CT2_FORCE_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


class Cell(NamedTuple):
    """What is measured, and how many times the speed of whom is wanted."""

    preset: str
    batch: int
    threads: int = 1
    instructions: str | None = None  # None: the best of everyone
    wanted: float | None = None
    than: str = "ct2"
    aim: str = ""


NAMES = {"ct2": "CTranslate2", "ort": "ONNX Runtime"}
CELLS = (
    Cell("256", 1, wanted=3.5, aim="5"),
    Cell("256", 32, wanted=2, aim="2.5"),
    Cell("512", 1, wanted=2, aim="2.5"),
    Cell("512", 32, wanted=1.5, aim="2"),
    Cell("256", 8, threads=2, wanted=3),
    Cell("256", 1, instructions="avx2", wanted=1, than="ort", aim="CTranslate2's"),
    Cell("256", 32, instructions="avx2", wanted=1, than="ort", aim="CTranslate2's"),
    Cell("128", 1),
    Cell("128", 32),
)


@dataclass
class Worker:
    """An engine at work."""

    process: subprocess.Popen[str]
    version: str

    def ask(self, batch: int, tasks: int, seconds: float) -> dict[str, float]:
        """Medians of one round."""
        assert self.process.stdin
        print(batch, tasks, seconds, file=self.process.stdin, flush=True)
        return _answer(self.process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(map(str, process.args))} ended: see what it said above")  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads(line)
    return found


@contextmanager
def started(
    engine: str, folder: Path, threads: int, variant: str | None, environment: dict[str, str]
) -> Iterator[Worker]:
    """A worker that is ready."""
    command = [sys.executable, str(WORKER), engine, str(folder), "--threads", str(threads)]
    process = subprocess.Popen(
        command + (["--variant", variant] if variant else []),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)} | environment,
    )
    try:
        yield Worker(process, _answer(process)["version"])
    finally:
        process.terminate()
        process.communicate()


def write_models(folder: Path, preset: str) -> None:
    """A base of random numbers, calibrations of the shipped shape, and one that changes nothing."""
    import torch

    from edgeseq_core.model.base import Base
    from edgeseq_core.model.calibration import Calibration, CalibrationConfig
    from edgeseq_core.testing.base import write_tiny_base
    from edgeseq_core.text.vocabulary import FIRST_CHARACTER, Vocabulary

    characters = [chr(point) for point in range(32, 127)]
    characters += [chr(0x4E00 + at) for at in range(VOCABULARY - FIRST_CHARACTER - len(characters))]
    path = folder / "base.safetensors"
    write_tiny_base(
        path, vocabulary=Vocabulary(characters), **PRESETS[preset] | {"max_tokens": 256}
    )
    base = Base.load(path)
    draw = torch.Generator().manual_seed(0)
    for task in (*map(str, range(TASKS)), "none"):
        made = Calibration(base.model, base.vocabulary, CalibrationConfig())
        made.admit(["abcdefghijklmnopqrstuvwxyz"])
        made.tensors["row_bias"][0] = -100.0  # no answer ends early
        for name in made.tensors if task != "none" else ():
            if name.startswith(("encoder", "decoder")):  # parts of a site, not rows or tokens
                noise = torch.randn(made.tensors[name].shape, generator=draw)
                made.tensors[name] += 0.01 * noise
        (folder / f"{task}.calibration").write_bytes(made.to_payload(base.digest))


def busy_s() -> float:
    """CPU seconds that the machine has worked."""
    user, nice, system, _, _, interrupts, soft, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


class Measured(NamedTuple):
    """Milliseconds by worker and round, and how many cores others used meanwhile."""

    ms: dict[str, list[float]]
    foreign: float

    def median(self, name: str) -> float:
        return statistics.median(self.ms[name])

    def faster(self, name: str, than: Sequence[str]) -> float:
        """How many times as fast as the best of some: median over rounds."""
        best = min(than, key=self.median)
        return statistics.median(b / a for a, b in zip(self.ms[name], self.ms[best], strict=True))


def alternate(
    asked: dict[str, tuple[Worker, int]], batch: int, *, rounds: int, seconds: float, clock: str
) -> Measured:
    """Rounds in which each worker has its turn, with so many tasks in its batches."""
    ms: dict[str, list[float]] = {name: [] for name in asked}
    for worker, tasks in asked.values():
        worker.ask(batch, tasks, 0)  # warm
    began, busy, own = time.perf_counter(), busy_s(), 0.0
    for _ in range(rounds):
        for name, (worker, tasks) in asked.items():
            found = worker.ask(batch, tasks, seconds)
            ms[name].append(found[clock])
            own += found["cpu_s"]
    return Measured(ms, max(0.0, busy_s() - busy - own) / (time.perf_counter() - began))


def against_peers(folders: dict[str, Path], peers: Path, args: argparse.Namespace) -> None:
    """The table of cells."""
    rows, versions = [], dict[str, str]()
    with_peers = {"PYTHONPATH": str(peers)}
    for cell in CELLS:
        folder, forced = folders[cell.preset], cell.instructions
        kinds: dict[str, tuple[str, str | None, dict[str, str]]] = {
            "native": ("native", forced, {}),
            "ct2": ("ctranslate2", None, with_peers | (AVX2 if forced else AVX512)),
            "ort": ("onnxruntime", None, with_peers | TUNED),
            "torch": ("torch", None, {}),
        }
        if cell.threads > 1:
            kinds["ct2 by rows"] = ("ctranslate2", "rows", kinds["ct2"][2])
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(started(engine, folder, cell.threads, variant, more))
                for name, (engine, variant, more) in kinds.items()
            }
            versions |= {kinds[name][0]: worker.version for name, worker in workers.items()}
            asked = {name: (worker, 1) for name, worker in workers.items()}
            asked["bare"] = (workers["native"], 0)
            found = alternate(
                asked,
                cell.batch,
                rounds=args.rounds,
                seconds=args.seconds,
                clock="cpu_ms" if cell.threads == 1 else "wall_ms",
            )
        ct2 = [name for name in asked if name.startswith("ct2")]
        reached = found.faster("bare", ct2 if cell.than == "ct2" else [cell.than])
        rows.append(
            {
                "cell": f"d={cell.preset}, batch {cell.batch}"
                + (f", {cell.threads} threads" if cell.threads > 1 else "")
                + (f", {forced} forced" if forced else ""),
                "native, bare (ms)": found.median("bare"),
                "native, calibrated (ms)": found.median("native"),
                "CTranslate2 int8 (ms)": min(map(found.median, ct2)),
                "ONNX Runtime int8 (ms)": found.median("ort"),
                "PyTorch fp32 (ms)": found.median("torch"),
                "times CTranslate2, bare": found.faster("bare", ct2),
                "calibrated": found.faster("native", ct2),
                "wanted, bare": f"{cell.wanted:g} times {NAMES[cell.than]}" if cell.wanted else "",
                "aim": cell.aim,
                "reached": ("yes" if reached >= cell.wanted else "no") if cell.wanted else "",
                "times ONNX Runtime, bare": found.faster("bare", ["ort"]),
                "times PyTorch, calibrated": found.faster("native", ["torch"]),
                "cores in use by others": found.foreign,
            }
        )
        print(rows[-1], flush=True)
    publish(
        "engine-peers",
        f"benchmarks/engine.py --peers FOLDER --rounds {args.rounds} --seconds {args.seconds}",
        rows,
        f"16 source tokens to 16 target tokens, vocabulary {VOCABULARY}, random weights. Milliseconds a "
        "batch: CPU time on one thread (others share the machine), wall time on two. Medians of "
        f"{args.rounds} rounds in turns, ratios within rounds. {_list(versions)}. CTranslate2 has no "
        "calibration, and a transformer of its own with equally large products; malloc is tuned for it, and "
        "it may use AVX512 (and AMX through MKL) or, where forced, AVX2, MKL likewise; on two threads the "
        "better of both ways to split. ONNX Runtime and the bare engine compute the same network without a "
        "calibration; its set of instructions cannot be forced, so beside `avx2 forced` it has the CPU's "
        "best. 'calibrated' and PyTorch serve one task of rank 8 at decoder and top layer. "
        "PyTorch's two threads wait for each other on cores that others use.",
    )


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def calibrations(folders: dict[str, Path], args: argparse.Namespace) -> None:
    """What calibrations cost, a set of instructions at a time."""
    from edgeseq_core.native.engine import native

    rows = []
    for preset in ("128", "256"):
        for name in native.instruction_sets():
            with started("native", folders[preset], 1, name, {}) as worker:
                for batch in (1, 8, 32):
                    mixed = min(batch, TASKS)
                    asked = {"none": (worker, 0), "one": (worker, 1), "many": (worker, mixed)}
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
    publish(
        "engine",
        f"benchmarks/engine.py --rounds {args.rounds} --seconds {args.seconds}",
        rows,
        "CPU milliseconds of a batch, 16 source tokens to 16 target tokens, one thread, vocabulary "
        f"{VOCABULARY}, random weights; calibrations of rank 8 at decoder and top layer. Wanted: one task at "
        "most 10 % over none, 32 tasks in a batch of 32 at most 25 % over one.",
    )


def _percent(times: float) -> str:
    return f"{100 * (times - 1):+.0f} %"


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder with CTranslate2 and ONNX Runtime")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.2, help="of an engine's turn, at least")
    args = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folders = {name: Path(scratch, name) for name in ("128", "256", "512")}
        for name, folder in folders.items():
            folder.mkdir()
            write_models(folder, name)
        if args.peers:
            against_peers(folders, args.peers.resolve(), args)
        else:
            calibrations(folders, args)


if __name__ == "__main__":
    main()
