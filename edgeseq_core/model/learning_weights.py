"""A frozen base as one calibration makes it, for a learning step: gradients of the calibration alone.

Same numbers as `MergedWeights`, by hand where autograd would first form the gradient of every merged
matrix, and of the token table, only to draw a few small ones from it.  For ``y = s * (x h W' + b) + t``
with ``W' = W + B A`` the low-rank parts get ``dB = dz' (x h A')`` and ``dA = (dz B)' x h`` (LoRA, Hu et al.
2021, section 4.1), which costs r / out of the product that is left out.

Shapes: N tokens, D = d_model, r = rank, R own rows, V symbols (own ones included), B rows of a batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgeseq_core.model.calibrated_weights import OneTask
from edgeseq_core.model.calibration import FACTORS, Calibration
from edgeseq_core.model.layout import Layout, Packed


class LearningWeights(OneTask):
    """One task's weights for one step of its learner; the base's own numbers get no gradient."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__(calibration)
        self._calibrated = {site.name for site in calibration.sites}
        own = calibration.tensors
        table = torch.cat([self.base.tokens.table(), calibration.virtual_rows()]).detach()
        self._rows = torch.tensor(calibration.rows)
        self._row_of = torch.full((len(table),), len(self._rows)).index_copy_(
            0, self._rows, torch.arange(len(self._rows))
        )
        self._known = table
        self._table = table.index_add(0, self._rows, own["rows"].detach())
        self._bias = F.pad(self.base.vocabulary_bias, (0, len(calibration.table.symbols))).detach()
        self._bias = (self._bias + own["other_bias"].detach()).index_add(
            0, self._rows, (own["row_bias"] - own["other_bias"]).detach()
        )

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        weight, bias = self.base.matrix(site, part), self.base.bias(site, part)
        if site not in self._calibrated:
            return F.linear(x, weight, bias)
        own, name = self.calibration.tensors, f"{site}.{part}"
        factors = [own[f"{site}.{factor}"] if factor else None for factor in FACTORS[part]]
        if part == "q" and factors[0] is not None:
            factors[0] = factors[0].repeat_interleave(self.base.config.head_width)
        out: Tensor = _Projection.apply(
            x, weight, bias, own[f"{name}.a"], own[f"{name}.b"], *factors
        )  # type: ignore[no-untyped-call]
        return out

    def embed(self, ids: Tensor) -> Tensor:
        rows = F.pad(self.calibration.tensors["rows"], (0, 0, 0, 1))  # the last one: no own row
        return F.embedding(ids, self._known) + F.embedding(self._row_of[ids], rows)

    def logits(self, hidden: Tensor) -> Tensor:
        own = self.calibration.tensors
        out: Tensor = _Logits.apply(  # type: ignore[no-untyped-call]
            hidden,
            self._table,
            self._bias,
            self._rows,
            own["rows"],
            own["row_bias"],
            own["other_bias"],
        )
        return out

    def task(self, _rows: int) -> tuple[Tensor, Tensor]:
        own = self.calibration.tensors
        return own["token"][None], own["vector"][None, None]

    def layout(self, real: Tensor) -> Layout:
        return Packed(real)


def token_losses(scores: Tensor, wanted: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Label-smoothed and plain losses ``[N]`` in nats from scores ``[N, V]`` and wanted tokens ``[N]``.

    Gradients flow through the smoothed ones.  ``(1 - e) * -log p(wanted) + e * mean over V of -log p``
    (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    """
    found: tuple[Tensor, Tensor] = _TokenLosses.apply(scores, wanted, smoothing)  # type: ignore[no-untyped-call]
    return found


class _Projection(torch.autograd.Function):
    """``y = s (x h W' + bias) + t`` with ``W = weight + b a``; s and h are given as what they differ from 1.

    All factors are folded into the matrix, both ways: no pass over the tokens but the products, and one
    for the gradient of ``s``, which is drawn from y: ``sum(dy z) = (sum(dy y) - t sum(dy)) / s``.
    """

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - what a projection is made of
        ctx: Any,
        x: Tensor,  # [..., in]
        weight: Tensor,  # [out, in]
        bias: Tensor,
        a: Tensor,  # [r, in]
        b: Tensor,  # [out, r]
        scale: Tensor | None,  # [out]
        shift: Tensor | None,  # [out]
        hidden: Tensor | None,  # [in]
    ) -> Tensor:
        full = torch.addmm(weight, b, a)
        if hidden is not None:
            a = torch.addcmul(a, a, hidden)
            full = torch.addcmul(full, full, hidden)
        if scale is not None:
            b = torch.addcmul(b, b, scale[:, None])
            full = torch.addcmul(full, full, scale[:, None])
            bias = torch.addcmul(bias, bias, scale)
        if shift is not None:
            bias = bias + shift
        y = F.linear(x, full, bias)
        ctx.save_for_backward(x, y if scale is not None else None, full, a, b, scale, shift, hidden)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, full, a, b, scale, shift, hidden = ctx.saved_tensors
        shape, x, dy = x.shape, x.flatten(0, -2), dy.flatten(0, -2)
        d_x = dy @ full
        # In these forms the thin products take a quarter of the time that they take transposed.
        d_b = ((x @ a.t()).t() @ dy).t()
        d_a = (dy @ b.t().contiguous().t()).t() @ x
        d_scale = d_hidden = None
        d_shift = None if shift is None else dy.sum(0)
        if scale is not None:
            s = _away_from_zero(1 + scale)
            d_scale = (dy * y.flatten(0, -2)).sum(0)
            d_scale = (
                d_scale if d_shift is None else torch.addcmul(d_scale, shift, d_shift, value=-1)
            ) / s
            d_b = d_b * s[:, None]
        if hidden is not None:
            h = _away_from_zero(1 + hidden)
            d_hidden = (d_x * x).sum(0) / h
            d_a = d_a * h
        return d_x.view(shape), None, None, d_a, d_b, d_scale, d_shift, d_hidden


def _away_from_zero(factor: Tensor) -> Tensor:
    return factor.clamp(min=1e-6).where(factor >= 0, factor.clamp(max=-1e-6))


class _Logits(torch.autograd.Function):
    """Scores of all symbols; of the table's gradient, the own rows alone."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,  # [B, T, D]
        table: Tensor,  # [V, D], own rows added
        bias: Tensor,  # [V], own ones added
        at: Tensor,  # [R], the tokens of the own rows
        _rows: Tensor,  # [R, D]
        _row_bias: Tensor,  # [R]
        _other_bias: Tensor,  # [1]
    ) -> Tensor:
        ctx.save_for_backward(hidden, table, at)
        return F.linear(hidden, table, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, table, at = ctx.saved_tensors
        dy, flat = dy.flatten(0, -2), hidden.flatten(0, -2)
        d_bias = dy.sum(0)
        d_row_bias = d_bias[at]
        d_rows = dy.index_select(1, at).t() @ flat
        d_other = (d_bias.sum() - d_row_bias.sum())[None]
        return (dy @ table).view_as(hidden), None, None, None, d_rows, d_row_bias, d_other


class _TokenLosses(torch.autograd.Function):
    """Cross-entropy of each token with its gradient written in one go."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, wanted: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_p, at = scores.log_softmax(-1), wanted[:, None]
        plain = -log_p.gather(-1, at)[:, 0]
        ctx.save_for_backward(log_p, at)
        ctx.smoothing = smoothing
        ctx.mark_non_differentiable(plain)
        return (1 - smoothing) * plain - smoothing * log_p.mean(-1), plain

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _d_plain: Tensor) -> tuple[Tensor, None, None]:
        log_p, at = ctx.saved_tensors
        e, dy = ctx.smoothing, dy[:, None]
        d = log_p.exp().sub_(e / log_p.shape[-1]).mul_(dy)
        return d.scatter_add_(-1, at, (e - 1) * dy), None, None
