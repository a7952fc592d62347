"""Pruned and taught bases: made through the one training loop, killed and gone on with, told in notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeseq_core.errors import ConfigError
from edgeseq_core.model import compress
from edgeseq_core.model import pretrain as module
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.card import model_card
from edgeseq_core.model.compress import (
    DistillSettings,
    PruneSettings,
    pretrain_pruned,
    pretrain_taught,
    trainee_of,
)
from edgeseq_core.model.config import preset
from edgeseq_core.model.pretrain import build_vocabulary, pretrain
from edgeseq_core.model.run_folder import CHECKPOINT, RunFolder, read_checkpoint, run_path
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.text.vocabulary import EOS
from tests.corpus.need import need
from tests.model.test_pretrain import DEV, SETTINGS, TASKS

need("matplotlib")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base") / "base.safetensors"
    list(pretrain(TASKS, DEV, out, SETTINGS))
    return out


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "IMPORTANCE_BATCHES", 2)
    monkeypatch.setattr(compress, "START_STEPS", 3)
    monkeypatch.setattr(module, "SAVE_EVERY_S", 0.0)


def test_a_pruned_base_heals_and_goes_on_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    half = PruneSettings(ffn_share=0.5, head_share=0.25, layers=2)
    whole, again = tmp_path / "whole.safetensors", tmp_path / "again.safetensors"
    reports = list(pretrain_pruned(base, TASKS, DEV, whole, SETTINGS, half))
    assert reports[-1].step == 6
    config, before = read_header(whole).config, read_header(base).config
    assert sum(config.group_ffn) <= 600
    assert config.parameters < before.parameters
    assert config.encoder_layers == before.encoder_layers - 2
    told = (
        "edgeseq prune whole.safetensors --base base.safetensors --ffn-share 0.5 --head-share 0.25 "
        "--layers 2 "
    )
    assert f"{told}--steps 6 --batch 8" in model_card(read_header(whole), whole, 60.0)
    for _ in pretrain_pruned(base, TASKS, DEV, again, SETTINGS, half):
        break
    list(pretrain_pruned(base, TASKS, DEV, again, SETTINGS, half))
    assert again.read_bytes() == whole.read_bytes()
    with pytest.raises(ConfigError, match="another ffn_share"):
        list(pretrain_pruned(base, TASKS, DEV, again, SETTINGS, replace(half, ffn_share=0.25)))


def test_a_base_keeps_one_encoder_layer_at_least(base: Path, tmp_path: Path) -> None:
    every = PruneSettings(ffn_share=0.0, layers=read_header(base).config.encoder_layers)
    with pytest.raises(ConfigError, match="6 encoder layers: prune fewer"):
        list(pretrain_pruned(base, TASKS, DEV, tmp_path / "none.safetensors", SETTINGS, every))


@pytest.mark.parametrize("shape", [{"positions": "linear"}, {"decoder_mixer": "retention"}])
def test_heads_that_their_number_tells_apart_are_not_pruned(
    tmp_path: Path, shape: dict[str, Any]
) -> None:
    vocabulary = build_vocabulary(TASKS, SETTINGS)
    config = preset("128", vocabulary_size=len(vocabulary), **shape)
    out, alone = tmp_path / "smaller.safetensors", tmp_path / "alone.safetensors"
    Trainee.new(config, sorted(TASKS), vocabulary).write(alone, {})
    with pytest.raises(ConfigError, match="leave head_share at 0"):
        list(
            pretrain_pruned(
                alone, TASKS, DEV, out, SETTINGS, PruneSettings(ffn_share=0.5, head_share=0.1)
            )
        )
    list(pretrain_pruned(alone, TASKS, DEV, out, SETTINGS, PruneSettings(ffn_share=0.5)))
    assert read_header(out).config.parameters < config.parameters


def test_a_base_without_its_run_gets_starts_fitted(base: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(base.read_bytes())
    made = trainee_of(alone, TASKS, SETTINGS)
    loaded = Trainee.of_base(made.model, made.names, made.vocabulary)
    assert not made.starts.tokens.equal(loaded.starts.tokens)
    kept = trainee_of(base, TASKS, SETTINGS)
    for name, tensor in made.model.state_dict().items():
        if not name.startswith("task_"):
            assert tensor.sub(kept.model.state_dict()[name]).abs().max() < 0.05  # int8 against fp32
    assert all(p.requires_grad for p in made.parameters())


def test_a_run_that_has_not_ended_is_no_teacher(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    for _ in pretrain(TASKS, DEV, out, SETTINGS, report_every=2):
        break
    with pytest.raises(ConfigError, match="is not the finished run"):
        trainee_of(out, TASKS, SETTINGS)


def test_a_student_is_made_by_teachers(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    distilling = DistillSettings(pairs=20, top_k=4)
    reports = list(pretrain_taught([base, base], TASKS, DEV, out, SETTINGS, distilling))
    assert reports[-1].step == 6
    header = read_header(out)
    assert header.notes["origin"]["teachers"] == [read_header(base).digest] * 2
    assert header.notes["tasks"] == {"copy": 20, "upper": 20}
    lessons = tmp_path / "student.run" / "lessons" / "copy.safetensors"
    stamp = lessons.stat().st_mtime_ns
    list(pretrain_taught([base, base], TASKS, DEV, out, SETTINGS, distilling))
    assert lessons.stat().st_mtime_ns == stamp  # kept, not made again
    again = tmp_path / "again.safetensors"  # first weights too are the seed's
    list(pretrain_taught([base, base], TASKS, DEV, again, SETTINGS, distilling))
    assert again.read_bytes() == out.read_bytes()
    told = "--teacher base.safetensors --teacher base.safetensors --distill word --lessons 20`"
    assert told in model_card(header, out, 60.0)


def test_teachers_whose_answers_never_end_are_told(tmp_path: Path) -> None:
    base = tmp_path / "base.safetensors"
    list(pretrain(TASKS, DEV, base, replace(SETTINGS, steps=1)))
    header, tensors = read_checkpoint(run_path(base) / CHECKPOINT)
    tensors["model.vocabulary_bias"][EOS] = -100.0
    RunFolder(base, header["identity"]).save(header["state"], tensors)
    out, distilling = tmp_path / "student.safetensors", DistillSettings(level="sequence", pairs=20)
    with pytest.raises(ConfigError, match="no answer of the teachers ends"):
        list(pretrain_taught([base], TASKS, DEV, out, SETTINGS, distilling))
