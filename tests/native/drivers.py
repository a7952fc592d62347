"""Builds the C++ drivers of these tests, and writes what they read (`driver.h`)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import edgeseq_core.native
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.input_rows import InputRows
from edgeseq_core.model.payload import MAX_ROWS, read_payload
from edgeseq_core.native.engine import NativeEngine, _shape
from edgeseq_core.text.vocabulary import SymbolTable
from tests.contract.engines import payload

SOURCES = Path(edgeseq_core.native.__file__).parent / "src"
FLAGS = ["-std=c++17", "-ffp-contract=off", "-pthread"]


def build(
    command: Sequence[str], driver: str, folder: Path, own_flags: Mapping[str, Sequence[str]]
) -> Path:
    """The driver with the engine's sources; ``own_flags`` are those of single files, by their stem."""

    def compiled(source: Path) -> str:
        out = str(folder / f"{source.stem}.o")
        flags = [*FLAGS, *own_flags.get(source.stem, ()), f"-I{SOURCES}"]
        subprocess.run([*command, *flags, "-c", str(source), "-o", out], check=True)
        return out

    sources = [one for one in SOURCES.glob("*.cpp") if one.stem != "binding"]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*sources, Path(__file__).with_name(f"{driver}.cpp")]))
    program = folder / driver
    subprocess.run([*command, *FLAGS, *objects, "-o", str(program)], check=True)
    return program


def write_shape(base: Path) -> Path:
    """The shape of a base, beside it."""
    shape = _shape(read_header(base).config)
    counts = [int(n) for n in shape.values() if not isinstance(n, list)]
    return write_numbers(
        base.with_suffix(".shape"), counts, *(n for n in shape.values() if isinstance(n, list))
    )


def write_calibrations(base: Base, engine: NativeEngine, folder: Path) -> list[Path]:
    """Three of random numbers: with an own symbol, in every depth, the last with own rows of sources."""
    out = []
    for seed in range(3):
        depth = base.config.encoder_layers if seed == 2 else 1 + seed
        made = payload(base, seed, rank=2 + seed, encoder_layers=depth, extra_tokens=seed)
        header, _ = read_payload(made, base.digest)
        table = SymbolTable(base.vocabulary, header["symbols"], max_symbols=MAX_ROWS)
        inputs = InputRows.of_header(base.vocabulary, header)
        shape = engine._calibration_shape(header, table, inputs)
        sizes = [shape[name] for name in ("rank", "encoder_layers", "task_tokens", "source_rows")]
        sizes.append(len(table.symbols))
        path = folder / f"{seed}.calibration"
        path.write_bytes(made)
        numbers = [shape[name] for name in ("task_scores", "rows", "alphabet")]
        write_numbers(folder / f"{path.name}.numbers", sizes, *numbers, *shape["symbols"])
        out.append(path)
    return out


def write_numbers(path: Path, *lines: Iterable[object]) -> Path:
    """Lists of numbers, one a line."""
    path.write_text("".join(" ".join(map(str, one)) + "\n" for one in lines))
    return path
