"""Three ways to use a task's tokens, at equal numbers a task and equal CPU-seconds, on the shipped base.

    python benchmarks/model/task_tokens.py --g2p FOLDER --histnorm FOLDER [--cpu-s 5] [--seeds 1,2]

* decoder: appended to the encoder's output as keys and values, as shipped;
* encoder: put before the source, through all encoder layers, and dropped again (so that places stay);
  the decoder keeps the base's own tokens.  They start as embeddings of characters (Lester, Al-Rfou,
  Constant 2021, arXiv 2104.08691);
* block: each token reads the encoder's output once through a task-attention block, and the decoder reads
  what comes out.  The base has no such block of its own, so it is the decoder's first cross-attention and
  FFN, used once more; without and with the divergence loss (is the source of this task or of another?),
  whose head is thrown away (DyTox, Douillard et al. 2022).

All else is the shipped calibration (decoder and top encoder layer, rank 8), so every task has the same
numbers.  Tasks, stream and schedule of CPU-seconds are those of `unseen.py`; scored in fp32.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402
from unseen import Pairs, Task, area, curve, g2p, histnorm  # noqa: E402

from edgeseq_core.learn.example import Example  # noqa: E402
from edgeseq_core.learn.learner import TaskLearner  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.batch import pad  # noqa: E402
from edgeseq_core.model.calibrated_weights import MergedWeights  # noqa: E402
from edgeseq_core.model.edgeformer import Memory  # noqa: E402
from edgeseq_core.model.front import TextFront  # noqa: E402
from edgeseq_core.model.sites import Weights  # noqa: E402
from edgeseq_core.model.source_encoder import CachingEncoder, SourceEncoder  # noqa: E402
from edgeseq_core.model.study import TorchStudy  # noqa: E402
from edgeseq_core.model.torch_engine import teacher_forced  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402
from edgeseq_core.text.vocabulary import BOS, EOS, FIRST_CHARACTER, SymbolTable  # noqa: E402

POINTS = (100, 300, 1_000)  # pairs
DIVERGENCE_WEIGHT = 0.1  # DyTox's
OTHERS = 16  # sources of other tasks a step
WAYS = ("decoder", "encoder", "block", "block, divergence")


class Placed:
    """A task's weights with other tokens for the decoder to read."""

    def __init__(self, weights: Weights, tokens: Tensor) -> None:
        self._weights, self._tokens = weights, tokens
        self.project, self.frozen_layers = weights.project, weights.frozen_layers
        self.layout = weights.layout
        self.embed, self.logits, self.own_inputs = weights.embed, weights.logits, weights.own_inputs

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        return self._tokens, self._weights.task(rows)[1]

    def task_scores(self, rows: int) -> Tensor:
        return self._weights.task_scores(rows)


class BeforeTheSource:
    """The encoder reads the tokens; nothing can be cached."""

    def __init__(self, base: Base) -> None:
        self._base, self._front = base, TextFront(base.model, base.vocabulary)

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        model, (tokens, _) = self._base.model, weights.task(len(sources))
        x, real = self._front.read(sources)
        count = tokens.shape[1]
        tokens = tokens.expand(len(x), -1, -1)
        x = torch.cat([tokens * math.sqrt(self._base.config.d_model), x], 1)
        seen = torch.cat([real.new_ones(len(real), count), real], 1)
        x = model.run_encoder(x, seen, weights, range(self._base.config.encoder_layers))[:, count:]
        weights = Placed(weights, model.task_tokens.expand(len(sources), -1, -1))
        return model.memorize(x, real, weights, model.output.symbols(sources, tables))

    def forget(self) -> None:
        """Nothing is kept."""


class ThroughABlock:
    """Each token reads the encoder's output once; the decoder reads what comes out."""

    SITE, NORM, FFN = "decoder.0.cross", "decoder.0.ffn", "decoder.0.ffn2"

    def __init__(self, base: Base, *, calibrated_layers: int) -> None:
        self._base = base
        self._plain = CachingEncoder(base, calibrated_layers=calibrated_layers)
        self.read = torch.empty(0)  # [B, K, D], what came of the tokens for the last sources

    def forget(self) -> None:
        self._plain.forget()

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        memory = self._plain.encode(sources, tables, weights)
        model, site = self._base.model, self.SITE
        tokens = weights.task(len(sources))[0].expand(len(sources), -1, -1)
        q = model._heads(weights.project(model.norms.before(tokens, site), site, "q"))
        k, v, count = memory.keys[0], memory.values[0], tokens.shape[1]
        mixed = model.cross.attend(q, k, v, memory.mask, start=0, unplaced=count)
        mixed = weights.project(mixed.transpose(1, 2).flatten(2), site, "o")
        read = model.norms.after(tokens, mixed, site)
        self.read = model._feed(read, self.NORM, self.FFN, weights)
        for layer in range(self._base.config.decoder_layers):
            for part, of_all in (("k", memory.keys), ("v", memory.values)):
                own = weights.project(self.read, f"decoder.{layer}.cross", part)
                of_all[layer] = torch.cat([model._heads(own), of_all[layer][:, :, count:]], 2)
        return memory


class Diverging(TaskLearner):
    """Also learns to tell its sources from those of other tasks, by what the tokens have read."""

    others: Sequence[str]  # sources

    def _loss(self, logits: Tensor, wanted: Tensor, on: Tensor) -> Tensor:
        loss = super()._loss(logits, wanted, on)
        encoder = self.study.encoder
        assert isinstance(encoder, ThroughABlock)
        own = encoder.read
        sources = random.Random(self.progress.step).sample(self.others, OTHERS)
        tables = [self.calibration.table] * OTHERS
        encoder.encode(sources, tables, MergedWeights(self.calibration))
        read = torch.cat([own, encoder.read]).mean(1)
        head = self.calibration.tensors["head"]
        said = F.layer_norm(read, read.shape[1:]) @ head[:-1] + head[-1]
        is_own = (torch.arange(len(said)) < len(own)).float()
        told = F.binary_cross_entropy_with_logits(said, is_own)
        return loss + DIVERGENCE_WEIGHT * told


class Taught:
    """A way to use the tokens, as what `unseen.curve` compares."""

    def __init__(self, learner: TaskLearner) -> None:
        self.learner = learner
        learner.begin_averages()

    def step(self, fresh: Pairs, revisited: Pairs) -> None:
        examples = [
            Example(source, "bulk", source, target, "pairs", at, 0, 0.0, 0.0)
            for at, (source, target) in enumerate([*fresh, *revisited])
        ]
        new = len(fresh)
        self.learner.step(
            self.learner.progress.step + 1, examples[:new], [True] * new, examples[new:]
        )

    @torch.no_grad()
    def exact(self, pairs: Pairs) -> float:
        own = self.learner.averaged()
        weights, right = MergedWeights(own), 0
        for at in range(0, len(pairs), 64):
            some = pairs[at : at + 64]
            target = pad([[BOS, *own.table.encode(text), EOS] for _, text in some])
            sources, tables = [source for source, _ in some], [own.table] * len(some)
            memory = self.learner.study.encoder.encode(sources, tables, weights)
            scores = self.learner.base.model.scores(target[:, :-1], memory, weights)
            right += sum(score.exact for score in teacher_forced(scores, target[:, 1:]))
        return right / len(pairs)

    def stored(self) -> int:
        """Numbers that learn and are kept: a byte each, but for vectors and scales."""
        tensors = self.learner.calibration.tensors.items()
        return sum(tensor.numel() for name, tensor in tensors if name != "head")


def made(base: Base, way: str, task: Task, others: Sequence[str], seed: int) -> Taught:
    """A new task whose tokens are used in this way."""
    settings = LearningSettings(seed=seed, growth_below_exact=0.0)  # none grows
    depth = settings.encoder_layers
    encoder: SourceEncoder
    if way == "encoder":
        encoder = BeforeTheSource(base)
    elif way == "decoder":
        encoder = CachingEncoder(base, calibrated_layers=depth)
    else:
        encoder = ThroughABlock(base, calibrated_layers=depth)
    kind = Diverging if way == "block, divergence" else TaskLearner
    learner = kind(base, task.name, settings, TorchStudy(base, encoder))
    own = learner.calibration.tensors
    if way == "encoder":
        draw = random.Random(seed)
        known = range(FIRST_CHARACTER, base.config.vocabulary_size)
        rows = draw.sample(known, base.config.task_tokens)
        own["token"] = base.model.embedding[rows].clone()
    if isinstance(learner, Diverging):
        learner.others = others
        own["head"] = torch.zeros(base.config.d_model + 1)
    return Taught(learner)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--histnorm", type=Path, required=True)
    parser.add_argument("--cpu-s", type=float, default=5)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--seeds", default="1,2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = Base.load()
    found = {"g2p-fre": g2p(args.g2p, "fre"), "bohoric-slovene": histnorm(args.histnorm)}
    areas: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    steps: dict[str, list[int]] = {way: [] for way in WAYS}
    numbers = dict[str, int]()
    warm_up = streamed("warm-up", *found["g2p-fre"], args.held_out, 0)
    for way in WAYS:  # torch's first calls are slow
        made(base, way, warm_up, [s for s, _ in warm_up.train], 0).step(warm_up.train[:32], [])
    for seed in map(int, args.seeds.split(",")):
        tasks = [streamed(name, *pairs, args.held_out, seed) for name, pairs in found.items()]
        for task in tasks:
            others = [s for one in tasks if one is not task for s, _ in one.train]
            for way in WAYS:
                own = made(base, way, task, others, seed)
                reached, _ = curve(own, task, POINTS, args.cpu_s, own.learner.config)
                areas[way].setdefault(task.name, []).append(area(POINTS, reached))
                steps[way].append(own.learner.progress.step)
                numbers.setdefault(way, own.stored())
                print(way, task.name, seed, reached, steps[way][-1], flush=True)
    rows = [
        {
            "way": way,
            **{name: shown(values) for name, values in areas[way].items()},
            "mean": statistics.mean(one for values in areas[way].values() for one in values),
            "steps": round(statistics.mean(steps[way])),
            "numbers": numbers[way],
        }
        for way in WAYS
    ]
    publish(
        "task-tokens",
        f"python benchmarks/model/task_tokens.py --g2p FOLDER --histnorm FOLDER --cpu-s {args.cpu_s:g} "
        f"--held-out {args.held_out} --seeds {args.seeds}",
        rows,
        f"Area under exact match on {args.held_out} held-out pairs, in %, over log(pairs) from "
        f"{POINTS[0]} to {POINTS[-1]:,}, a seed each; {args.cpu_s:g} CPU-seconds of training a run. "
        "Numbers: what the first task keeps after its first seed; the divergence head is thrown away.",
    )


def streamed(name: str, train: Pairs, tested: Pairs, held_out: int, seed: int) -> Task:
    """A task in the order of a seed."""
    draw = random.Random(seed)
    train, tested = draw.sample(train, POINTS[-1]), draw.sample(tested, held_out)
    return Task(name, train, tested)


def shown(areas: Sequence[float]) -> str:
    """One area a seed."""
    return ", ".join(f"{area:.1f}" for area in areas)


if __name__ == "__main__":
    main()
