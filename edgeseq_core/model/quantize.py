"""int8 weights per row, as plain arrays.

A matrix is stored as int8 with one scale a row: ``w[r, c] ~ q[r, c] * scale[r]``, symmetric, so zero stays
zero.  What serves is the dequantised value, and learning starts from the same value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Scale = NDArray[np.floating]
Int8 = NDArray[np.int8]


def quantize_rows(matrix: Float, dtype: type[np.floating] = np.float32) -> tuple[Int8, Scale]:
    """int8 values ``[R, C]`` and scales ``[R]`` of a matrix ``[R, C]``.

    Scales of fewer bits are rounded up and the values follow, so that a row's largest number still fits.

    >>> q, scale = quantize_rows(np.array([[0.5, -1.27], [0.0, 0.0]], np.float32))
    >>> q.tolist(), round(float(scale[0]), 4)
    ([[50, -127], [0, 0]], 0.01)
    """
    exact = np.abs(matrix).max(axis=1) / np.float32(127.0)
    scale = exact.astype(dtype)
    scale = np.where(scale < exact, np.nextafter(scale, dtype(np.inf)), scale)
    divisor = np.where(scale > 0, scale.astype(np.float32), np.float32(1.0))
    values = np.clip(np.rint(matrix / divisor[:, None]), -127, 127).astype(np.int8)
    return values, scale


def dequantize_rows(values: Int8, scale: Scale) -> Float:
    """The fp32 matrix ``[R, C]`` that int8 values and scales stand for."""
    return values.astype(np.float32) * scale[:, None].astype(np.float32)
