"""Every engine on every base that it serves, small enough for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgeseq_core.engine import Engine
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.native.engine import NativeEngine, native
from edgeseq_core.testing.base import write_tiny_base

INSTRUCTIONS: list[str] = native.instruction_sets() if native else []

# Bases that only PyTorch serves, and those that the native engine does too.
TORCH_SHAPES: dict[str, dict[str, Any]] = {
    "adapters": {"adaptation": "adapter", "adaptation_size": 2}
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pruned": {  # fewer heads of keys, odd widths, no FFN in the decoder
        "d_model": 48,
        "heads": 4,
        "head_size": 16,
        "key_heads": 2,
        "attention_groups": 4,
        "group_heads": (4, 2, 2, 4),
        "encoder_layers": 4,
        "group_ffn": (50, 7, 0, 0),
        "decoder_ffn": 0,
    },
    "copy": {"output": "copy"},
    "bands": {"bands": (270, 333)},
}
CASES = [
    *(("torch", shape) for shape in [*SHAPES, *TORCH_SHAPES]),
    *((instructions, "plain") for instructions in INSTRUCTIONS),
    *((kind, shape) for kind in INSTRUCTIONS[:1] for shape in SHAPES if shape != "plain"),
]


def base_path(folder: Path, shape: str) -> Path:
    """Where a base of this shape was written."""
    path = folder / f"{shape}.safetensors"
    return path if path.exists() else write_tiny_base(path, **(SHAPES | TORCH_SHAPES)[shape])


def new_engine(kind: str, path: Path) -> Engine:
    """An engine of a kind: ``torch``, or native with a set of instructions."""
    if kind == "torch":
        return TorchEngine(Base.load(path))
    return NativeEngine(path, instructions=kind)


def payload(
    base: Base, seed: int, targets: str = "abc漢", *, row_bias: float = 0.0, **config: int
) -> bytes:
    """A calibration of random numbers."""
    shape = CalibrationConfig(**{"rank": 2} | config)
    calibration = Calibration(base.model, base.vocabulary, shape, seed=seed)
    calibration.admit([targets])
    calibration.admit_sources("aü字")  # where its depth allows rows for them
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in calibration.tensors.items():
        calibration.tensors[name] = tensor + 0.3 * torch.randn(tensor.shape, generator=draw)
    calibration.tensors["row_bias"] += row_bias
    return calibration.to_payload(base.digest)
