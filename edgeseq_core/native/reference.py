"""The native engine's arithmetic, readable and slow: what it must answer, token for token.

Every projection quantizes its input a row at a time, ``x ~ q * s`` with ``s = max|x| / 127``, multiplies int8
by int8 and finishes exact sums in fp32.  A low-rank part is two such products, ``u = A x`` quantized again.
The network around the projections is the PyTorch model itself.

Shapes: B rows, N tokens, D = d_model, R own rows, V symbols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseq_core.model.base import Base
from edgeseq_core.model.calibrated_weights import MergedWeights
from edgeseq_core.model.calibration import FACTORS, Calibration
from edgeseq_core.model.payload import read_payload
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.text.vocabulary import FIRST_BYTE


@dataclass(frozen=True)
class Int8:
    """A matrix ``[out, in]`` of whole numbers with a scale a row."""

    values: Tensor  # float64, so that sums of products are exact
    scale: Tensor

    @classmethod
    def stored(cls, arrays: Mapping[str, NDArray[Any]], name: str) -> Int8:
        values = torch.from_numpy(arrays[name].astype(np.float64))
        return cls(values, torch.from_numpy(arrays[name + ".scale"].astype(np.float32)))

    def __call__(self, x: Tensor) -> Tensor:
        """Products ``[..., out]`` of fp32 rows ``[..., in]``, each quantized first."""
        top = x.abs().amax(-1, keepdim=True)
        inverse = torch.where(top > 0, 127.0 / top, 0.0)
        codes = (x * inverse).round().double()
        sums = codes @ self.values.T
        return sums.float() * (top / 127.0 * self.scale)


class IntegerWeights(MergedWeights):
    """One task's calibration on int8 sums: the `Weights` that the PyTorch network asks."""

    def __init__(
        self,
        calibration: Calibration,
        base: Mapping[str, NDArray[Any]],
        own: Mapping[str, NDArray[Any]],
    ) -> None:
        super().__init__(calibration)  # embeddings and biases of the vocabulary
        self._ranked = {site.name for site in calibration.sites}
        self._stored, self._own = base, own
        self._matrices: dict[str, Int8] = {}
        self._known = calibration.base.config.vocabulary_size

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        model, tensors = self.base, self.calibration.tensors
        weight = self._matrix(f"matrices.{model.sites[site].group}_{part}", self._stored)
        bias = model.bias(site, part)
        if site not in self._ranked:
            return weight(x) + bias
        scale, shift, hidden = FACTORS[part]
        if hidden:
            x = x * (1 + tensors[f"{site}.{hidden}"])
        a, b = (self._matrix(f"{site}.{part}.{half}", self._own) for half in "ab")
        y = weight(x) + b(a(x)) + bias
        if scale:
            factor = 1 + tensors[f"{site}.{scale}"]
            if part == "q":
                factor = factor.repeat_interleave(model.config.head_width)
            y = y * factor
        return y if shift is None else y + tensors[f"{site}.{shift}"]

    def logits(self, hidden: Tensor) -> Tensor:
        bands = [self._matrix("embedding", self._stored)(hidden)]
        for at in range(len(self.base.tails) // 2):
            rows, out = (f"tails.{at}_{half}" for half in ("rows", "out"))
            widened = self._matrix(out, self._stored)
            # `hidden @ out`: the scales of the rows that are summed over are factors of what is quantized.
            turned = Int8(widened.values.T, torch.ones(()))
            bands.append(self._matrix(rows, self._stored)(turned(hidden * widened.scale)))
        scores = torch.cat(bands, -1)
        means = [
            scores[..., [FIRST_BYTE + byte for byte in symbol.encode()]].mean(-1, keepdim=True)
            for symbol in self.calibration.table.symbols
        ]
        scores = torch.cat([scores, *means], -1)
        own = self._matrix("rows", self._own)(hidden)
        scores[..., self.calibration.rows] += own
        return scores + self.bias

    def _matrix(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Int8:
        if name not in self._matrices:
            self._matrices[name] = Int8.stored(arrays, name)
        return self._matrices[name]


class ReferenceEngine(TorchEngine):
    """The PyTorch engine with integer products; a batch is of one task."""

    def __init__(self, base: Base, stored: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(base)
        self._stored, self._integer = stored, dict[str, IntegerWeights]()

    def swap(self, task: str, snapshot_id: str, payload: bytes) -> None:
        super().swap(task, snapshot_id, payload)
        _, own = read_payload(payload, self.base_digest)
        calibration = self._bank[task].calibration
        self._integer[snapshot_id] = IntegerWeights(calibration, self._stored, own)

    def _weights(self, served: Sequence[Any]) -> IntegerWeights:
        (one,) = {one.snapshot_id for one in served}
        return self._integer[one]
