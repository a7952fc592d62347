"""A base is made, a killed run goes on to the same bytes, and the card tells how it was made."""

from __future__ import annotations

import csv
import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeseq_core.errors import ConfigError, MissingExtraError, SnapshotError
from edgeseq_core.model import curves
from edgeseq_core.model import pretrain as module
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.card import model_card
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.pretrain import (
    PretrainReport,
    PretrainSettings,
    Training,
    build_vocabulary,
    pretrain,
)
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.subwords import Subwords
from tests.corpus.need import need
from tests.model.test_edgeformer import VARIANTS

need("matplotlib")

WORDS = ["".join(letters) for letters in itertools.product("abc", repeat=4)]
TASKS = {"copy": [(w, w) for w in WORDS], "upper": [(w, w.upper()) for w in WORDS]}
DEV = {name: pairs[:10] for name, pairs in TASKS.items()}
SETTINGS = PretrainSettings(steps=6, batch=8, warmup_steps=2, min_count=1)


def run(out: Path, settings: PretrainSettings = SETTINGS) -> list[PretrainReport]:
    return list(pretrain(TASKS, DEV, out, settings, report_every=2))


@pytest.fixture
def saves_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "base.safetensors"
    run(out)
    return out


def test_the_same_data_and_seed_make_the_same_bytes(tmp_path: Path, uninterrupted: Path) -> None:
    reports = run(tmp_path / "base.safetensors")
    assert [r.step for r in reports] == [2, 4, 6]
    assert set(reports[-1].dev_exact or {}) == set(TASKS)
    assert (tmp_path / "base.safetensors").read_bytes() == uninterrupted.read_bytes()


@pytest.mark.usefixtures("saves_every_step")
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_run_that_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, uninterrupted: Path, stop: int
) -> None:
    out = tmp_path / "base.safetensors"
    for report in pretrain(TASKS, DEV, out, SETTINGS, report_every=1):
        if report.step == stop:
            break
    torch.manual_seed(77)
    reports = list(pretrain(TASKS, DEV, out, SETTINGS, report_every=1))
    assert reports[0].step <= max(stop, 2)
    assert out.read_bytes() == uninterrupted.read_bytes()


def test_subwords_are_learnt_from_the_data_and_kept_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    run(out, replace(SETTINGS, subwords=30))
    base = Base.load(out)
    assert isinstance(base.vocabulary, Subwords)
    assert base.config.vocabulary_size == len(base.vocabulary)
    assert len(base.vocabulary.pieces) == len(base.vocabulary.characters) + 30
    assert len(base.vocabulary.encode("abca")) < 4


def test_a_preset_for_many_tokens_is_refused_where_there_are_few() -> None:
    settings = replace(SETTINGS, preset="256-8k")
    assert settings.pieces == 7_000
    assert replace(settings, subwords=3).pieces == 3
    assert settings.config(vocabulary_size=9_000).bands == (2_048, 4_096)
    with pytest.raises(ConfigError, match=r"4000 cannot be made: bands .* before the vocabulary"):
        settings.config(vocabulary_size=4_000)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "256-8k", "output": "copy"}, "vocabulary only"),
        ({"subwords": -1}, "0 or more"),
    ],
)
def test_settings_that_contradict_are_refused_at_once(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SETTINGS, **wrong)


KILLED_IN = """
import os, sys
from pathlib import Path
from edgeseq_core.model import pretrain as module
from tests.model.test_pretrain import DEV, SETTINGS, TASKS
module.SAVE_EVERY_S = 0.0
whole = module.Training.advance
def advance(run, **options):
    whole(run, **options)
    if run.step == 4:
        os.kill(os.getpid(), 9)
module.Training.advance = advance
list(module.pretrain(TASKS, DEV, Path(sys.argv[1]), SETTINGS))
"""


@pytest.mark.usefixtures("saves_every_step")
def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "base.safetensors"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_IN, str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        check=False,
        timeout=25,
    )
    assert killed.returncode == -9
    assert read_header(out).notes["step"] == 3
    run(out)
    assert out.read_bytes() == uninterrupted.read_bytes()


@pytest.mark.usefixtures("saves_every_step")
def test_the_curves_have_every_report_once_after_a_stop(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    for report in pretrain(TASKS, DEV, out, SETTINGS, report_every=1):
        if report.step == 4:  # its row is in no checkpoint yet
            break
    list(pretrain(TASKS, DEV, out, SETTINGS, report_every=1))
    with (tmp_path / "base.run" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert float(rows[-1]["dev_accuracy"]) >= 0
    assert (tmp_path / "base.run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_with_other_settings_or_data_is_not_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    run(out)
    with pytest.raises(ConfigError, match=r"another batch, steps: repeat its settings"):
        run(out, replace(SETTINGS, batch=4, steps=9))
    with pytest.raises(ConfigError, match="another data"):
        list(pretrain({"copy": TASKS["copy"]}, DEV, out, SETTINGS))


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.run").mkdir()
    (tmp_path / "base.run" / "checkpoint.safetensors").write_bytes(b"\x08" + bytes(7) + b"nonsense")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        run(tmp_path / "base.safetensors")


def test_curves_that_could_not_be_drawn_are_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtraError, match=r"edgeseq\[pretrain\]"):
        run(tmp_path / "base.safetensors")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_lowers_the_loss(tmp_path: Path, precision: str) -> None:
    settings = replace(SETTINGS, steps=60, batch=16, warmup_steps=5, precision=precision)
    reports = list(pretrain(TASKS, DEV, tmp_path / "base.safetensors", settings, report_every=20))
    assert reports[-1].loss < 0.6 * reports[0].loss
    assert reports[-1].accuracy > reports[0].accuracy
    model = Base.load(tmp_path / "base.safetensors").model
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shape_trains_goes_on_to_the_bit_and_is_a_base(tmp_path: Path, variant: str) -> None:
    vocabulary = build_vocabulary(TASKS, SETTINGS)
    fields = {"d_model": 32, "heads": 2, "encoder_layers": 3, "encoder_ffn": 64, "decoder_ffn": 16}
    config = ModelConfig(vocabulary_size=len(vocabulary), **fields | VARIANTS[variant])

    def training(precision: str, seed: int) -> Training:
        torch.manual_seed(seed)
        trainee = Trainee.new(config, sorted(TASKS), vocabulary)
        return Training(trainee, TASKS, replace(SETTINGS, byte_dropout=0.5, precision=precision))

    for precision in ("bf16", "fp32"):
        one, other = training(precision, 1), training(precision, 2)
        first = {name: tensor.clone() for name, tensor in one.tensors().items()}
        one.advance(window=1)
        other.restore(one.state(), {name: tensor.clone() for name, tensor in one.tensors().items()})
        for run_ in (one, other):
            run_.advance(window=1)
        assert math.isfinite(one.loss)
        assert one.loss == other.loss
        for name, tensor in one.trainee.state_dict().items():
            assert torch.equal(tensor, other.trainee.state_dict()[name])
        still = {n for n, t in one.trainee.state_dict().items() if torch.equal(t, first[n])}
        # What the starts stand in for while a base is trained, and adapters behind matrices of zeros.
        assert still <= {"model.task_tokens", "model.task_vector"}
    out = tmp_path / "base.safetensors"
    one.trainee.write(out, {})
    base = Base.load(out)
    assert base.config == config
    assert 0 <= one.trainee.dev_exact("copy", DEV["copy"]) <= 1


def test_a_base_with_a_copy_path_is_made_and_told(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    list(pretrain(TASKS, DEV, out, replace(SETTINGS, output="copy")))
    header = read_header(out)
    assert header.config.output == "copy"
    assert Base.load(out).config == header.config
    card = model_card(header, out, 60.0)
    assert "output: copy)" in card
    assert "--seed 1 --output copy --warmup-steps 2`" in card


def test_wider_presets_get_smaller_steps() -> None:
    assert PretrainSettings().peak_learning_rate == 2e-3
    assert PretrainSettings(preset="512").peak_learning_rate == 1e-3
    assert PretrainSettings(preset="512", learning_rate=5e-4).peak_learning_rate == 5e-4


def test_what_cannot_be_run_is_told() -> None:
    with pytest.raises(ConfigError, match="preset 129 is unknown: choose one of 128, 256"):
        PretrainSettings(preset="129")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            PretrainSettings(device="cuda")


def test_the_card_tells_command_data_and_scores(uninterrupted: Path) -> None:
    card = model_card(read_header(uninterrupted), uninterrupted, 120.0)
    told = "edgeseq pretrain base.safetensors --preset 128 --steps 6 --batch 8 --seed 1 --warmup-steps 2`"
    assert told in card
    assert "in 2 minutes on 1 CPU thread(s)" in card
    assert "| copy | 81 | " in card


@pytest.mark.usefixtures("saves_every_step")
def test_an_unfinished_base_has_no_card(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    for report in pretrain(TASKS, DEV, out, SETTINGS, report_every=1):
        if report.step == 3:
            break
    header = read_header(out)
    assert header.notes["step"] == 2
    with pytest.raises(SnapshotError, match="let the run end"):
        model_card(header, out, 1.0)
