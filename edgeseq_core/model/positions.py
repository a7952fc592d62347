"""Where a token stands, told to an attention: both kinds know distances only, so longer inputs work.

Shapes: B rows, H heads, N or T queries, S keys, C = width of a head.  Some keys may stand in front and have
no place (task tokens, prefixes): ``unplaced`` is how many.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from edgeseq_core.model.config import ModelConfig


class Positions(Protocol):
    """Turns queries and keys, masks scores, or both."""

    def turn(self, x: Tensor, start: int) -> Tensor:
        """Queries or keys ``[B, H, N, C]`` of the tokens from ``start`` on."""

    def mask(self, mask: Tensor, queries: int, *, start: int, unplaced: int) -> Tensor:
        """An attention mask ``[B, 1, 1, S]``, True where attended or added to scores, with places."""

    def causal(self, queries: int, start: int) -> Tensor | None:
        """The same where a token sees itself and those before it; None: the plain triangle from 0 on."""


class Rotary(nn.Module):
    """Rotary positions on the first half of each head; the other half carries content alone.

    The slowest pair of coordinates turns by about a ``base``-th of what the first turns by.

    Source: RoFormer (Su et al. 2021, arXiv 2104.09864, section 3.2).
    """

    def __init__(self, config: ModelConfig, *, base: float = 10_000.0) -> None:
        super().__init__()
        pairs = config.head_width // 4
        frequency = base ** (-torch.arange(pairs) / pairs)
        angle = torch.arange(config.max_tokens + 1)[:, None] * frequency
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    def turn(self, x: Tensor, start: int) -> Tensor:
        cosine = self.cosine[start : start + x.shape[2]]
        sine = self.sine[start : start + x.shape[2]]
        turned, kept = x.chunk(2, -1)
        a, b = turned.chunk(2, -1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine, kept], -1)

    def mask(self, mask: Tensor, _queries: int, *, start: int, unplaced: int) -> Tensor:  # noqa: ARG002
        return mask

    def causal(self, queries: int, start: int) -> Tensor | None:
        if start == 0 or queries == 1:
            return None
        ones = torch.ones(queries, start + queries, dtype=torch.bool, device=self.cosine.device)
        return ones.tril(start)


class LinearBias(nn.Module):
    """A penalty that grows with the distance, steeper on one side of the token: no parameters.

    Heads come in pairs: one prefers what stands before the token, its twin what stands after it.  A
    head's slopes depend on its number alone, not on how many there are, so that heads can be added.

    Source: ALiBi (Press, Smith, Lewis 2022, arXiv 2108.12409, section 3); two sides, because an
    encoder that knows distances alone cannot tell a text from its mirror image.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        pair, twin = torch.arange(config.heads) // 2, torch.arange(config.heads) % 2
        gentle = 0.5 * 4.0 ** -pair.float()
        self.register_buffer("before", gentle * 4.0**twin, persistent=False)  # [H]
        self.register_buffer("after", gentle * 4.0 ** (1 - twin), persistent=False)
        self.before: Tensor
        self.after: Tensor

    def turn(self, x: Tensor, _start: int) -> Tensor:
        return x

    def _bias(self, queries: int, keys: int, start: int) -> Tensor:
        """``[H, T, S]``."""
        at = torch.arange(start, start + queries, device=self.before.device)
        past = at[:, None] - torch.arange(keys, device=self.before.device)
        before, after = self.before[:, None, None], self.after[:, None, None]
        return -(before * past.clamp(min=0) + after * (-past).clamp(min=0))

    def mask(self, mask: Tensor, queries: int, *, start: int, unplaced: int) -> Tensor:
        bias = self._bias(queries, mask.shape[-1] - unplaced, start)
        bias = torch.cat([bias.new_zeros(*bias.shape[:2], unplaced), bias], -1)
        if mask.dtype == torch.bool:
            return bias.masked_fill(~mask, -torch.inf)
        return bias + mask

    def causal(self, queries: int, start: int) -> Tensor:
        bias = self._bias(queries, start + queries, start)
        return bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(start + 1), -torch.inf)
