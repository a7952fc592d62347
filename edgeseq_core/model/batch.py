"""Rows of token ids as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgeseq_core.text.vocabulary import PAD


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of ids as one tensor ``[B, longest]``, filled up with PAD."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
