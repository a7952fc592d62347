"""Accuracy and speed of a pruned base after it healed, beside the whole one trained on for as many steps.

    python benchmarks/model/pruning.py FOLDER [--steps 400]

On one thread.  The whole base is the shipped one, trained on until its tasks have starts of their own again.
FOLDER keeps the bases and finished rows: a run that was killed goes on with the first row that is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from answer_time import TOKENS, answer_ms
from report import publish

from edgeseq_core.corpus import mixture
from edgeseq_core.model.compress import trainee_of
from edgeseq_core.model.objective import Imitation, Labels, Objective
from edgeseq_core.model.pretrain import PretrainSettings, Training, pretrain
from edgeseq_core.model.prune import (
    FROM_UNITS,
    choose,
    importance,
    prune,
    shallower,
    units,
)
from edgeseq_core.model.trainee import Trainee

DEV_PAIRS = 48  # a task
BEFORE = PretrainSettings(steps=400, learning_rate=5e-4, warmup_steps=40)
IMPORTANCE_BATCHES = 100
PENALTY_SHARE = 0.25  # of the steps


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What goes, how it is found, and what the rest is healed by."""

    ffn: float = 0.0
    heads: float = 0.0
    encoder_layers: int = 6
    decoder_layers: int = 2
    by: Literal["importance", "penalty"] = "importance"
    healed_by: Literal["labels", "whole base"] = "whole base"

    def __str__(self) -> str:
        parts = [
            f"{6 - self.encoder_layers} encoder layers" * (self.encoder_layers < 6),
            "1 of 2 decoder layers" * (self.decoder_layers < 2),
            f"{self.ffn:.0%} FFN" * bool(self.ffn),
            f"{self.heads:.0%} heads" * bool(self.heads),
        ]
        return ", ".join(part for part in parts if part) or "nothing"


CUTS = (
    Cut(healed_by="labels"),
    Cut(decoder_layers=1),
    Cut(decoder_layers=1, healed_by="labels"),
    Cut(ffn=0.5, heads=0.25),
    Cut(ffn=0.5, heads=0.25, by="penalty"),
)


class Bench:
    """The data, the whole base, and a folder that remembers what is done."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.data = mixture.load(BEFORE.seed)
        whole = folder / "whole.safetensors"
        if not whole.exists():
            trainee = trainee_of(None, self.data.train, BEFORE)
            for one in pretrain(self.data.train, {}, whole, BEFORE, trainee=trainee):
                print(one.step, f"loss {one.loss:.3f}", flush=True)
        self.whole = Trainee.of_run(whole)

    def row(self, cut: Cut) -> tuple[dict[str, Any], Trainee]:
        """Cut and heal, or remember it."""
        name = f"{cut}, {cut.by}, {cut.healed_by}".replace(" ", "-")
        kept, tensors = self.folder / f"{name}.json", self.folder / f"{name}.pt"
        if not kept.exists():
            made, row = self._measured(cut)
            torch.save((made.model.config, made.state_dict()), tensors)
            kept.write_text(json.dumps(row))
        config, state = torch.load(tensors, weights_only=False)
        made = Trainee.new(config, self.whole.names, self.whole.vocabulary)
        made.load_state_dict(state)
        row: dict[str, Any] = json.loads(kept.read_text())
        print(row, flush=True)
        return row, made

    def _measured(self, cut: Cut) -> tuple[Trainee, dict[str, Any]]:
        began = time.process_time()
        steps, before = self.steps, copy.deepcopy(self.whole)
        if cut.by == "penalty":
            before, spent = self._penalised(cut), int(PENALTY_SHARE * self.steps)
            steps -= spent
            found = group_norms(before)
        else:
            run = Training(before, self.data.train, self._settings(1))
            found = importance(
                before, islice(run.batches, IMPORTANCE_BATCHES), Labels(smoothing=0.0)
            )
        kept = choose(found, ffn_share=cut.ffn, head_share=cut.heads)
        model = shallower(
            prune(before.model, kept),
            encoder_layers=cut.encoder_layers,
            decoder_layers=cut.decoder_layers,
        )
        made = Trainee(model, before.starts, before.names, before.vocabulary)
        at_once = self.accuracy(made)
        self._train(made, steps, cut)
        config = model.config
        heads = (config.attention_width(g) // config.head_width for g in range(4))
        return made, {
            "what went": str(cut),
            "found by": cut.by if cut.ffn else "",
            "healed by": cut.healed_by,
            "parameters": config.parameters,
            "FFN widths": "/".join(map(str, config.group_ffn)),
            "heads": "/".join(map(str, heads)),
            "dev %, at once": at_once,
            "dev %, healed": self.accuracy(made),
            "CPU-s": time.process_time() - began,
        }

    def _penalised(self, cut: Cut) -> Trainee:
        """The whole base after a short training that pulls its weakest units to zero."""
        steps = int(PENALTY_SHARE * self.steps)
        trainee = copy.deepcopy(self.whole)
        run = Training(trainee, self.data.train, self._settings(steps), self._objective(cut))
        for left in range(steps, 0, -1):
            run.advance(window=steps)
            shrink(trainee, cut, 1 / left)
        return trainee

    def _train(self, trainee: Trainee, steps: int, cut: Cut) -> None:
        settings = self._settings(steps)
        run = Training(trainee, self.data.train, settings, self._objective(cut))
        for _ in range(steps):
            run.advance(window=steps)

    def _objective(self, cut: Cut) -> Objective:
        if cut.healed_by == "labels":
            return Labels(smoothing=BEFORE.label_smoothing)
        return Imitation(self.whole, smoothing=BEFORE.label_smoothing, share=0.5)

    def _settings(self, steps: int) -> PretrainSettings:
        return PretrainSettings(steps=steps, learning_rate=1e-3, warmup_steps=steps // 10, seed=2)

    def accuracy(self, trainee: Trainee) -> float:
        """Mean exact match of the tasks, in %."""
        dev = {name: pairs[:DEV_PAIRS] for name, pairs in self.data.dev.items() if pairs}
        return 100 * sum(trainee.dev_exact(name, pairs) for name, pairs in dev.items()) / len(dev)


def group_norms(trainee: Trainee) -> dict[str, Tensor]:
    """L2 norm of every unit's columns ``[units]``, of every group."""
    model, found = trainee.model, units(trainee.model.config)
    return {
        group: _columns(model.matrices, group, n).norm(dim=(0, 2)) for group, n in found.items()
    }


@torch.no_grad()
def shrink(trainee: Trainee, cut: Cut, share_of_way: float) -> None:
    """The proximal step of the group penalty: every unit's columns get shorter by the same length.

    The length is what the unit at the wanted share has left, over the steps that are left: so that at
    the end that share is zero, without a strength of the penalty to search for.
    Source: auto-sizing (Murray et al. 2019, arXiv 1910.06717, L2,1 with proximal steps).
    """
    norms = group_norms(trainee)
    for is_attention, share in ((True, cut.heads), (False, cut.ffn)):
        if not share:
            continue
        of_kind = {g: n for g, n in norms.items() if g.startswith("attention") == is_attention}
        length = torch.cat(list(of_kind.values())).quantile(share) * share_of_way
        for group, norm in of_kind.items():
            factor = (1 - length / norm.clamp_min(1e-12)).clamp_min(0.0)
            _columns(trainee.model.matrices, group, len(norm)).mul_(factor[None, :, None])


def _columns(matrices: Any, group: str, count: int) -> Tensor:
    """A view ``[out, units, width]`` of the matrix that reads a group's units."""
    name = next(n for n in (f"{group}_{part}" for part in FROM_UNITS) if n in matrices)
    matrix: Tensor = matrices[name]
    return matrix.view(len(matrix), count, -1)


def rows_of(bench: Bench) -> Iterator[dict[str, Any]]:
    rows, models = [], {}
    for cut in CUTS:
        row, made = bench.row(cut)
        rows.append(row)
        models[str(len(models))] = made.model
    for batch in (1, 64):
        times = answer_ms(models, batch)
        for row, ms in zip(rows, times.values(), strict=True):
            row |= {f"ms, {batch} rows": ms, f"x faster, {batch} rows": times["0"] / ms}
    yield from rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rows = list(rows_of(Bench(args.folder, args.steps)))
    publish(
        "pruning",
        f"python benchmarks/model/pruning.py FOLDER --steps {args.steps}",
        rows,
        f"{TOKENS}",
    )


if __name__ == "__main__":
    main()
