"""Accuracy and speed of a pruned base after it healed, beside the whole one trained on for as many steps.

    python benchmarks/model/pruning.py FOLDER [--steps 1200]

On one thread, on every third task of the mixture, so that each heals on as many pairs as in a run of
`edgeseq prune` on all.  The whole base is the shipped one, trained on with starts of these tasks.
FOLDER keeps the bases and finished rows: a run that was killed goes on with the first row that is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from native_time import TOKENS, answer_rounds, times_faster
from report import publish
from safetensors.torch import load_file, save_file

from edgeseq_core.corpus import mixture
from edgeseq_core.corpus.base import BASE_TASKS
from edgeseq_core.corpus.demo import DEMO_TASKS
from edgeseq_core.corpus.mixture import Mixture
from edgeseq_core.engine import PairRow
from edgeseq_core.learn.offline import OfflineLearner, learn_pairs
from edgeseq_core.model.base import Base
from edgeseq_core.model.compress import PruneSettings, pruned, trainee_of
from edgeseq_core.model.mixture_batches import Batch
from edgeseq_core.model.objective import Labels, Objective
from edgeseq_core.model.pretrain import PretrainSettings, Training, pretrain
from edgeseq_core.model.prune import FROM_UNITS, choose, prune, units
from edgeseq_core.model.torch_engine import TorchEngine
from edgeseq_core.model.trainee import Trainee
from edgeseq_core.settings import LearningSettings
from edgeseq_core.text.vocabulary import PAD

ONE_IN = 3  # tasks of the mixture
BEFORE = PretrainSettings(steps=150, learning_rate=5e-4, warmup_steps=15)
SMOOTHING = BEFORE.label_smoothing
PENALTY_SHARE = 0.25  # of the steps
ROWS = (1, 32)
IMITATION_SHARE = 0.5  # of the loss
NEW_PAIRS, NEW_HELD_OUT = 400, 300  # of each demo task


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What goes, how it is found, and what the rest is healed by."""

    settings: PruneSettings
    by: Literal["importance", "group penalty"] = "importance"
    healed_by: Literal["labels", "labels and teacher"] = "labels"

    def __str__(self) -> str:
        s = self.settings
        parts = (
            f"{s.layers} encoder layers" if s.layers else "",
            f"{s.ffn_share:.0%} of FFN columns" if s.ffn_share else "",
            f"{s.head_share:.0%} of heads" if s.head_share else "",
        )
        return ", ".join(filter(None, parts)) or "nothing"


NOTHING, HALF = PruneSettings(ffn_share=0.0), PruneSettings(ffn_share=0.5)
SHALLOW = PruneSettings(ffn_share=0.25, layers=2)
CUTS = (
    Cut(settings=NOTHING),
    Cut(settings=PruneSettings(ffn_share=0.0, layers=2)),
    Cut(settings=SHALLOW),
    Cut(settings=SHALLOW, healed_by="labels and teacher"),
    Cut(settings=PruneSettings(ffn_share=0.5, layers=2), healed_by="labels and teacher"),
    Cut(settings=HALF),
    Cut(settings=HALF, by="group penalty"),
    Cut(settings=PruneSettings(ffn_share=0.5, head_share=0.25)),
)
TEACHER, AS_BASE = CUTS[0], CUTS[2]


class Bench:
    """The data, the whole base, and a folder that remembers what is done."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps

    @cached_property
    def data(self) -> Mixture:
        splits = {
            name: mixture.split(BASE_TASKS[name], BEFORE.seed, mixture.CAP)
            for name in sorted(BASE_TASKS)[::ONE_IN]
        }
        return Mixture(
            {name: train for name, (train, _) in splits.items()},
            {name: dev for name, (_, dev) in splits.items() if dev},
        )

    @cached_property
    def whole(self) -> Trainee:
        file = self.folder / "whole.safetensors"
        if not file.exists():
            trainee = trainee_of(None, self.data.train, BEFORE)
            for one in pretrain(self.data.train, {}, file, BEFORE, trainee=trainee):
                print(one.step, f"loss {one.loss:.3f}", flush=True)
        return Trainee.of_run(file)

    @cached_property
    def teacher(self) -> Trainee:
        """The whole base, trained on for as many steps."""
        self.row(TEACHER)
        trainee = deepcopy(self.whole)
        trainee.load_state_dict(load_file(self._file(TEACHER, "trainee")))
        return trainee

    def row(self, cut: Cut) -> tuple[dict[str, Any], Path]:
        """Cut and heal, or remember it: the row, and the base's file."""
        kept, file = self._file(cut, "json"), self._file(cut, "safetensors")
        if not kept.exists():
            kept.write_text(json.dumps(self._measured(cut, file)))
        row: dict[str, Any] = json.loads(kept.read_text())
        print(row, flush=True)
        return row, file

    def _file(self, cut: Cut, kind: str) -> Path:
        name = f"{cut}, {cut.by}, {cut.healed_by}".replace(" ", "-")
        return self.folder / f"{name}.{kind}"

    def _measured(self, cut: Cut, file: Path) -> dict[str, Any]:
        began, made, left = time.process_time(), deepcopy(self.whole), self.steps
        if cut.by == "group penalty":
            spent = int(PENALTY_SHARE * left)
            made, left = self._auto_sized(made, cut, spent), left - spent
        else:
            made = pruned(made, self.data.train, self._settings(1), cut.settings)
        at_once = self._accuracy(made)
        self._heal(made, left, self._objective(cut))
        seconds, config = time.process_time() - began, made.model.config
        made.write(file, {})
        if cut == TEACHER:
            save_file(made.state_dict(), self._file(cut, "trainee"))
        heads = (config.attention_width(g) // config.head_width for g in range(4))
        return {
            "what went": str(cut),
            "found by": cut.by if cut.settings.ffn_share else "",
            "healed by": cut.healed_by,
            "parameters": config.parameters,
            "MB, int8": file.stat().st_size / 1e6,
            "FFN widths": "/".join(map(str, config.group_ffn)),
            "heads": "/".join(map(str, heads)),
            "dev %, at once": at_once,
            "dev %, healed": self._accuracy(made),
            "CPU-s": seconds,
        }

    def _heal(self, trainee: Trainee, steps: int, objective: Objective) -> None:
        run = Training(trainee, self.data.train, self._settings(steps), objective)
        for _ in range(steps):
            run.advance(window=steps)

    def _auto_sized(self, trainee: Trainee, cut: Cut, steps: int) -> Trainee:
        """The base, after a short training that pulls its weakest units to zero, without them."""
        run = Training(trainee, self.data.train, self._settings(steps), self._objective(cut))
        for left in range(steps, 0, -1):
            run.advance(window=steps)
            shrink(trainee, cut.settings, 1 / left)
        kept = choose(
            norms(trainee), ffn_share=cut.settings.ffn_share, head_share=cut.settings.head_share
        )
        model = prune(trainee.model, kept)
        return Trainee(model, trainee.starts, trainee.names, trainee.vocabulary)

    def _objective(self, cut: Cut) -> Objective:
        if cut.healed_by == "labels":
            return Labels(smoothing=SMOOTHING)
        return Imitation(self.teacher, smoothing=SMOOTHING, share=IMITATION_SHARE)

    def _settings(self, steps: int) -> PretrainSettings:
        return PretrainSettings(steps=steps, learning_rate=1e-3, warmup_steps=steps // 10, seed=2)

    def _accuracy(self, trainee: Trainee) -> float:
        """Mean exact match of the base's own tasks, in %."""
        right = [trainee.dev_exact(name, pairs) for name, pairs in self.data.dev.items()]
        return 100 * sum(right) / len(right)


class Imitation:
    """Labels, and the divergence over all symbols from what a teacher says of the same batch."""

    def __init__(self, teacher: Trainee, *, smoothing: float, share: float) -> None:
        self._teacher, self._share = teacher, share
        self._targets = Labels(smoothing=smoothing)

    def __call__(self, scores: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            said = self._teacher(batch.source, batch.target[:, :-1], batch.tasks, batch.symbols)
        spoken = batch.target[:, 1:] != PAD
        follow = F.kl_div(
            scores[spoken].log_softmax(-1),
            said[spoken].log_softmax(-1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - self._share) * self._targets(scores, batch) + self._share * follow


def on_new_tasks(base: Base) -> float:
    """Mean exact match on the demo tasks after a few pairs of each, in %: what a base is for."""
    right = []
    for task, demo in DEMO_TASKS.items():
        pairs = [(one.source, one.target) for one in islice(demo.train(1), NEW_PAIRS)]
        (*_, last) = learn_pairs(OfflineLearner(base, LearningSettings(seed=1)), task, pairs)
        engine = TorchEngine(base)
        engine.swap(task, task, last.turn.learner.payload())
        asked = [PairRow(task, one.source, one.target) for one in demo.held_out(NEW_HELD_OUT, 1)]
        right.append(sum(said.exact for said in engine.score(asked)) / len(asked))
    return 100 * sum(right) / len(right)


def norms(trainee: Trainee) -> dict[str, Tensor]:
    """L2 norm of the columns that read each unit ``[units]``, of every group."""
    counts = units(trainee.model.config)
    return {g: _columns(trainee.model.matrices, g, n).norm(dim=(0, 2)) for g, n in counts.items()}


@torch.no_grad()
def shrink(trainee: Trainee, wanted: PruneSettings, share_of_way: float) -> None:
    """The proximal step of the group penalty: every unit's columns get shorter by the same length.

    The length is what the unit at the wanted share has left, over the steps that are left: at the end
    that share is zero, without a strength of the penalty to search for.
    Source: auto-sizing (Murray et al. 2019, arXiv 1910.06717), its L2,1 penalty.
    """
    found = norms(trainee)
    for is_attention, share in ((True, wanted.head_share), (False, wanted.ffn_share)):
        if not share:
            continue
        groups = {g: n for g, n in found.items() if g.startswith("attention") == is_attention}
        length = torch.cat(list(groups.values())).quantile(share) * share_of_way
        for group, norm in groups.items():
            factor = (1 - length / norm.clamp_min(1e-12)).clamp_min(0.0)
            _columns(trainee.model.matrices, group, len(norm)).mul_(factor[None, :, None])


def _columns(matrices: nn.ParameterDict, group: str, count: int) -> Tensor:
    """A view ``[out, units, width]`` of the matrix that reads a group's units."""
    name = next(n for n in (f"{group}_{part}" for part in FROM_UNITS) if n in matrices)
    return matrices[name].view(len(matrices[name]), count, -1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1_200)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = Bench(args.folder, args.steps)
    made = [bench.row(one) for one in CUTS]
    rows, bases = [row for row, _ in made], {str(at): file for at, (_, file) in enumerate(made)}
    new = [on_new_tasks(Base.load(bench.row(one)[1])) for one in (CUTS[0], AS_BASE)]
    for count in ROWS:
        found = answer_rounds(bases, count)
        for name, row in zip(bases, rows, strict=True):
            row[f"ms, {count} rows"] = statistics.median(found[name])
            row[f"x faster, {count} rows"] = times_faster(found, name, "0")
    publish(
        "pruning",
        f"python benchmarks/model/pruning.py FOLDER --steps {args.steps}",
        rows,
        f"Healed: {args.steps} steps, and as many for the base that lost nothing; CPU-s: of cutting and "
        f"healing. Dev: exact match on up to {mixture.DEV_CAP} pairs of each of these tasks; before all "
        f"this the whole base has {rows[0]['dev %, at once']:.1f}. ms: CPU time of one thread, native "
        f"engine, {TOKENS} tokens in and {TOKENS} out, greedily, one task of rank 8; medians of rounds in "
        "turns. "
        f"The group penalty takes {PENALTY_SHARE:.0%} of the steps, its cut is healed in the rest. The "
        f"teacher is the base that lost nothing, trained on; its word is {IMITATION_SHARE:.0%} of the "
        "loss.\n\n"
        f"As a base: exact match on {NEW_HELD_OUT} pairs of each of the four demo tasks, which no base saw, "
        f"after {NEW_PAIRS} pairs of it, mean: {new[0]:.1f} % on the base that lost nothing, {new[1]:.1f} % "
        f"without {AS_BASE} (healed by {AS_BASE.healed_by}).\n\n"
        "Healed for 400 steps, without the decoder's FFNs and half of the FFN columns: 50.7 % (importance) "
        "and 44.7 % (group penalty), where the whole base had 63.",
    )


if __name__ == "__main__":
    main()
