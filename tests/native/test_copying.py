"""An open gate in the native engine: all probability is on what the source holds, as in the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeseq_core.engine import PairRow
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_stored
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.native.engine import NativeEngine
from edgeseq_core.native.reference import ReferenceEngine
from edgeseq_core.text.vocabulary import EOS
from tests.contract.engines import INSTRUCTIONS, base_path

pytestmark = pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")
# Symbols that come twice, an own one of three bytes, unknown ones; blocks of 16 keys with and without a rest.
SOURCES = ("a漢字a", "", "x漢y漢", "0123456789abcde", "abcabc" * 9)


@pytest.mark.parametrize("moved", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_an_open_gate_copies(instructions: str, moved: float, tmp_path: Path) -> None:
    path = base_path(tmp_path, "copy")
    base = Base.load(path)
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    calibration.admit(["漢"])
    calibration.tensors["decoder.copy.gate"] += moved
    reference = ReferenceEngine(base, read_stored(path)[1])
    native = NativeEngine(path, instructions=instructions)
    for engine in (reference, native):
        engine.swap("copies", "copies-1", calibration.to_payload(base.digest))
    for source in SOURCES:
        row = PairRow("copies", source, "a漢b and some more")
        found, exact = native.logits(row), reference.logits(row)
        assert np.exp(found).sum(-1) == pytest.approx(1, abs=1e-5)
        assert np.median(np.abs(found - exact)) < 1e-4
        if moved == 50.0:
            likely = set(np.flatnonzero(found[0] > -30).tolist())
            assert likely == {*calibration.table.of_source(source), EOS}
