"""int8 rows: the error is half a step of the scale as stored, whatever its precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeseq_core.model.quantize import Float, dequantize_rows, quantize_rows

_MATRICES = arrays(
    np.float32, (3, 5), elements=st.floats(-1000, 1000, width=32, allow_subnormal=False)
)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@given(matrix=_MATRICES)
def test_no_number_is_off_by_more_than_half_a_step(matrix: Float, dtype: type[np.floating]) -> None:
    values, scale = quantize_rows(matrix, dtype)
    assert scale.dtype == dtype
    off = np.abs(dequantize_rows(values, scale) - matrix)
    assert np.all(off <= scale[:, None].astype(np.float32) * 0.501)


def test_a_row_of_smallest_numbers_is_not_clipped_by_a_scale_of_few_bits() -> None:
    tiny = np.float32(3e-7)  # 127 steps of it are less than the smallest number of fp16
    values, scale = quantize_rows(np.array([[tiny, -tiny]], np.float32), np.float16)
    assert np.abs(dequantize_rows(values, scale) - [[tiny, -tiny]]).max() <= float(scale[0]) / 2
