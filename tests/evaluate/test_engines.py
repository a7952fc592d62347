"""The engines of the bench: they compute one network, and what it needs is counted right."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgeseq_core.evaluate.engines.agreement import compare
from edgeseq_core.evaluate.engines.floor import Amount, Peaks, demand, peaks
from edgeseq_core.evaluate.engines.models import BASE, VOCABULARY, write_models, write_shipped
from edgeseq_core.evaluate.engines.peer import TOKENS, sources, take_time
from edgeseq_core.evaluate.engines.registry import KINDS
from edgeseq_core.evaluate.engines.table import Cell, Row, draw, write_csv
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.config import preset
from edgeseq_core.native.engine import native

SAME_NETWORK = [name for name in KINDS if name not in ("torch", "ctranslate2")]
LEAST_ALIKE = 0.75  # int8 turns a few near ties, and what follows them is another answer


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    write_shipped(folder)
    return folder


@pytest.fixture(scope="module")
def reference(shipped: Path) -> list[str]:
    answers = KINDS["torch"].load(shipped, 1, None).answers(sources())
    assert answers is not None
    return answers


def need(name: str) -> None:
    if name == "native" and native is None:
        pytest.skip("the native engine was not built")
    if KINDS[name].missing:
        pytest.skip(f"not installed: {', '.join(KINDS[name].missing)} (extra bench)")


def test_the_answers_tell_networks_apart(reference: list[str]) -> None:
    assert len(set(reference)) == len(sources())
    assert all(len(set(answer)) > 2 for answer in reference)
    assert {len(answer) for answer in reference} <= {TOKENS}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SAME_NETWORK)
def test_an_engine_with_the_same_weights_answers_alike(
    name: str, shipped: Path, reference: list[str]
) -> None:
    need(name)
    peer = KINDS[name].load(shipped, 1, None)
    alike = compare(peer.answers(sources()), reference)
    assert alike.symbols is not None
    assert alike.symbols > LEAST_ALIKE
    assert take_time(peer.prepare(3, 0), 0).wall_ms > 0


@pytest.mark.timeout(120)
def test_a_peer_with_another_network_has_no_answers_to_compare(shipped: Path) -> None:
    need("ctranslate2")
    for split in (None, "rows"):
        peer = KINDS["ctranslate2"].load(shipped, 1, split)
        assert peer.answers(sources()) is None
        assert take_time(peer.prepare(2, 0), 0).cpu_ms > 0


def test_a_measured_model_has_the_preset_s_shape(tmp_path: Path) -> None:
    write_models(tmp_path, "128")
    assert (
        read_header(tmp_path / BASE).config.core_parameters
        == preset("128", vocabulary_size=VOCABULARY).core_parameters
    )
    assert len(list(tmp_path.glob("*.calibration"))) == 33


# --- the floor ---------------------------------------------------------------------------------------


def test_a_batch_needs_its_products() -> None:
    config = preset("128", vocabulary_size=1_000)
    d, narrow, wide = config.d_model, config.decoder_ffn, config.encoder_ffn
    encoder = config.encoder_layers * (4 * d * d + 2 * d * wide)
    memory = config.decoder_layers * 2 * d * d
    step = config.decoder_layers * (4 * d * d + 2 * d * d + 2 * 2 * d * narrow) + 1_000 * d
    needed = demand(config, 3)
    assert needed.encoding == Amount(encoder + memory, (encoder + memory) * 3 * TOKENS)
    assert needed.step == Amount(step, 3 * step)


def test_the_floor_is_the_slower_of_reading_and_multiplying() -> None:
    needed = demand(preset("128", vocabulary_size=1_000), 1)
    read, multiply = Peaks(1e30, 1e9), Peaks(1e9, 1e30)
    moved = needed.encoding.weight_bytes + TOKENS * needed.step.weight_bytes
    made = needed.encoding.multiply_adds + TOKENS * needed.step.multiply_adds
    assert needed.floor_ms(read, 1) == pytest.approx(moved / 1e6)
    assert needed.floor_ms(multiply, 1) == pytest.approx(made / 1e6)
    assert needed.floor_ms(multiply, 2) == pytest.approx(made / 2e6)


def test_peaks_are_measured_for_every_set_of_instructions() -> None:
    need("native")
    for name in native.instruction_sets():
        found = peaks(preset("128", vocabulary_size=1_000), name)
        assert found.multiply_adds > 1e6
        assert found.bytes > 1e6
    with pytest.raises(ValueError, match="unknown instructions"):
        native.multiply_adds_a_second("mmx", 1, 16, 64, 0.001)


# --- what is written ----------------------------------------------------------------------------------


def row(cell: Cell, engine: str, ms: float, *, calibrated: bool = False) -> Row:
    return Row(
        cell=str(cell), engine=engine, calibrated=calibrated, ms=ms, native_is_faster=2.0,
        answers_like_fp32="15 of 16", symbols_like_fp32=0.9, floor_ms=0.5, times_the_floor=ms / 0.5,
        step_bytes=10, step_multiply_adds=20, peak_bytes_a_second=1e9,
        peak_multiply_adds_a_second=1e10, cores_of_others=0.1, version="1", instructions="plain",
        cpu="a CPU",
    )  # fmt: skip


def test_rows_are_written_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cells = Cell("128", 1), Cell("256", 8, threads=2, instructions="avx2")
    rows = [row(cell, name, 1.5) for cell in cells for name in ("native int8", "PyTorch fp32")]
    rows.append(row(cells[0], "native int8", 1.7, calibrated=True))  # not in every cell
    write_csv(rows, tmp_path / "engine.csv")
    with (tmp_path / "engine.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [one["cell"] for one in read] == [one.cell for one in rows]
    assert read[2]["cell"] == "d=256, batch 8, 2 threads, avx2 forced"
    assert float(read[0]["times_the_floor"]) == 3.0
    draw(rows, tmp_path / "engine.png")
    assert (tmp_path / "engine.png").read_bytes().startswith(b"\x89PNG")
