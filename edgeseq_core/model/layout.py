"""How a batch's tokens lie in memory outside of attention: in rows with padding, or without.

Rows of real data are filled to a half by padding (pairs in the order in which they come, in batches of
64), and all that works token by token can do without it.

Shapes: B rows, S tokens of the longest, N real tokens of all rows, D numbers a token.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Layout(Protocol):
    """Two forms of the same tokens; what stands at padding is never read."""

    def pack(self, x: Tensor) -> Tensor:
        """From rows ``[B, S, D]`` to the form in which tokens are worked on."""

    def unpack(self, x: Tensor) -> Tensor:
        """Back to rows ``[B, S, D]``."""


class Rows:
    """Tokens stay in their rows, padding is worked on like the rest."""

    def pack(self, x: Tensor) -> Tensor:
        return x

    def unpack(self, x: Tensor) -> Tensor:
        return x


class Packed:
    """Real tokens alone, one after the other as one row, ``[1, N, D]``."""

    def __init__(self, real: Tensor) -> None:
        self._rows = tuple(real.shape)
        flat = real.flatten()
        self.places = flat.nonzero()[:, 0]  # [N], where each token stands in the rows
        self._from = (flat.cumsum(0) - 1).clamp(min=0)  # [B * S]; padding takes some real token

    def pack(self, x: Tensor) -> Tensor:
        packed: Tensor = _Pack.apply(x.flatten(0, 1), self.places)  # type: ignore[no-untyped-call]
        return packed[None]

    def unpack(self, x: Tensor) -> Tensor:
        rows: Tensor = _Unpack.apply(x[0], self._from, self.places)  # type: ignore[no-untyped-call]
        return rows.view(*self._rows, -1)


ROWS = Rows()


class _Pack(torch.autograd.Function):
    """Takes rows; padding gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.length = len(x)
        return x.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return dy.new_zeros(ctx.length, dy.shape[1]).index_copy_(0, places, dy), None


class _Unpack(torch.autograd.Function):
    """Puts tokens where they stand; padding, which nobody reads, has no gradient to give."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, origin: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return x.index_select(0, origin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return dy.index_select(0, places), None, None
