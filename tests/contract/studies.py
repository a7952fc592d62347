"""Every study on every base that it can learn on, small enough for tests."""

from __future__ import annotations

from typing import Any

import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.source_encoder import CachingEncoder
from edgeseq_core.model.study import Study, TorchStudy
from edgeseq_core.native.learning import NativeStudy, native

INSTRUCTIONS: list[str] = native.instruction_sets() if native else []
PAIRS = [
    ("abc", "xyz"),
    ("a longer source, longer than a register", "ß"),
    ("b", "a longer target of 25 letters"),
    ("漢字", "漢 and ü"),
    ("z", "z"),
]
SOURCES, TARGETS = [source for source, _ in PAIRS], [target for _, target in PAIRS]
# Bases that only PyTorch learns on, and those that the native step does too.
TORCH_SHAPES: dict[str, dict[str, Any]] = {"copy": {"output": "copy"}}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "few heads of keys": {"heads": 4, "d_model": 64, "key_heads": 2},
    "pruned": {
        "heads": 2,
        "group_heads": (1, 2, 2, 1),
        "group_ffn": (48, 24, 7, 16),
        "decoder_ffn": 16,
    },
    "heads as wide as the model": {"heads": 1, "encoder_layers": 2},
}
CASES = [
    *(("torch", shape) for shape in [*SHAPES, *TORCH_SHAPES]),
    *((kind, shape) for kind in INSTRUCTIONS for shape in SHAPES),
]


def new_study(kind: str, base: Base) -> Study:
    """A study of a kind: ``torch``, or native with a set of instructions."""
    if kind == "torch":
        return TorchStudy(base, CachingEncoder(base, calibrated_layers=1))
    return NativeStudy(base, instructions=kind)


def calibration(base: Base, *, deep: bool, rank: int = 8, extra: int = 0) -> Calibration:
    """A calibration all of whose numbers do something."""
    layers = base.config.encoder_layers if deep else 1
    config = CalibrationConfig(rank=rank, encoder_layers=layers, extra_tokens=extra)
    made = Calibration(base.model, base.vocabulary, config)
    made.admit(TARGETS)
    made.admit_sources(SOURCES)
    draw = torch.Generator().manual_seed(1)
    for name, tensor in made.tensors.items():
        drawn = tensor.detach() + 0.05 * torch.randn(tensor.shape, generator=draw)
        made.tensors[name] = drawn.requires_grad_(True)
    return made
