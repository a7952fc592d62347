"""A base is made, written as int8, described by its card, and the same data and seed make the same bytes."""

import itertools
from pathlib import Path

import pytest

from edgeseq_core.errors import SnapshotError
from edgeseq_core.model import pretrain as module
from edgeseq_core.model.base import Base
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.card import model_card
from edgeseq_core.model.pretrain import PretrainReport, PretrainSettings, pretrain

WORDS = ["".join(letters) for letters in itertools.product("abc", repeat=4)]
TASKS = {"copy": [(w, w) for w in WORDS], "upper": [(w, w.upper()) for w in WORDS]}
DEV = {name: pairs[:10] for name, pairs in TASKS.items()}
SETTINGS = PretrainSettings(steps=6, batch=8, warmup_steps=2, min_count=1)


def run(out: Path, settings: PretrainSettings = SETTINGS) -> list[PretrainReport]:
    return list(pretrain(TASKS, DEV, out, settings, report_every=2))


def test_the_same_data_and_seed_make_the_same_bytes(tmp_path: Path) -> None:
    reports = run(tmp_path / "a.safetensors")
    run(tmp_path / "b.safetensors")
    headers = [read_header(tmp_path / f"{name}.safetensors") for name in "ab"]
    assert headers[0].config == headers[1].config
    assert [r.step for r in reports] == [2, 4, 6]
    assert set(reports[-1].dev_exact or {}) == set(TASKS)
    a, b = (Base.load(tmp_path / f"{name}.safetensors").model.state_dict() for name in "ab")
    assert all((a[name] == b[name]).all() for name in a)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    settings = PretrainSettings(steps=60, batch=16, warmup_steps=5, min_count=1)
    reports = list(pretrain(TASKS, DEV, tmp_path / "base.safetensors", settings, report_every=20))
    assert reports[-1].loss < 0.6 * reports[0].loss


def test_the_card_tells_command_data_and_scores(tmp_path: Path) -> None:
    out = tmp_path / "base.safetensors"
    run(out)
    card = model_card(read_header(out), out)
    assert "edgeseq pretrain base.safetensors --preset 128 --steps 6 --batch 8 --seed 1" in card
    assert "| copy | 81 | " in card


def test_an_unfinished_base_has_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY_STEPS", 2)
    out = tmp_path / "base.safetensors"
    run_in_part = pretrain(TASKS, DEV, out, SETTINGS, report_every=1)
    for report in run_in_part:
        if report.step == 3:
            break
    header = read_header(out)
    assert header.notes["step"] == 2
    with pytest.raises(SnapshotError, match="let the run end"):
        model_card(header, out)
