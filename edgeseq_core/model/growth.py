"""A larger calibration that computes exactly what the smaller one did.

* higher rank: new rows of ``A`` are drawn, new columns of ``B`` are zero, so ``B A`` stays;
* more encoder depth: the new sites start as the identity;
* more task tokens: tokens are split (`task_tokens`);
* a base with wider FFNs: zeros for its new hidden units (`carry`).

Outputs agree to rounding (1e-6), those of the int8 payload too: rows keep their scale, as zeros
and copies do not raise a row's largest number.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.edgeformer import EdgeFormer

LEAST_ROWS = 128  # own rows that a task may always have
ROW_TEXT_BYTES = (
    28  # of a row in a snapshot beside its numbers, at most: scale, bias, id, character
)


@lru_cache(maxsize=32)
def roomy(base: Base, shape: CalibrationConfig, max_bytes: int) -> CalibrationConfig:
    """The shape with as many own rows as a snapshot of ``max_bytes`` has room for, but `LEAST_ROWS`."""
    bare = Calibration(base.model, base.vocabulary, shape).to_payload(base.digest)
    room = (max_bytes - len(bare)) // (base.config.d_model + ROW_TEXT_BYTES)
    return replace(shape, most_rows=max(LEAST_ROWS, room))


def grow(calibration: Calibration, shape: CalibrationConfig, *, seed: int) -> Calibration:
    """A calibration of ``shape``, equal in function; ``seed`` decides the new rows of ``A``.

    Raises ConfigError for a shape that is smaller in any way or deeper than the base.
    """
    _check(calibration, shape)
    larger = Calibration(
        calibration.base,
        calibration.table.vocabulary,
        shape,
        owned=calibration.owned,
        place=calibration.place,
        seed=seed,
    )
    with torch.no_grad():
        for name, tensor in calibration.tensors.items():
            larger.tensors[name][tuple(map(slice, tensor.shape))] = tensor
        known, token = len(calibration.tensors["token"]), larger.tensors["token"]
        for at in range(known, len(token)):
            token[at] = token[larger.splits.origins[at - calibration.base.config.task_tokens]]
    return larger


def carry(calibration: Calibration, wider: EdgeFormer) -> Calibration:
    """The same on a base whose FFNs were widened (`base_growth.widen_ffns`): what is new changes nothing."""
    carried = Calibration(
        wider,
        calibration.table.vocabulary,
        calibration.config,
        owned=calibration.owned,
        place=calibration.place,
    )
    with torch.no_grad():
        for name, tensor in calibration.tensors.items():
            new = torch.zeros_like(carried.tensors[name])
            new[tuple(map(slice, tensor.shape))] = tensor
            carried.tensors[name] = new
    return carried


def _check(calibration: Calibration, shape: CalibrationConfig) -> None:
    have, layers = calibration.config, calibration.base.config.encoder_layers
    for name in ("rank", "encoder_layers", "extra_tokens"):
        if getattr(shape, name) < getattr(have, name):
            raise ConfigError(
                f"a calibration only grows: {name} is {getattr(have, name)} and cannot become "
                f"{getattr(shape, name)}"
            )
    if shape.encoder_layers > layers:
        raise ConfigError(
            f"the base has {layers} encoder layers, so {shape.encoder_layers} cannot be calibrated"
        )
