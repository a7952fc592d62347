"""The native engine beside PyTorch and installed peers: times, answers, distance to the floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.engines.agreement import Alike, compare
from edgeseq_core.evaluate.engines.floor import demand, peaks
from edgeseq_core.evaluate.engines.models import BASE, write_models, write_shipped
from edgeseq_core.evaluate.engines.registry import KINDS, Kind
from edgeseq_core.evaluate.engines.table import Cell, Row, draw, write_csv
from edgeseq_core.evaluate.machine import cpu_name
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.curves import require_matplotlib
from edgeseq_core.native.engine import native

from .engine_workers import Measured, Worker, alternate, started

CELLS = (
    Cell("128", 1),
    Cell("128", 32),
    Cell("256", 1),
    Cell("256", 32),
    Cell("512", 1),
    Cell("512", 32),
    Cell("256", 8, threads=2),
    Cell("256", 1, instructions="avx2"),
    Cell("256", 32, instructions="avx2"),
)
SPLITS = "ctranslate2", "ctranslate2 by rows"  # two ways to share work among threads
SHORT_CELLS = (Cell("128", 1), Cell("128", 8))


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """Which cells, how many rounds, and how long an engine's turn is at least."""

    cells: Sequence[Cell] = CELLS
    rounds: int = 11
    seconds: float = 0.15


SHORT_PLAN = EnginePlan(cells=SHORT_CELLS, rounds=3, seconds=0.05)


class Found(NamedTuple):
    """A cell's rows, or an engine that is left out and why."""

    rows: Sequence[Row] = ()
    left_out: str = ""


def run_engine_bench(plan: EnginePlan, folder: Path) -> Iterator[Found]:
    """Measure cell by cell, and write ``engine.csv`` and ``engine.png`` after each.

    Raises ConfigError without the native engine or for a folder that cannot be written,
    MissingExtraError without matplotlib, ServiceError when an engine's process dies.
    """
    require_matplotlib()
    if native is None:
        raise ConfigError("the native engine was not built: install where a C++17 compiler is")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}; name another --out") from None
    for kind in KINDS.values():
        if kind.missing:
            yield Found(left_out=f"{kind.title}: not installed ({', '.join(kind.missing)})")
    rows: list[Row] = []
    with TemporaryDirectory() as scratch:
        alike = agreement(Path(scratch))
        for cell in plan.cells:
            if cell.instructions not in (None, *native.instruction_sets()):
                yield Found(left_out=f"{cell}: this CPU or build does not have it")
                continue
            models = Path(scratch, cell.preset)
            if not models.exists():
                models.mkdir()
                write_models(models, cell.preset)
            found = measure(cell, models, plan, alike)
            rows += found
            write_csv(rows, folder / "engine.csv")
            draw(rows, folder / "engine.png")
            yield Found(found)


# --- a cell ----------------------------------------------------------------------------------------


def agreement(scratch: Path) -> dict[str, Alike]:
    """How every installed engine answers on the shipped base, on weights that mean something."""
    folder = scratch / "shipped"
    folder.mkdir()
    write_shipped(folder)
    answers = {}
    for name, kind in KINDS.items():
        if not kind.missing:
            with started(name, folder) as worker:
                answers[name] = worker.answers()
    reference = answers["torch"]
    assert reference is not None  # it is the same network
    return {name: compare(own, reference) for name, own in answers.items()}


def measure(cell: Cell, models: Path, plan: EnginePlan, agreed: Mapping[str, Alike]) -> list[Row]:
    """Every installed engine in one cell, ours with a calibration and without."""
    own: dict[str, tuple[Kind, Worker]] = {}
    with ExitStack() as stack:
        for name, kind in KINDS.items():
            if kind.missing:
                continue
            for variant in _variants(name, cell):
                worker = stack.enter_context(
                    started(
                        name,
                        models,
                        threads=cell.threads,
                        variant=variant,
                        avx2=cell.instructions == "avx2",
                    )
                )
                own[SPLITS[1] if variant == "rows" else name] = kind, worker
        asked: dict[str, tuple[Worker, int]] = {}
        for name, (kind, worker) in own.items():
            asked[name] = worker, 0
            if not kind.folds:
                asked[f"{name}, calibrated"] = worker, 1
        found = alternate(
            asked,
            cell.batch,
            rounds=plan.rounds,
            seconds=plan.seconds,
            clock="cpu_ms" if cell.threads == 1 else "wall_ms",
        )
    names = [name for name in asked if name not in _slower(SPLITS, found)]
    config = read_header(models / BASE).config
    instructions = cell.instructions or native.instruction_sets()[0]
    needed, peak = demand(config, cell.batch), peaks(config, instructions)
    floor_ms = needed.floor_ms(peak, cell.threads)
    rows = []
    for name in names:
        engine, _, calibrated = name.partition(", ")
        kind, worker = own[engine]
        alike = Alike() if calibrated else agreed[engine.split(" ")[0]]
        ours = "native, calibrated" if calibrated else "native"
        rows.append(
            Row(
                cell=str(cell),
                engine=kind.title,
                calibrated=bool(calibrated),
                ms=found.median(name),
                native_is_faster=found.faster(ours, [name]),
                answers_like_fp32=alike.whole,
                symbols_like_fp32=alike.symbols,
                floor_ms=floor_ms,
                times_the_floor=found.median(name) / floor_ms,
                step_bytes=needed.step.weight_bytes,
                step_multiply_adds=needed.step.multiply_adds,
                peak_bytes_a_second=peak.bytes,
                peak_multiply_adds_a_second=peak.multiply_adds,
                cores_of_others=found.foreign,
                version=worker.version,
                instructions=instructions,
                cpu=cpu_name(),
            )
        )
    return rows


def _slower(names: Sequence[str], found: Measured) -> list[str]:
    """Of two ways to run one engine, the slower one."""
    known = [name for name in names if name in found.ms]
    return [name for name in known if name != min(known, key=found.median)]


def _variants(name: str, cell: Cell) -> list[str | None]:
    if name in ("native", "onnxruntime"):
        return [cell.instructions]
    return [None, "rows"] if name == "ctranslate2" and cell.threads > 1 else [None]
