"""Exact sums: every set of instructions against plain products, over odd shapes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq_core.native.engine import native
from tests.contract.engines import INSTRUCTIONS

SHAPES = [(16, 64), (128, 128), (24, 8), (64, 512), (100, 36), (259, 128), (33, 100), (1, 1)]
SHAPES += [(700, 512), (40, 8192)]  # read a panel at a time, of many blocks and of few


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize(("out", "columns"), SHAPES)
def test_sums_are_exact(instructions: str, out: int, columns: int) -> None:
    draw = np.random.default_rng(out * columns)
    w = draw.integers(-127, 128, (out, columns), dtype=np.int8)
    for rows in (1, 2, 3, 5, 6, 7, 11, 12, 16, 17, 31, 32, 33, 65):
        x = draw.integers(-127, 128, (rows, columns), dtype=np.int8)
        expected = x.astype(np.int32) @ w.astype(np.int32).T
        np.testing.assert_array_equal(native.sums(instructions, x, w), expected)


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_the_largest_sums_do_not_saturate(instructions: str) -> None:
    for x, w in ((127, 127), (-127, 127), (127, -127), (-127, -127)):
        rows = np.full((13, 512), x, np.int8)
        sums = native.sums(instructions, rows, np.full((33, 512), w, np.int8))
        assert (sums == 512 * x * w).all()
