"""The native engine against integer arithmetic, itself in other batches and on other CPUs, and bad bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from edgeseq_core.engine import Limits, PairRow, SourceRow
from edgeseq_core.errors import ConfigError, SnapshotError
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_stored
from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.payload import read_payload
from edgeseq_core.model.torch_engine import TorchEngine, log_probabilities
from edgeseq_core.native.engine import NativeEngine
from edgeseq_core.native.reference import ReferenceEngine
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_core.text.vocabulary import EOS
from tests.contract.engines import INSTRUCTIONS, SHAPES, base_path, payload

pytestmark = pytest.mark.skipif(not INSTRUCTIONS, reason="the native engine was not built")
SOURCES = ("a", "a longer source", "ünseen 字", "x" * 40, "0123456789 and more")
FUSED = [one for one in INSTRUCTIONS if one != "plain"]  # have a fused multiply-add


@pytest.fixture(scope="module", params=SHAPES)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_path(tmp_path_factory.mktemp("bases"), request.param)


@pytest.fixture(scope="module")
def base(path: Path) -> Base:
    return Base.load(path)


Some = TypeVar("Some", NativeEngine, TorchEngine)


def served(engine: Some, base: Base, tasks: int = 3) -> Some:
    for seed in range(tasks):
        layers = base.config.encoder_layers if seed == 2 else 1  # all: with own rows of sources
        shape = {"rank": 2 + seed, "extra_tokens": seed, "encoder_layers": layers}
        engine.swap(f"{seed}", f"{seed}-1", payload(base, seed, **shape))
    return engine


def test_logits_are_those_of_integer_arithmetic_and_near_fp32(path: Path, base: Base) -> None:
    reference = served(ReferenceEngine(base, read_stored(path)[1]), base)
    fp32, native = served(TorchEngine(base), base), served(NativeEngine(path), base)
    off = []
    for task in "012":
        for source in SOURCES:
            row = PairRow(task, source, "abc漢 text")
            found, exact, real = (e.logits(row) for e in (native, reference, fp32))
            off += np.abs(found - exact).max(-1).tolist()
            lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(real, axis=-1)
            assert ((found * real).sum(-1) / lengths > 0.998).all()  # random weights
    # Where a number lies between two codes, sums in another order may take the other one.
    assert np.median(off) < 1e-5
    assert max(off) < 0.2


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_bits_depend_neither_on_neighbours_nor_on_threads(
    path: Path, base: Base, instructions: str
) -> None:
    engines = [
        served(NativeEngine(path, instructions=instructions, threads=threads), base)
        for threads in (1, 3)
    ]
    rows = [
        SourceRow(str(task), source, n_best)
        for source in SOURCES
        for task in range(3)
        for n_best in (1, 3)
    ]
    together, in_threads = (engine.generate(rows, Limits(max_tokens=12)) for engine in engines)
    backwards = engines[0].generate(rows[::-1], Limits(max_tokens=12))[::-1]
    alone = [engines[0].generate([row], Limits(max_tokens=12))[0] for row in rows]
    assert together == alone == in_threads == backwards  # confidences to the last bit


def test_a_task_that_changes_nothing_shares_a_batch_with_others(path: Path, base: Base) -> None:
    reference = ReferenceEngine(base, read_stored(path)[1])
    native = served(NativeEngine(path), base)
    blank = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    for engine in (reference, native):
        engine.swap("blank", "blank-1", blank.to_payload(base.digest))
    row = PairRow("blank", "a source", "a target")
    assert np.median(np.abs(native.logits(row) - reference.logits(row))) < 1e-5

    rows = [SourceRow(task, source) for source in SOURCES for task in ("0", "blank", "2")]
    together = native.generate(rows, Limits(max_tokens=12))
    assert together == [native.generate([row], Limits(max_tokens=12))[0] for row in rows]


@pytest.mark.parametrize("instructions", FUSED)
def test_every_cpu_with_a_fused_multiply_add_gives_the_same_bits(
    path: Path, base: Base, instructions: str
) -> None:
    best, other = (
        served(NativeEngine(path, instructions=one), base) for one in (FUSED[0], instructions)
    )
    for source in SOURCES:
        for task in "012":
            row = PairRow(task, source, "abc漢 text")
            assert best.logits(row).tobytes() == other.logits(row).tobytes()


def test_a_place_that_many_hypotheses_go_on_from_is_not_shared(path: Path, base: Base) -> None:
    """A wide beam, whose every answer has its teacher-forced probability."""
    engine = NativeEngine(path)
    engine.swap("short", "short-1", payload(base, 1, row_bias=8.0))
    (made,) = engine.generate([SourceRow("short", "abc", 12)], Limits(max_tokens=20))
    answers = [(made.target, made.confidence), *made.others]
    assert len(answers) > 6
    table = Calibration.from_payload(
        payload(base, 1, row_bias=8.0), base.model, base.vocabulary, base.digest
    ).table
    for target, confidence in answers:
        scores = torch.from_numpy(engine.logits(PairRow("short", "abc", target)))
        wanted = torch.tensor([*table.encode(target), EOS])
        chosen = log_probabilities(scores).gather(1, wanted[:, None]).sum()
        assert float(chosen) == pytest.approx(np.log(confidence), abs=1e-4)


def test_other_bytes_are_refused_and_nothing_crashes(path: Path, base: Base) -> None:
    engine, good = served(NativeEngine(path), base), payload(base, 0)
    length = int.from_bytes(good[:8], "little")
    before = engine.generate([SourceRow("0", "abc", 2)], Limits(max_tokens=9))

    draw = np.random.default_rng(0)
    for _ in range(300):
        bad = bytearray(good)
        for at in draw.integers(0, length + 500, 3):
            bad[at] = draw.integers(256)
        try:
            engine.swap("damaged", "bad", bytes(bad))
        except SnapshotError:
            continue
        engine.generate([SourceRow("damaged", "abc", 2)], Limits(max_tokens=9))
    assert engine.snapshot_id("0") == "0-1"
    assert engine.generate([SourceRow("0", "abc", 2)], Limits(max_tokens=9)) == before


def test_numbers_that_are_none_are_refused(path: Path, base: Base) -> None:
    calibration = Calibration(base.model, base.vocabulary, CalibrationConfig(rank=2))
    calibration.tensors["vector"][0] = torch.nan
    with pytest.raises(SnapshotError, match="vector"):
        NativeEngine(path).swap("0", "0-1", calibration.to_payload(base.digest))


@pytest.mark.parametrize("name", ["decoder.0.self.q.a", "decoder.0.cross.o.b", "rows", "token"])
def test_int8_that_is_not_symmetric_is_refused(path: Path, base: Base, name: str) -> None:
    header, tensors = read_payload(payload(base, 0), base.digest)
    tensors[name] = tensors[name].copy()
    tensors[name][-1, -1] = -128
    bad = save(tensors, metadata={"header": json.dumps(header)})
    with pytest.raises(SnapshotError, match="-128"):
        NativeEngine(path).swap("0", "0-1", bad)


def test_the_next_snapshot_of_a_task_is_read_as_if_it_were_the_first(
    path: Path, base: Base
) -> None:
    """Whether its header says the same as the one that serves, or names other rows, symbols or sources."""
    engine, row, limits = NativeEngine(path), SourceRow("0", "abc", 2), Limits(max_tokens=9)
    for seed, targets, sources in ((0, "abc", 0), (1, "abc", 9), (2, "abé", 9), (3, "abc", 9)):
        header, tensors = read_payload(payload(base, seed, targets), base.digest)
        made = save(tensors, metadata={"header": json.dumps(header | {"sources": sources})})
        fresh = NativeEngine(path)
        for one in (engine, fresh):
            one.swap("0", f"{seed}", made)
        assert engine.generate([row], limits) == fresh.generate([row], limits)
        assert engine.held_bytes("0") == fresh.held_bytes("0")
        assert engine._places["0"].sources == sources


def test_bases_and_instructions_that_it_does_not_have(tmp_path: Path, path: Path) -> None:
    adapted = write_tiny_base(tmp_path / "a.safetensors", adaptation="adapter", adaptation_size=2)
    with pytest.raises(ConfigError, match="adaptation"):
        NativeEngine(adapted)
    with pytest.raises(ConfigError, match="not mmx"):
        NativeEngine(path, instructions="mmx")


def test_it_serves_without_torch(path: Path, base: Base, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(payload(base, 0))
    program = f"""
import sys
from pathlib import Path
from edgeseq_core.engine import Limits, SourceRow
from edgeseq_core.native.engine import NativeEngine
engine = NativeEngine(Path({str(path)!r}))
engine.swap("a", "1", Path({str(tmp_path / "payload")!r}).read_bytes())
engine.infer(["abc"])
assert engine.generate([SourceRow("a", "abc", 2)], Limits(max_tokens=5))
import edgeseq_services.predictor
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
