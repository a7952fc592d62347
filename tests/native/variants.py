"""The base that ships, made over: with a copy path, or with its embeddings in bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeseq_core.model.base_file import read_base, write_base
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import EdgeFormer

Tensors = dict[str, NDArray[np.float32]]
BANDS = (333, 345)  # some letters of every task lie in each band


def write_copying(path: Path) -> Path:
    """Its pointer is at the token as far into the source as the answer is, its gate half open."""

    def pointing(tensors: Tensors, config: ModelConfig) -> Tensors:
        at_place = np.zeros(config.head_width, np.float32)
        at_place[0] = 5.0
        biases = {f"biases.decoder_copy_{part}": at_place for part in "qk"}
        return tensors | biases | {"biases.decoder_copy_gate": np.zeros(1, np.float32)}

    return _made_over(path, pointing, output="copy")


def write_banded(path: Path) -> Path:
    """Its rarer tokens as near to what they were as their widths allow."""

    def narrowed(tensors: Tensors, config: ModelConfig) -> Tensors:
        table, start = tensors["embedding"], config.first_band
        out = tensors | {"embedding": table[:start]}
        for at, (size, width) in enumerate(config.tails):
            left, strength, right = np.linalg.svd(table[start : start + size], full_matrices=False)
            kept = min(width, len(strength))
            rows, wide = np.zeros((size, width), np.float32), np.zeros((config.d_model, width))
            rows[:, :kept] = left[:, :kept] * strength[:kept]
            wide[:, :kept] = right[:kept].T
            out |= {f"tails.{at}_rows": rows, f"tails.{at}_out": wide.astype(np.float32)}
            start += size
        return out

    return _made_over(path, narrowed, bands=BANDS)


def _made_over(
    path: Path, change: Callable[[Tensors, ModelConfig], Tensors], **fields: object
) -> Path:
    """The shipped weights, changed, and as new what they have nothing for."""
    (header, _), tensors = read_base()
    config = replace(header.config, **fields)  # type: ignore[arg-type]
    torch.manual_seed(0)
    new = {name: p.detach().numpy() for name, p in EdgeFormer(config).named_parameters()}
    had = change(tensors, config)
    notes = {"made_for": "tests"}
    write_base(path, new | had, config=config, vocabulary=header.vocabulary, notes=notes)
    return path
