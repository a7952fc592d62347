"""How a sub-layer's input and output are normalised around its residual connection.

``y = f(before(x)); x = after(x, y)``.  The final norms of encoder and decoder are ``last``.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.config import ModelConfig


class Norms(Protocol):
    """One norm a sub-layer, by the sub-layer's name; the decoder's two FFNs of a layer share theirs."""

    def before(self, x: Tensor, name: str) -> Tensor:
        """What the sub-layer reads."""

    def after(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """The residual stream after the sub-layer said ``y``."""

    def last(self, x: Tensor, name: str) -> Tensor:
        """What leaves a stack of layers."""


class PreNorm(nn.ParameterDict):
    """RMSNorm in front of each sub-layer and at the end of each stack (the default).

    Zero output of a sub-layer leaves the stream as it is, which is what growth needs.
    Source: Zhang and Sennrich 2019 (arXiv 1910.07467).
    """

    def __init__(self, config: ModelConfig) -> None:
        names = [*sublayers(config), "encoder.out", "decoder.out"]
        super().__init__({_gain(name): nn.Parameter(torch.ones(config.d_model)) for name in names})

    def before(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.gain(name), eps=1e-6)

    def gain(self, name: str) -> Tensor:
        """The gain ``[D]`` of a sub-layer."""
        gain: Tensor = self[_gain(name)]
        return gain

    def after(self, x: Tensor, y: Tensor, _name: str) -> Tensor:
        return x + y

    def last(self, x: Tensor, name: str) -> Tensor:
        return self.before(x, name)


class PostNorm(nn.ParameterDict):
    """LayerNorm after each residual sum, as in EdgeFormer's public code (papers' parity)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        for name in sublayers(config):
            self[_gain(name)] = nn.Parameter(torch.ones(config.d_model))
            self[_shift(name)] = nn.Parameter(torch.zeros(config.d_model))

    def before(self, x: Tensor, _name: str) -> Tensor:
        return x

    def after(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        return F.layer_norm(x + y, (x.shape[-1],), self[_gain(name)], self[_shift(name)])

    def last(self, x: Tensor, _name: str) -> Tensor:
        return x


def sublayers(config: ModelConfig) -> list[str]:
    """Names of the sub-layers that have a norm of their own."""
    names = [f"encoder.{i}.{s}" for i in range(config.encoder_layers) for s in ("self", "ffn")]
    parts = ("self", "ffn", "cross") if config.decoder_ffn else ("self", "cross")
    return names + [f"decoder.{i}.{s}" for i in range(config.decoder_layers) for s in parts]


def _gain(name: str) -> str:
    return f"{name}.norm".replace(".", "_")  # ParameterDict keys may hold no dot


def _shift(name: str) -> str:
    return f"{name}.shift".replace(".", "_")
