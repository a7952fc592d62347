"""Bytes that come from outside, as the native engine reads them: what is no safetensors file is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from edgeseq_core.native.engine import native
from tests.contract.engines import INSTRUCTIONS

pytestmark = pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")
FOUR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


def packed(header: dict[str, Any] | str, data: bytes = bytes(16)) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_what_others_write_is_read() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)}
    header = json.dumps({"symbols": ['"', "\\", "\n", "é", "字"]})
    stored = native.Stored(save(arrays, metadata={"header": header, "other": "x"}))
    assert stored.header == header
    np.testing.assert_array_equal(stored.take("a"), arrays["a"])
    assert stored.take("a") is None
    with pytest.raises(ValueError, match="fp32"):
        stored.take("b")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0" * 7,
        (1 << 63).to_bytes(8, "little") + b"{}",
        packed("{"),
        packed("[]"),
        packed('{"a": 1}'),
        packed('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}} x'),
        packed('{"a\\'),
        packed({"a": FOUR}, bytes(17)),  # bytes that are no array's
        packed({"a": FOUR}, bytes(15)),
        packed({"a": FOUR, "b": FOUR}),  # in one place
        packed(f'{{"a": {json.dumps(FOUR)}, "a": {json.dumps(FOUR)}}}'),
        packed({"a": FOUR | {"dtype": "F64"}}),
        packed({"a": FOUR | {"shape": [5]}}),
        packed({"a": FOUR | {"shape": [1, 1, 4]}}),
        packed({"a": FOUR | {"shape": [1 << 40, 1 << 24]}}),
        packed({"a": FOUR | {"shape": [-4]}}),
        packed({"a": FOUR | {"shape": [10**30]}}),
        packed({"a": FOUR | {"data_offsets": [16, 0]}}),
        packed({"a": FOUR | {"data_offsets": [0]}}),
        packed({"a": FOUR | {"more": [0]}}),
        packed({"a": {"dtype": "F32", "shape": [4]}}),
    ],
)
def test_what_is_none_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  -- each says something else
        native.Stored(bad)


def test_a_layout_that_is_known_reads_other_numbers_and_no_others() -> None:
    known = native.Layouts()
    for at in (0, 1, 2):
        numbers = np.full(4, at, np.float32)
        header = {"__metadata__": {"header": f"{at}"}, "a": FOUR}
        stored = native.Stored(packed(header, numbers.tobytes()), known)
        assert stored.header == f"{at}"
        np.testing.assert_array_equal(stored.take("a"), numbers)
        for size in (15, 17):
            with pytest.raises(ValueError, match="no safetensors"):
                native.Stored(packed(header, bytes(size)), known)


def test_layouts_that_are_forgotten_are_read_again() -> None:
    known = native.Layouts()
    for name in [*"abcdefgh", *"hgfedcba"]:
        stored = native.Stored(packed({name: FOUR}), known)
        assert stored.take(name) is not None
        assert stored.take(name.upper()) is None


def test_metadata_comes_first_or_not_at_all() -> None:
    assert native.Stored(packed({"__metadata__": {}}, b"")).header == ""
    assert native.Stored(packed({"a": FOUR})).header == ""
    for bad in ('{"__metadata__": {},}', '{"__metadata__": {}', '{"__metadata__": {} "a": 1}'):
        with pytest.raises(ValueError, match="no safetensors"):
            native.Stored(packed(bad, b""))
    with pytest.raises(ValueError, match="no safetensors"):
        native.Stored(packed({"a": FOUR, "__metadata__": {"header": ""}}))
