"""The engines that can be measured, what each needs, and what it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from edgeseq_core.evaluate.engines.peer import Peer
from edgeseq_core.evaluate.machine import has_avx512

Load = Callable[[Path, int, str | None], Peer]  # folder of the models, threads, variant

# CTranslate2 at its best here: memory is not given back to the system between batches.
MEMORY = "mmap_threshold=1073741824", "trim_threshold=4294967296", "top_pad=67108864"
TUNED = {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{one}" for one in MEMORY)}
AVX512 = {"CT2_FORCE_CPU_ISA": "AVX512"}  # which it does not choose by itself everywhere
AVX2_ONLY = {
    "CT2_FORCE_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


@dataclass(frozen=True)
class Kind:
    """An engine: its name for people, its module and function, and the packages it needs."""

    title: str
    module: str
    function: str
    package: str  # whose version is told
    needs: tuple[str, ...] = ()
    folds: bool = (
        True  # a calibration into its weights beforehand, so that it costs nothing; or has none
    )
    environment: Mapping[str, str] = field(default_factory=dict)
    avx512: Mapping[str, str] = field(default_factory=dict)  # more of it, where the CPU has that
    avx2: Mapping[str, str] = field(default_factory=dict)  # in its place, to forbid all but AVX2

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]

    @property
    def version(self) -> str:
        """Of its package."""
        return version(self.package)

    def load(self, folder: Path, threads: int, variant: str | None) -> Peer:
        """The engine on the models of a folder."""
        make: Load = getattr(import_module(f"{__package__}.{self.module}"), self.function)
        return make(folder, threads, variant)

    def variables(self, threads: int, *, avx2: bool) -> dict[str, str]:
        """The environment that its process needs."""
        more = self.avx2 if avx2 else self.avx512 if has_avx512() else {}
        return os.environ | {"OMP_NUM_THREADS": str(threads), **self.environment, **more}


KINDS = {
    "native": Kind("native int8", "own", "native", "edgeseq", folds=False),
    "torch": Kind("PyTorch fp32", "own", "torch_fp32", "torch"),
    "torch-int8": Kind("PyTorch int8", "own", "torch_int8", "torch"),
    "ctranslate2": Kind(
        "CTranslate2 int8", "ctranslate2_peer", "ctranslate2_int8", "ctranslate2",
        needs=("ctranslate2",), environment=TUNED, avx512=AVX512, avx2=AVX2_ONLY,
    ),
    "onnxruntime": Kind(
        "ONNX Runtime int8", "onnx_instructions", "onnxruntime_int8", "onnxruntime",
        needs=("onnxruntime", "onnx"), environment=TUNED,
    ),
}  # fmt: skip
