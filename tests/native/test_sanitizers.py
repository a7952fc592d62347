"""The C++ under ThreadSanitizer and AddressSanitizer: threads answer while tasks and bases are replaced."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import edgeseq_core.native
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.payload import alphabet
from edgeseq_core.native.engine import _shape
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_core.text.vocabulary import SymbolTable
from tests.contract.engines import INSTRUCTIONS, payload

SOURCES = Path(edgeseq_core.native.__file__).parent / "src"
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-omit-frame-pointer", "-ffp-contract=off", "-pthread"]
SANITIZERS = ("thread", "address")
# No addresses at random: older ThreadSanitizers do not understand how newer kernels scatter them.
FIXED = ["setarch", "-R"] if shutil.which("setarch") else []


def need_sanitizer(flags: list[str], folder: Path) -> str:
    """The compiler, if it has the sanitizer and its programs run here."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        pytest.skip("there is no C++ compiler")
    source, program = folder / "empty.cpp", folder / "empty"
    source.write_text("int main() { return 0; }")
    made = subprocess.run(
        [compiler, *FLAGS, *flags, str(source), "-o", str(program)],
        capture_output=True,
        check=False,
    )
    runs = [*FIXED, str(program)]
    if made.returncode or subprocess.run(runs, capture_output=True, check=False).returncode:
        pytest.skip(f"the compiler has no {flags[0]} that runs here")
    return compiler


def build(compiler: str, flags: list[str], folder: Path, instructions: str) -> Path:
    """The driver, with one set of instructions and the plain ones."""

    def compiled(source: Path) -> str:
        own = ["-march=native"] if source.stem == f"isa_{instructions}" != "isa_plain" else []
        out = str(folder / f"{source.stem}.o")
        command = [compiler, *FLAGS, *flags, *own, f"-I{SOURCES}", "-c", str(source), "-o", out]
        subprocess.run(command, check=True)
        return out

    sources = [one for one in SOURCES.glob("*.cpp") if one.stem != "binding"]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*sources, Path(__file__).with_name("stress.cpp")]))
    program = folder / "stress"
    subprocess.run([compiler, *FLAGS, *flags, *objects, "-o", str(program)], check=True)
    return program


def write_numbers(path: Path, *lines: object) -> Path:
    """Lists of numbers, one a line, as the driver reads them."""
    texts = (" ".join(map(str, one if isinstance(one, list) else [one])) for one in lines)
    path.write_text("\n".join(texts) + "\n")
    return path


def write_inputs(folder: Path) -> list[str]:
    """A tiny base, three calibrations, and their shapes: the driver's arguments."""
    path = write_tiny_base(folder / "base.safetensors")
    base, shape = Base.load(path), _shape(read_header(path).config)
    counts = [n for n in shape.values() if isinstance(n, int)]
    widths = [widths for widths in shape.values() if isinstance(widths, list)]
    arguments = [str(path), str(write_numbers(folder / "shape", counts, *widths)), "1"]
    for seed in range(3):
        file = folder / f"{seed}.calibration"
        file.write_bytes(payload(base, seed, "abc", rank=2 + seed))
        rows = [2, *base.vocabulary.encode("abc")]  # EOS first
        tokens = base.config.task_tokens
        allowed = alphabet(SymbolTable(base.vocabulary, [], max_symbols=1), rows, 1)
        sizes = [2 + seed, 1, tokens]
        write_numbers(folder / f"{file.name}.numbers", sizes, [0] * tokens, rows, allowed)
        arguments.append(str(file))
    return arguments


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")
@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_nothing_races_or_leaks_or_reads_beyond_its_end(sanitizer: str, tmp_path: Path) -> None:
    flags = [f"-fsanitize={sanitizer}"]
    compiler = need_sanitizer(flags, tmp_path)
    arguments = write_inputs(tmp_path)
    program = build(compiler, flags, tmp_path, INSTRUCTIONS[0])
    made = subprocess.run(
        [*FIXED, str(program), *arguments], capture_output=True, check=False, text=True, timeout=200
    )
    assert not made.returncode, made.stdout + made.stderr
