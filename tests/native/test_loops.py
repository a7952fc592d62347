"""What a swap reads by: this CPU's loops and the plain ones give the same bits, and those are right."""

from __future__ import annotations

import numpy as np
import pytest

from edgeseq_core.native.engine import native
from tests.contract.engines import INSTRUCTIONS

pytestmark = [
    pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built"),
    pytest.mark.parametrize("plain", [False, True]),
]
LANES, ABREAST, INFINITY = 16, 4, 0x7C00


def test_every_fp16_number_is_widened(plain: bool) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16)
    finite = halves[halves & INFINITY != INFINITY]
    found = native.widened(plain, finite)
    expected = finite.view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("at", [0, 7, 8, 18])
def test_a_number_that_is_not_finite_is_found(plain: bool, at: int) -> None:
    halves = np.zeros(19, np.uint16)
    for bad in (INFINITY, INFINITY | 0x8000, INFINITY | 1):
        halves[at] = bad
        assert native.widened(plain, halves) is None


@pytest.mark.parametrize("first", [0, 4, 5])
@pytest.mark.parametrize(
    ("rows", "columns"), [(24, 128), (101, 128), (40, 8), (9, 2), (3, 33), (1, 1)]
)
def test_rows_are_packed_and_summed(plain: bool, rows: int, columns: int, first: int) -> None:
    w = np.random.default_rng(rows).integers(-127, 128, (rows, columns), dtype=np.int8)
    blocks, offsets = native.packed(plain, w, first)
    full = np.zeros((-(-(first + rows) // LANES) * LANES, -(-columns // 4) * 4), np.int8)
    full[first : first + rows, :columns] = w
    groups = full.reshape(-1, LANES, full.shape[1] // 4, 4).swapaxes(1, 2)  # [block, group, 16, 4]
    abreast = [
        groups[at : at + ABREAST].swapaxes(0, 1).ravel() for at in range(0, len(groups), ABREAST)
    ]
    np.testing.assert_array_equal(blocks, np.concatenate(abreast))
    np.testing.assert_array_equal(offsets, -128 * w.sum(1, dtype=np.int32))


@pytest.mark.parametrize("at", [0, 31, 32, 65])
def test_what_symmetric_int8_lacks_is_found(plain: bool, at: int) -> None:
    w = np.full((2, 66), 127, np.int8)
    w[1, at] = -128
    assert native.packed(plain, w, 0) is None
