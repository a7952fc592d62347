"""The engine compiled for arm64 and run by an emulator: the portable path, and NEON with dot products.

Debian has compiler and emulator in ``g++-aarch64-linux-gnu`` and ``qemu-user-static``.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgeseq_core.model.base import Base
from edgeseq_core.native.engine import NativeEngine, native
from edgeseq_core.text.vocabulary import EOS
from tests.contract.engines import INSTRUCTIONS, SHAPES, base_path
from tests.native import test_kernels
from tests.native.drivers import SOURCES as CPP
from tests.native.drivers import build, write_calibrations, write_numbers, write_shape

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built"),
    pytest.mark.skipif(not COMPILER, reason="there is no aarch64-linux-gnu-g++"),
    pytest.mark.skipif(not EMULATOR, reason="there is no qemu-aarch64"),
    pytest.mark.timeout(600),
]

CPUS = {"cortex-a72": ["plain"], "max": ["neon", "plain"]}  # without dot products, with
LIKE = {
    "neon": next(iter(INSTRUCTIONS), ""),
    "plain": "plain",
}  # with a fused multiply-add, without
SOURCES = ("a", "a longer source", "ünseen 字 漢", "x" * 40)
TOKENS, ROWS = 12, 33


class Line(NamedTuple):
    """What one set of instructions made of one input."""

    instructions: str
    kind: str
    numbers: list[float]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [str(COMPILER), "-O2", "-static"]
    own = {"isa_neon": ["-march=armv8.2-a+dotprod"]}
    return build(command, "answers", tmp_path_factory.mktemp("build"), own)


def run(program: Path, cpu: str, *files: Path) -> Iterator[Line]:
    command = [str(EMULATOR), "-cpu", cpu, str(program), *map(str, files)]
    made = subprocess.run(command, capture_output=True, check=True, text=True)
    for line in made.stdout.splitlines():
        instructions, kind, *numbers = line.split()
        yield Line(instructions, kind, [float(number) for number in numbers])


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_tokens_are_those_of_this_machine(
    program: Path, cpu: str, shape: str, tmp_path: Path
) -> None:
    path = base_path(tmp_path, shape)
    engines = {name: NativeEngine(path, instructions=like) for name, like in LIKE.items()}
    calibrations = write_calibrations(Base.load(path), engines["plain"], tmp_path)
    for engine in engines.values():
        for seed, file in enumerate(calibrations):
            engine.swap(f"{seed}", f"{seed}-1", file.read_bytes())
    products, sums = write_products(tmp_path / "sums")
    requests, rows = write_requests(tmp_path / "requests", engines["plain"])

    found = list(run(program, cpu, path, write_shape(path), products, requests, *calibrations))
    assert list(dict.fromkeys(line.instructions for line in found)) == CPUS[cpu]
    for name in CPUS[cpu]:
        assert [line.numbers for line in found if line[:2] == (name, "sums")] == sums
        made = [line.numbers for line in found if line[:2] == (name, "answer")]
        expected = answers(engines[name], rows)
        assert [tokens for _, *tokens in made] == [tokens for _, *tokens in expected]
        assert [p for p, *_ in made] == pytest.approx([p for p, *_ in expected], abs=1e-6)


def write_products(path: Path) -> tuple[Path, list[list[float]]]:
    """Rows and matrices of int8 of odd shapes, and their exact products."""
    draw, arrays, sums = np.random.default_rng(0), {}, []
    for at, (out, columns) in enumerate(test_kernels.SHAPES):
        x = draw.integers(-127, 128, (ROWS, columns), dtype=np.int8)
        w = draw.integers(-127, 128, (out, columns), dtype=np.int8)
        arrays |= {f"x{at}": x, f"w{at}": w}
        sums.append((x.astype(np.int32) @ w.astype(np.int32).T).ravel().tolist())
    save_file(arrays, path, metadata={"header": ""})
    return path, sums


def write_requests(path: Path, engine: NativeEngine) -> tuple[Path, list[list[list[int]]]]:
    """Rows for every task: [task, width, constrained], source, its own rows, its symbols."""
    rows = []
    for source in SOURCES:
        for task, served in enumerate(engine._bank.values()):
            symbols = [*served.table.of_source(source), EOS]
            own = served.inputs.of(source) if served.inputs.rows else []
            for width, constrained in ((1, 0), (1, 1), (3, 0)):
                rows.append([[task, width, constrained], engine._ids(source), own, symbols])
    return write_numbers(path, *(line for row in rows for line in row)), rows


def answers(engine: NativeEngine, rows: list[list[list[int]]]) -> list[list[float]]:
    """Log-probability and tokens of every answer of this machine."""
    served = [one.calibration for one in engine._bank.values()]
    requests = [
        native.Request(source, own, symbols, served[task], width, bool(constrained))
        for (task, width, constrained), source, own, symbols in rows
    ]
    found = engine._engine.generate(requests, TOKENS, 1.0, None, 1)
    return [[one.log_probability, *one.tokens] for row in found for one in row.hypotheses]


def test_the_learning_step_compiles(tmp_path: Path) -> None:
    source = CPP.parent / "study" / "isa_plain.cpp"
    command = [
        str(COMPILER),
        "-std=c++17",
        "-O3",
        "-c",
        str(source),
        "-o",
        str(tmp_path / "plain.o"),
    ]
    subprocess.run(command, check=True)
