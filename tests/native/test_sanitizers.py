"""The C++ under ThreadSanitizer and AddressSanitizer: threads answer while tasks and bases are replaced."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeseq_core.model.base import Base
from edgeseq_core.native.engine import NativeEngine
from tests.contract.engines import INSTRUCTIONS, base_path
from tests.native.drivers import build, write_calibrations, write_shape

FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer"]
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


@pytest.fixture(scope="module", params=SANITIZERS)
def stress(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver, with the best set of instructions and the plain ones."""
    folder, flags = tmp_path_factory.mktemp("build"), [f"-fsanitize={request.param}"]
    compiler = need_sanitizer(flags, folder)
    own = {f"isa_{INSTRUCTIONS[0]}": ["-march=native"]} if INSTRUCTIONS[0] != "plain" else {}
    return build([compiler, *FLAGS, *flags], "stress", folder, own)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")
@pytest.mark.parametrize("shape", ["plain", "copy", "bands"])
def test_nothing_races_or_leaks_or_reads_beyond_its_end(
    stress: Path, shape: str, tmp_path: Path
) -> None:
    path = base_path(tmp_path, shape)
    calibrations = write_calibrations(Base.load(path), NativeEngine(path), tmp_path)
    made = subprocess.run(
        [*FIXED, str(stress), str(path), str(write_shape(path)), "1", *map(str, calibrations)],
        capture_output=True,
        check=False,
        text=True,
        timeout=200,
    )
    assert not made.returncode, made.stdout + made.stderr
