"""Own rows on the input side: do they pay where a calibration reaches the bottom of the encoder?

    python benchmarks/model/input_rows.py --g2p FOLDER [--languages jpn_hira,khm] [--cpu-s 12]
        [--seeds 1,2]

A row is a change of the embedding that the first encoder layer reads, zero at first, so that a new one
is the exact identity; the tokens of a source stay those of the base.  `tokens`: a row for each token of
the base, bytes included.  `characters`: a row for each character, added to each of its bytes where the
base does not know it (the product's, here beside the others in a tensor of its own).  Pairs, steps and
schedule are those of `g2p.py`, all layers calibrated, scored in fp32.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from g2p import LANGUAGES, PAIRS_A_STEP, Pairs, Scheduled, shuffled, table  # noqa: E402
from report import publish  # noqa: E402

from edgeseq_core.learn.example import Example  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.batch import pad  # noqa: E402
from edgeseq_core.model.calibrated_weights import MergedWeights  # noqa: E402
from edgeseq_core.model.edgeformer import Memory  # noqa: E402
from edgeseq_core.model.front import TextFront  # noqa: E402
from edgeseq_core.model.learning_weights import LearningWeights  # noqa: E402
from edgeseq_core.model.sites import Weights  # noqa: E402
from edgeseq_core.model.study import TorchStudy  # noqa: E402
from edgeseq_core.model.torch_engine import teacher_forced  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402
from edgeseq_core.text.vocabulary import BOS, EOS, SymbolTable  # noqa: E402

KINDS = ("none", "tokens", "characters")
HELD_OUT = 300  # dev pairs


class Bare(Scheduled):
    """Without the product's own input rows."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        vars(self.calibration)["admit_sources"] = lambda _sources: 0


class OwnInputs:
    """All encoder layers, with own rows (``variant`` of the calibration) added at the bottom."""

    def __init__(self, base: Base, kind: str, sources: Iterable[str]) -> None:
        self._base, self._front = base, TextFront(base.model, base.vocabulary)
        self._symbols, read = SymbolTable(base.vocabulary), list(sources)
        if kind == "characters":
            for character in dict.fromkeys("".join(read)):
                self._symbols.add(character)
        ids = sorted({token for source in read for token in self._symbols.of_source(source)})
        self._row_of = {token: at for at, token in enumerate(ids, 1)} if kind != "none" else {}
        self.rows = len(self._row_of) + 1  # the first stays zero: no own row

    def encode(
        self, sources: Sequence[str], tables: Sequence[SymbolTable], weights: Weights
    ) -> Memory:
        assert isinstance(weights, MergedWeights | LearningWeights)
        model, d = self._base.model, self._base.config.d_model
        x, real = self._front.read(sources)
        tokens = [[*self._symbols.of_source(source), EOS] for source in sources]
        rows = pad([[self._row_of.get(token, 0) for token in of_one] for of_one in tokens])
        own = weights.calibration.tensors["variant"]
        x = x + F.embedding(rows, own, padding_idx=0) * math.sqrt(d)
        x = model.run_encoder(x, real, weights, range(self._base.config.encoder_layers))
        return model.memorize(x, real, weights, model.output.symbols(sources, tables))

    def forget(self) -> None:
        """Nothing is kept."""


def taught(
    base: Base, task: str, kind: str, train: Pairs, cpu_s: float, seed: int
) -> tuple[Scheduled, OwnInputs]:
    """A learner after so many CPU-seconds."""
    settings = LearningSettings(
        seed=seed, encoder_layers=base.config.encoder_layers, averaging=0.98, loss_clip=1e9
    )
    encoder = OwnInputs(base, kind, (source for source, _ in train))
    learner = Bare(base, task, settings, TorchStudy(base, encoder))
    for tensors in (learner.calibration.tensors, learner.averages["average"]):
        tensors["variant"] = torch.zeros(encoder.rows, base.config.d_model)
    pairs, used = shuffled(train, seed), 0.0
    while used < cpu_s:
        examples = [
            Example(source, "reservoir", source, target, "pairs", 0, 0, 0.0, 0.0)
            for source, target in (next(pairs) for _ in range(PAIRS_A_STEP))
        ]
        began, learner.done = time.process_time(), used / cpu_s
        learner.step(learner.progress.step + 1, [], [], examples)
        used += time.process_time() - began
    return learner, encoder


@torch.no_grad()
def scored(learner: Scheduled, encoder: OwnInputs, pairs: Pairs) -> tuple[float, float]:
    """Exact answers in %, and nats a token."""
    own = learner.averaged()
    weights, scores = MergedWeights(own), []
    for at in range(0, len(pairs), 100):
        some = pairs[at : at + 100]
        target = pad([[BOS, *own.table.encode(text), EOS] for _, text in some])
        sources, tables = [source for source, _ in some], [own.table] * len(some)
        memory = encoder.encode(sources, tables, weights)
        said: Tensor = learner.base.model.scores(target[:, :-1], memory, weights)
        scores += teacher_forced(said, target[:, 1:])
    nats = sum(score.loss for score in scores) / sum(score.tokens for score in scores)
    return 100 * sum(score.exact for score in scores) / len(scores), nats


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--languages", default="jpn_hira,khm")
    parser.add_argument("--cpu-s", type=float, default=12)
    parser.add_argument("--seeds", default="1,2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    base, rows = Base.load(), list[dict[str, object]]()
    for language in args.languages.split(","):
        size = next(size for size, names in LANGUAGES.items() if language in names)
        files = (args.g2p / size / f"{language}_{part}.tsv" for part in ("train", "dev"))
        train, dev = ([(s, t.replace(" ", "")) for s, t in table(path)] for path in files)
        lacking = {c for source, _ in train for c in source if c not in base.vocabulary}
        for kind in KINDS:
            found, steps = [], []
            for seed in map(int, args.seeds.split(",")):
                learner, encoder = taught(base, language, kind, train, args.cpu_s, seed)
                found.append(scored(learner, encoder, dev[:HELD_OUT]))
                steps.append(learner.progress.step)
            row: dict[str, object] = {
                "language": language,
                "characters the base lacks": len(lacking),
                "own input rows": kind,
                "rows": encoder.rows - 1,
                "exact %": ", ".join(f"{exact:.1f}" for exact, _ in found),
                "nats a token": statistics.mean(nats for _, nats in found),
                "steps": round(statistics.mean(steps)),
            }
            print(row, flush=True)
            rows.append(row)
    publish(
        "input-rows",
        f"python benchmarks/model/input_rows.py --g2p FOLDER --languages {args.languages} "
        f"--cpu-s {args.cpu_s:g} --seeds {args.seeds}",
        rows,
        f"Exact answers on {HELD_OUT} dev pairs at most, a seed each, after {args.cpu_s:g} CPU-seconds of "
        "training; a row is 128 numbers.",
    )


if __name__ == "__main__":
    main()
