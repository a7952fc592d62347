"""The list of packages, and the native engine; everything else is in pyproject.toml.

The folder ``services/`` installs as ``edgeseq_services``: a wheel must not claim a generic import name.

The native engine is optional: where it cannot be built, the PyTorch engine serves.  Its kernels are compiled
once a set of instructions, each file with flags of its own, and the CPU's are picked at run time; a compiler
that does not know a flag leaves that set out.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma"]
INSTRUCTIONS = {
    "x86_64": {
        "loops_avx2": ["-mavx2", "-mf16c"],
        "isa_avx2": ["-mavx2", "-mfma"],
        "isa_avxvnni": ["-mavx2", "-mfma", "-mavxvnni"],
        "isa_avx512": AVX512,
        "isa_amx": [*AVX512, "-mamx-tile", "-mamx-int8"],
    },
    "aarch64": {"isa_neon": ["-march=armv8.2-a+dotprod"]},
}
FLAGS = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fvisibility=hidden", "-g0", "-Wno-maybe-uninitialized", "-Wno-uninitialized"]
# An answer's floats have the same bits whatever is compiled: no fusing but what the source says.
EXACT = ["-ffp-contract=off"]
# A learning step's are those of one kind of CPU, as PyTorch's are.
FUSED = ["-ffp-contract=fast"]


class BuildNative(build_ext):
    """Compiles each file of kernels with its own flags."""

    def build_extensions(self) -> None:
        machine = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64")
        flags = {
            file: wanted
            for file, wanted in INSTRUCTIONS.get(machine, {}).items()
            if self._understood(wanted)
        }
        compile_file = self.compiler._compile

        def compile_with_flags(obj: str, source: str, *rest: Any) -> None:
            extension, arguments, postargs, options = rest
            own = flags.get(Path(source).stem, [])
            compile_file(obj, source, extension, arguments, [*postargs, *own], options)

        self.compiler._compile = compile_with_flags
        super().build_extensions()

    def _understood(self, flags: list[str]) -> bool:
        """Whether the compiler knows these flags."""
        with tempfile.TemporaryDirectory() as folder:
            empty = Path(folder, "empty.cpp")
            empty.write_text("")
            try:
                self.compiler.compile([str(empty)], output_dir=folder, extra_postargs=flags)
            except CompileError:
                return False
        return True


def native() -> list[Extension]:
    """The engine, if what binds it is there."""
    try:
        from pybind11 import get_include
    except ImportError:
        return []
    return [
        Extension(
            f"edgeseq_core.native.{name}",
            sources=sorted(map(str, folder.glob("*.cpp"))),
            depends=sorted(map(str, folder.glob("*.h"))),
            include_dirs=[get_include()],
            extra_compile_args=[*FLAGS, *flags],
            language="c++",
            optional=True,
        )
        for name, folder, flags in (
            ("_engine", Path("edgeseq_core", "native", "src"), EXACT),
            ("_study", Path("edgeseq_core", "native", "study"), FUSED),
        )
    ]


core = find_packages(include=["edgeseq_core", "edgeseq_core.*"])
services = [f"edgeseq_services.{name}" for name in find_packages("services")]

setup(
    packages=[*core, "edgeseq_services", *services],
    ext_modules=native(),
    cmdclass={"build_ext": BuildNative},
)
