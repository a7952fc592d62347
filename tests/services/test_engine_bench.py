"""`edgeseq bench engine` in real processes, in its shortest form."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgeseq_core.errors import ConfigError, ServiceError
from edgeseq_core.evaluate.engines.models import write_models, write_shipped
from edgeseq_core.evaluate.engines.registry import KINDS
from edgeseq_core.evaluate.engines.table import Cell
from edgeseq_core.evaluate.machine import has_avx512
from edgeseq_core.native.engine import native
from edgeseq_services.engine_bench import EnginePlan, run_engine_bench
from edgeseq_services.engine_workers import alternate, started

pytestmark = pytest.mark.skipif(native is None, reason="the native engine was not built")
CELL = Cell("128", 2)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_installed_engine_gets_a_row(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = EnginePlan(cells=[Cell("128", 1, instructions="mmx"), CELL], rounds=2, seconds=0)
    found = list(run_engine_bench(plan, tmp_path / "out"))
    missing = [kind for kind in KINDS.values() if kind.missing]
    left_out = [one.left_out for one in found if one.left_out]
    assert len(left_out) == len(missing) + 1
    assert "mmx forced" in left_out[-1]
    rows = found[-1].rows
    assert [(row.engine, row.calibrated) for row in rows] == [
        ("native int8", False),
        ("native int8", True),
        *(
            (kind.title, False)
            for name, kind in KINDS.items()
            if name != "native" and not kind.missing
        ),
    ]
    assert {row.cell for row in rows} == {str(CELL)}
    for row in rows:
        assert row.ms > 0
        assert row.times_the_floor == pytest.approx(row.ms / row.floor_ms)
        assert (
            row.answers_like_fp32.endswith("of 16") or row.calibrated or "CTranslate2" in row.engine
        )
    fp32 = next(row for row in rows if row.engine == "PyTorch fp32")
    assert (fp32.answers_like_fp32, fp32.symbols_like_fp32) == ("16 of 16", 1.0)
    assert rows[0].native_is_faster == 1.0
    with (tmp_path / "out" / "engine.csv").open(newline="") as file:
        assert [one["engine"] for one in csv.DictReader(file)] == [row.engine for row in rows]
    assert (tmp_path / "out" / "engine.png").stat().st_size > 1_000


@pytest.mark.timeout(120)
def test_engines_take_turns_and_one_that_ends_is_an_error(tmp_path: Path) -> None:
    write_models(tmp_path, "128")
    with started("native", tmp_path) as one, started("native", tmp_path, variant="plain") as two:
        asked = {"none": (one, 0), "calibrated": (one, 2), "plain": (two, 0)}
        found = alternate(asked, 2, rounds=3, seconds=0, clock="cpu_ms")
        assert {name: len(ms) for name, ms in found.ms.items()} == dict.fromkeys(asked, 3)
        assert found.faster("none", ["none"]) == 1.0
        assert found.faster("none", ["plain", "calibrated"]) > 0
    with pytest.raises(ServiceError, match="engine_worker"), started("native", tmp_path / "none"):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="name another --out"):
        next(run_engine_bench(EnginePlan(), tmp_path / "file" / "out"))


@pytest.mark.timeout(120)
def test_onnx_runtime_can_be_held_to_avx2(tmp_path: Path) -> None:
    if missing := KINDS["onnxruntime"].missing:
        pytest.skip(f"not installed: {', '.join(missing)} (extra bench)")
    if not has_avx512():
        pytest.skip("this CPU has no AVX-512")
    write_shipped(tmp_path)
    with (
        started("onnxruntime", tmp_path) as free,
        started("onnxruntime", tmp_path, variant="avx2") as held,
    ):
        for worker, copied in (free, False), (held, True):
            answers = worker.answers()
            assert answers is not None
            assert len(set(answers)) == len(answers)
            maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
            assert (str(tmp_path / "avx2" / "onnxruntime") in maps) == copied
