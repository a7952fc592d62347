"""`edgeseq bench learning` in real processes: cells appear, and a second run starts none of them again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.evaluate.bench_folder import BenchFolder, CellKey
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_services.bench import Plan, run_bench


def plan(folder: Path) -> Plan:
    """One method learns a few dates, on a tiny base."""
    base = write_tiny_base(folder / "base.safetensors", max_tokens=32)
    return Plan(
        streams=["slovene-reform", "date-order"],
        methods=["ewc", "fine-tuning"],  # EWC needs tasks, and neither stream has several
        seeds=[1],
        pairs=64,
        questions=4,
        tasks=8,
        task_bytes=192 << 10,
        base=base,
        data=folder / "none",
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_cells_run_once_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    folder, key = BenchFolder(tmp_path / "out"), CellKey("date-order", "fine-tuning", 1)
    events = list(run_bench(plan(tmp_path), folder, workers=1))
    assert events[0].kind == "left out"
    assert "slovene-reform: " in events[0].said
    assert [e.key for e in events[1:]] == [key] * (len(events) - 1)
    assert events[1].said == "as cell 1 of 1"
    assert events[-1].kind == "done"
    (cell,) = folder.cells()
    assert " % right, " in events[-1].said
    assert len(cell.hits) == cell.pairs == 64
    assert cell.peak_resident_bytes > 50 << 20
    again = list(run_bench(plan(tmp_path), folder, workers=1))
    assert [e.kind for e in again] == ["left out", "kept"]


def test_a_bench_without_any_data_says_so(tmp_path: Path) -> None:
    only = replace(plan(tmp_path), streams=["slovene-reform"])
    with pytest.raises(ConfigError, match="no stream can be made here"):
        list(run_bench(only, BenchFolder(tmp_path / "out"), workers=1))


def test_a_folder_of_another_bench_or_one_that_cannot_be_written_is_an_error(
    tmp_path: Path,
) -> None:
    only, folder = replace(plan(tmp_path), methods=[], streams=["date-order"]), tmp_path / "out"
    assert list(run_bench(only, BenchFolder(folder), workers=1)) == []
    with pytest.raises(ConfigError, match="was made with other sizes: name another --out"):
        list(run_bench(replace(only, pairs=32), BenchFolder(folder), workers=1))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="name another --out"):
        list(run_bench(only, BenchFolder(tmp_path / "file"), workers=1))
