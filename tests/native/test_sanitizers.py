"""The C++ under ThreadSanitizer and AddressSanitizer: threads answer while tasks and bases are replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edgeseq_core.model.base import Base
from edgeseq_core.native.engine import NativeEngine
from tests.contract.engines import INSTRUCTIONS, base_path
from tests.native.drivers import SOURCES, build, write_calibrations, write_shape

FLAGS = ["-O1", "-g1", "-fno-var-tracking", "-fno-omit-frame-pointer"]
# The scopes of what inlined lambdas capture take GCC longer than all other checks together.
ADDRESS = ["-fsanitize=address", "-fno-sanitize-address-use-after-scope"]
SANITIZERS = {"thread": ["-fsanitize=thread"], "address": ADDRESS}
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
    folder, flags = tmp_path_factory.mktemp("build"), SANITIZERS[request.param]
    compiler = need_sanitizer(flags, folder)
    wide = (f"isa_{INSTRUCTIONS[0]}", "loops_avx2") if INSTRUCTIONS[0] != "plain" else ()
    own = {file: ["-march=native"] for file in wide}
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


# Runs the tests of the learning step on a library of this process' choice.
RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("edgeseq_core.native._study", sys.argv[1])
found = importlib.util.module_from_spec(spec)
spec.loader.exec_module(found)
sys.modules[spec.name] = found
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-k", "not torch", *sys.argv[2:]]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_learning_step_reads_and_writes_nothing_beyond_its_ends(tmp_path: Path) -> None:
    pybind11, flags = pytest.importorskip("pybind11"), ["-fsanitize=address,undefined"]
    compiler = need_sanitizer(flags, tmp_path)
    files = sorted(map(str, (SOURCES.parent / "study").glob("*.cpp")))
    includes = [pybind11.get_include(), sysconfig.get_paths()["include"]]
    library = tmp_path / "_study.so"
    command = [compiler, *FLAGS, *flags, "-std=c++17", "-fPIC", "-shared", "-fno-sanitize-recover"]
    command += [f"-I{folder}" for folder in includes]  # without flags of a set: the plain one
    subprocess.run([*command, *files, "-o", str(library)], check=True)
    preload = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, check=True, text=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")
    ]
    here = Path(__file__).parent
    tests = [here / "test_native_learning.py", here.parent / "contract" / "test_study.py"]
    made = subprocess.run(
        [sys.executable, "-c", RUN, str(library), *map(str, tests)],
        env=os.environ
        | {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"},  # Python's own
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert not made.returncode, made.stdout + made.stderr
    assert " passed" in made.stdout
