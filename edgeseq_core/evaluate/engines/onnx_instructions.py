"""ONNX Runtime with all that the CPU has, or held to AVX2, for which it has no switch.

Its kernels are chosen while its library is loaded: AVX-512 is used if the system keeps those registers
(``~xcr0 & 0xE0`` is zero).  In a copy of the library the jump after that test is taken out.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from edgeseq_core.evaluate.engines.peer import Peer
from edgeseq_core.evaluate.machine import has_avx512

TEST, JUMP = bytes.fromhex("48f7d0 a8e0"), bytes.fromhex("0f84")  # not rax; test al, 0xE0; je ...
NOTHING = bytes.fromhex("660f1f440000")  # as long as a jump and where to
LIBRARIES = "onnxruntime_pybind11_state*.so"


def onnxruntime_int8(folder: Path, threads: int, variant: str | None) -> Peer:
    """ONNX Runtime; ``avx2``: without AVX-512, or with a sentence that says why not."""
    if variant == "avx2" and has_avx512() and not without_avx512(folder / "avx2"):
        print("ONNX Runtime: another build than was looked at; it keeps AVX-512", file=sys.stderr)
    from edgeseq_core.evaluate.engines.onnx_peer import OnnxPeer  # loads the library

    return OnnxPeer(folder, threads)


def without_avx512(folder: Path) -> bool:
    """Make this process import a copy that uses no AVX-512; False where the test is not found."""
    found = find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    assert "onnxruntime" not in sys.modules
    package = Path(found.origin).parent
    (library,) = (package / "capi").glob(LIBRARIES)
    code = library.read_bytes()
    if code.count(TEST + JUMP) != 1:
        return False
    if not (copy := folder / package.name).exists():
        shutil.copytree(package, copy)
        at = code.index(TEST + JUMP) + len(TEST)
        (copy / "capi" / library.name).write_bytes(code[:at] + NOTHING + code[at + len(NOTHING) :])
    sys.path.insert(0, str(folder))
    return True
