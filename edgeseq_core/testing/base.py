"""A base small enough for tests: random weights, real format."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import write_base
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.text.vocabulary import Vocabulary

CHARACTERS = string.printable[:95] + "äöüßéñ"


def write_tiny_base(
    path: Path, *, seed: int = 0, vocabulary: Vocabulary | None = None, **shape: Any
) -> Path:
    """Write a base of about 100 k random numbers over ASCII and a few accented letters.

    ``shape`` changes fields of its `ModelConfig`.
    """
    vocabulary = vocabulary or Vocabulary(CHARACTERS)
    fields: dict[str, Any] = {
        "vocabulary_size": len(vocabulary),
        "d_model": 32,
        "heads": 2,
        "encoder_layers": 3,
        "encoder_ffn": 64,
        "decoder_ffn": 16,
        "max_tokens": 64,
    }
    config = ModelConfig(**fields | shape)
    torch.manual_seed(seed)
    model = EdgeFormer(config)
    tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
    write_base(path, tensors, config=config, vocabulary=vocabulary, notes={"made_for": "tests"})
    return path


def tiny_base(folder: Path, *, seed: int = 0, **shape: Any) -> Base:
    """The same, loaded."""
    return Base.load(write_tiny_base(folder / f"tiny-{seed}.safetensors", seed=seed, **shape))
