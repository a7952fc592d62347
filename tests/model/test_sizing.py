"""The shipped table is of this version's presets, and what is chosen from it fits."""

from __future__ import annotations

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base_file import read_header, shipped_path
from edgeseq_core.model.config import PRESETS, preset
from edgeseq_core.model.sizing import Size, Sizes, measured_sizes


def sizes() -> Sizes:
    def one(name: str, share: float, parameters: int, megabytes: float, ms: float) -> Size:
        return Size(
            preset=name,
            ffn_share=share,
            layers=0,
            parameters=parameters,
            megabytes=megabytes,
            ms=ms,
        )

    rows = (one("s", 0.0, 10, 1.0, 5.0), one("m", 0.5, 20, 2.0, 9.0), one("m", 0.0, 30, 3.0, 8.0))
    return Sizes(machine="a machine", date="2026-01-01", sizes=rows)


def test_what_fits_is_named_largest_first() -> None:
    assert [s.parameters for s in sizes().fitting()] == [30, 20, 10]
    assert [s.parameters for s in sizes().fitting(max_mb=2.0)] == [20, 10]
    assert [s.parameters for s in sizes().fitting(max_mb=3.0, max_ms=8.0)] == [30, 10]


def test_when_nothing_fits_the_limits_of_what_there_is_are_told() -> None:
    with pytest.raises(
        ConfigError, match=r"smallest takes 1\.00 MB, the fastest 5\.00 ms on a machine"
    ):
        sizes().fitting(max_mb=0.5)


def test_the_shipped_table_is_of_these_presets() -> None:
    measured = measured_sizes()
    symbols = read_header(None).config.vocabulary_size
    whole = {one.preset: one for one in measured.sizes if not one.ffn_share + one.layers}
    assert set(whole) == set(PRESETS)
    for name, one in whole.items():
        assert one.parameters == preset(name, vocabulary_size=symbols).parameters
    shipped = shipped_path().stat().st_size / 1e6
    assert whole["128"].megabytes == pytest.approx(shipped, rel=0.05)
    assert measured.machine
    assert measured.date
