"""Pronunciation in 21 languages by one model: the shipped base and a calibration a language.

    python benchmarks/model/g2p.py --g2p FOLDER [--languages fre,ady,...] [--seed 1]

The task of SIGMORPHON 2021 (Ashby et al. 2021), files ``FOLDER/<size>/<language>_{train,dev,test}.tsv``.
Each calibration changes all layers of the frozen base and trains on its language's training file alone for a
fixed number of CPU-seconds, in the product's steps of 64 pairs; the step size falls by a cosine.  What
is scored are the int8 bytes that would serve, greedily.  Settings were chosen on dev files of French,
Bulgarian, Japanese and Icelandic.

Phones are written without the blanks between them; an answer is cut into phones by the longest that the
training file has, and counts by the phones.  Rows of languages that are not run again are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from report import publish  # noqa: E402

from edgeseq_core.engine import Engine, Limits, SourceRow  # noqa: E402
from edgeseq_core.evaluate.floors import SuffixRules, accuracy, copy_source  # noqa: E402
from edgeseq_core.learn.example import Example  # noqa: E402
from edgeseq_core.learn.learner import TaskLearner  # noqa: E402
from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.source_encoder import CachingEncoder  # noqa: E402
from edgeseq_core.model.study import Study, TorchStudy  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.settings import LearningSettings  # noqa: E402

LANGUAGES = {
    "medium": [
        "bul",
        "dut",
        "fre",
        "hun",
        "jpn_hira",
        "arm_e",
        "geo",
        "hbs_latn",
        "kor",
        "vie_hanoi",
    ],
    "low": ["ady", "gre", "ice", "ita", "khm", "lav", "mlt_latn", "rum", "slv", "wel_sw"],
    "high": ["eng_us"],
}
LANGUAGE_NAMES = [name for names in LANGUAGES.values() for name in names]
CPU_S = {"medium": 300.0, "low": 60.0, "high": 600.0}
# Mean word error rate of the test files that are here: phonetisaurus, and the organisers' ensemble.
PEERS = {"medium": (13.8, 9.7), "low": (33.0, 18.3), "high": (43.8, 41.9)}
WANTED = {"medium": 12.5, "low": 27.0, "high": 43.8}
PAIRS_A_STEP = 64
RESULT = ROOT / "benchmarks" / "results" / "g2p.json"
WARM_UP_STEPS = 50

Pairs = list[tuple[str, str]]
Row = dict[str, object]


class Scheduled(TaskLearner):
    """The product's learner with a step size that falls to a fiftieth as its time runs out."""

    done = 0.0  # share of the time

    def rate(self) -> float:
        warm = min(1.0, self.progress.schedule / WARM_UP_STEPS)
        return warm * max(0.02, 0.5 * (1 + math.cos(math.pi * min(1.0, self.done))))


def taught(
    base: Base, task: str, train: Pairs, *, cpu_s: float, seed: int, study: Study | None = None
) -> TaskLearner:
    """A task's learner after so many CPU-seconds of training, by PyTorch unless another study is given."""
    settings = LearningSettings(
        seed=seed,
        encoder_layers=base.config.encoder_layers,
        learning_rate=1.2e-2,
        averaging=0.98,
        loss_clip=1e9,  # the pairs are clean
    )
    encoder = CachingEncoder(base, calibrated_layers=settings.encoder_layers)
    learner = Scheduled(base, task, settings, study or TorchStudy(base, encoder))
    pairs, used = shuffled(train, seed), 0.0
    while used < cpu_s:
        examples = [
            Example(source, "reservoir", source, target, "pairs", 0, 0, 0.0, 0.0)
            for source, target in (next(pairs) for _ in range(PAIRS_A_STEP))
        ]
        began, learner.done = time.process_time(), used / cpu_s
        learner.step(learner.progress.step + 1, [], [], examples)
        used += time.process_time() - began
    return learner


def shuffled(train: Pairs, seed: int) -> Iterator[tuple[str, str]]:
    """Pass after pass, each in another order."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample(train, len(train))


class Phones:
    """Cuts what the model wrote into phones, the longest known one first."""

    def __init__(self, train: Pairs) -> None:
        self._known = {phone for _, target in train for phone in target.split(" ")}
        self._longest = max(map(len, self._known))

    def cut(self, written: str) -> str:
        """Phones with blanks between them; what is no phone stands alone.

        >>> Phones([("ciao", "t͡ʃ a o")]).cut("t͡ʃao?")
        't͡ʃ a o ?'
        """
        out, at = list[str](), 0
        while at < len(written):
            sizes = range(self._longest, 1, -1)
            size = next((n for n in sizes if written[at : at + n] in self._known), 1)
            out.append(written[at : at + size])
            at += size
        return " ".join(out)


def error_rate(answers: Iterable[str], pairs: Pairs) -> float:
    """Share of words of which any phone is wrong (WER), in %."""
    return 100 * (1 - accuracy(answers, [target for _, target in pairs]))


def written(pairs: Pairs) -> Pairs:
    """Phones without the blanks between them, as the model learns them."""
    return [(source, target.replace(" ", "")) for source, target in pairs]


def answers(engine: Engine, task: str, pairs: Pairs) -> Iterator[str]:
    """Greedy answers as they are written."""
    rows = [SourceRow(task, source) for source, _ in pairs]
    for at in range(0, len(rows), 64):
        for made in engine.generate(rows[at : at + 64], Limits()):
            yield made.target


def measured(base: Base, folder: Path, size: str, language: str, seed: int) -> Row:
    """One row of the table."""
    parts = ("train", "dev", "test")
    train, dev, test = (table(folder / size / f"{language}_{part}.tsv") for part in parts)
    learner = taught(base, language, written(train), cpu_s=CPU_S[size], seed=seed)
    payload = learner.payload()
    engine, phones, rules = TorchEngine(base), Phones(train), SuffixRules()
    engine.swap(language, language, payload)
    rules.learn_many(train)

    def wrong(pairs: Pairs) -> float:
        return error_rate(map(phones.cut, answers(engine, language, pairs)), pairs)

    floor = test or dev  # five medium and seven low languages have no test file here
    row: Row = {
        "size": size,
        "language": language,
        "pairs": len(train),
        "dev WER": wrong(dev),
        "test WER": wrong(test) if test else "",
        "copying": error_rate((copy_source(source) for source, _ in floor), floor),
        "suffix rules": error_rate((rules.predict_one(source) for source, _ in floor), floor),
        "seed": seed,
        "CPU-s": CPU_S[size],
        "steps": learner.progress.step,
        "KiB": len(payload) / 1024,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(row, flush=True)
    return row


def table(path: Path) -> Pairs:
    """The rows of a file of two columns; empty when there is no file."""
    if not path.exists():
        return []
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
    return [(row[0], row[1]) for row in rows if len(row) == 2 and all(row)]


def keep(row: Row, result: Path = RESULT) -> list[Row]:
    """All rows so far, this one in place of an older one of its language."""
    old: list[Row] = json.loads(result.read_text()) if result.exists() else []
    rows = {str(one["language"]): one for one in [*old, row]}
    return [rows[name] for name in LANGUAGE_NAMES if name in rows]


def notes(base: Base, rows: Sequence[Row]) -> str:
    """Means over the test files beside what others reached on the same files, and what one model has."""
    lines = []
    for size, (peer, best) in PEERS.items():
        found = [
            float(str(r["test WER"])) for r in rows if r["size"] == size and r["test WER"] != ""
        ]
        if found:
            lines.append(
                f"{size}: mean test WER {sum(found) / len(found):.1f} of {len(found)} files (wanted: at "
                f"most {WANTED[size]}; phonetisaurus {peer}, the organisers' ensemble {best})."
            )
    bank = sum(float(str(row["KiB"])) for row in rows) * 1024
    lines.append(
        f"WER: words with a wrong phone, in %, greedy, int8. Copying and suffix rules: on the test file, "
        f"or dev where there is none. One frozen base of {base.config.parameters:,} numbers and "
        f"{len(rows)} calibrations (of {len(LANGUAGE_NAMES)} languages) of {bank / 1e6:.1f} million bytes "
        "together, one number a byte. Trained on one thread of a CPU. Peak MB: resident memory of the "
        "process by the end of the language, those that it ran before included."
    )
    return "\n\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--languages", default=",".join(LANGUAGE_NAMES))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    wanted = args.languages.split(",")
    if unknown := set(wanted) - set(LANGUAGE_NAMES):
        parser.error(f"no such languages: {', '.join(sorted(unknown))}")
    if not (args.g2p / "medium").is_dir():
        parser.error(f"{args.g2p} holds no folder `medium` of the task's files")
    torch.set_num_threads(1)
    base = Base.load()
    for size, languages in LANGUAGES.items():
        for language in languages:
            if language in wanted:
                rows = keep(measured(base, args.g2p, size, language, args.seed))
                publish(
                    "g2p", "python benchmarks/model/g2p.py --g2p FOLDER", rows, notes(base, rows)
                )


if __name__ == "__main__":
    main()
