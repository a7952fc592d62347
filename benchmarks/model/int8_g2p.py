"""What int8 costs on real words: SIGMORPHON 2021's dev files, answered in fp32 and by the native engine.

    python benchmarks/model/int8_g2p.py --g2p FOLDER [--languages fre,ady,...]

A calibration a language is trained as `g2p.py` does, by the native step and for some two thirds of its steps.
The same one then answers greedily: as the learner holds it, in fp32 on the dequantised base; its int8 bytes
in fp32 arithmetic; and these bytes in the native engine, whose activations are int8 too.  Rows of languages
that are not run again are kept.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "model")]

from g2p import (  # noqa: E402
    CPU_S,
    LANGUAGE_NAMES,
    LANGUAGES,
    Phones,
    Row,
    answers,
    error_rate,
    keep,
    table,
    taught,
    written,
)
from report import publish  # noqa: E402

from edgeseq_core.model.base import Base  # noqa: E402
from edgeseq_core.model.calibration import Calibration  # noqa: E402
from edgeseq_core.model.torch_engine import TorchEngine  # noqa: E402
from edgeseq_core.native.engine import NativeEngine  # noqa: E402
from edgeseq_core.native.learning import NativeStudy  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "int8-g2p.json"
SEED = 1
SHARE = 0.25  # of g2p.py's CPU-seconds, by a step some three times as fast: two thirds of its steps
WANTED = 0.3  # points lost at most
ENGINES = ("WER, fp32", "WER, int8 bytes in fp32", "WER, native int8")


class Unrounded(TorchEngine):
    """Answers by a calibration as the learner holds it."""

    def __init__(self, base: Base, own: Calibration) -> None:
        super().__init__(base)
        self._own = own

    def _read(self, _payload: bytes) -> Calibration:
        return self._own


def measured(base: Base, folder: Path, size: str, language: str) -> Row:
    """One row of the table."""
    train, dev = (table(folder / size / f"{language}_{part}.tsv") for part in ("train", "dev"))
    cpu_s, study, phones = SHARE * CPU_S[size], NativeStudy(base), Phones(train)
    learner = taught(base, language, written(train), cpu_s=cpu_s, seed=SEED, study=study)
    own, payload = learner.averaged(), learner.payload()
    found = []
    for engine in (Unrounded(base, own), TorchEngine(base), NativeEngine(base.stored)):
        engine.swap(language, language, payload)
        found.append([phones.cut(answer) for answer in answers(engine, language, dev)])
    full, _, served = found
    targets = [target for _, target in dev]
    pairs = [(a == y, b == y) for a, b, y in zip(full, served, targets, strict=True)]
    row: Row = {
        "language": language,
        "pairs": len(train),
        "CPU-s": cpu_s,
        "steps": learner.progress.step,
        "own symbols": len(own.table.symbols),
        "dev words": len(dev),
        **{name: error_rate(one, dev) for name, one in zip(ENGINES, found, strict=True)},
        "lost": error_rate(served, dev) - error_rate(full, dev),
        "answers that differ": sum(a != b for a, b in zip(full, served, strict=True)),
        "only fp32 right": sum(a and not b for a, b in pairs),
        "only int8 right": sum(b and not a for a, b in pairs),
    }
    print(row, flush=True)
    return row


def notes(rows: Sequence[Row]) -> str:
    """What the table says together, and what it leaves out."""

    def total(name: str) -> int:
        return sum(int(str(row[name])) for row in rows)

    spent = sum(float(str(row["CPU-s"])) for row in rows) / 60
    words, worse, better = total("dev words"), total("only fp32 right"), total("only int8 right")
    error = 100 * math.sqrt(worse + better) / words
    lost = [float(str(row["lost"])) for row in rows]
    return (
        f"Lost, over all {words:,} words: {100 * (worse - better) / words:.2f} ± {error:.2f} points of WER "
        f"(standard error of the words that changed sides); mean of {len(rows)} languages "
        f"{sum(lost) / len(lost):.2f}, most {max(lost):.2f}, least {min(lost):.2f} (wanted: at most "
        f"{WANTED:g}, aim 0). {total('answers that differ')} answers differ. Trained for {spent:.0f} "
        "CPU-minutes together. Of a dev file of 100 words, one word is one point.\n\n"
        "WER: words with a wrong phone, in %, greedy. fp32: PyTorch, activations in fp32, the calibration's "
        "numbers as the learner holds them. int8 bytes in fp32: the same by the snapshot. Native: the "
        "snapshot in the native engine, products of int8 with int8 activations. The base is int8 in its "
        "file, and learning uses its dequantised values: in fp32 they are multiplied as such. What "
        "quantizing the base once cost is not measured here."
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--g2p", type=Path, required=True)
    parser.add_argument("--languages", default=",".join(LANGUAGE_NAMES))
    args = parser.parse_args()
    wanted = args.languages.split(",")
    torch.set_num_threads(1)
    base = Base.load()
    for size, languages in LANGUAGES.items():
        for language in languages:
            if language in wanted:
                rows = keep(measured(base, args.g2p, size, language), RESULT)
                publish(
                    "int8-g2p",
                    "python benchmarks/model/int8_g2p.py --g2p FOLDER",
                    rows,
                    notes(rows),
                )


if __name__ == "__main__":
    main()
