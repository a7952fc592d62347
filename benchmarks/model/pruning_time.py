"""Where the time of an answer goes, and how much faster each kind of cut can make it at most.

``python benchmarks/model/pruning_time.py``: on one thread, with random weights, which take the same time.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from answer_time import TOKENS, answer_ms, answer_once
from report import publish

from edgeseq_core.model.config import SHAPES, preset
from edgeseq_core.model.edgeformer import EdgeFormer

NAMES = ("128", "256", "512")
SYMBOLS, FEWER_SYMBOLS = 1_259, 400  # of the shipped base; of a deployment of few scripts
TURNS = {1: 21, 64: 7}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name in NAMES:
        models = cuts(name)
        for batch, turns in TURNS.items():
            row = {"preset": name, "rows": batch, **parts(models["whole"], batch, turns)}
            times = answer_ms(models, batch, turns=turns)
            rows.append(row | {cut: times["whole"] / ms for cut, ms in times.items()})
            del rows[-1]["whole"]
            print(rows[-1], flush=True)
    publish(
        "pruning-time",
        "python benchmarks/model/pruning_time.py",
        rows,
        f"CPU time of one thread, fp32 PyTorch; a source of {TOKENS} tokens is encoded and {TOKENS} are "
        "decoded, greedily. Columns after `output ms`: times faster when so much is gone, all else whole.",
    )


def cuts(name: str) -> dict[str, EdgeFormer]:
    """The preset whole, and without one kind of part."""
    shape = SHAPES[name]

    def made(symbols: int = SYMBOLS, **changes: Any) -> EdgeFormer:
        return EdgeFormer(preset(name, vocabulary_size=symbols, **changes))

    return {
        "whole": made(),
        "half the FFN columns": made(
            encoder_ffn=shape["encoder_ffn"] // 2, decoder_ffn=shape["decoder_ffn"] // 2
        ),
        "half the heads": made(group_heads=4 * (shape["heads"] // 2,)),
        "decoder FFNs": made(decoder_ffn=0),
        "1 of 2 decoder layers": made(decoder_layers=1),
        "a third of the encoder layers": made(encoder_layers=shape["encoder_layers"] * 2 // 3),
        f"all but {FEWER_SYMBOLS} of {SYMBOLS:,} symbols": made(FEWER_SYMBOLS),
    }


def parts(model: EdgeFormer, batch: int, turns: int) -> dict[str, float]:
    """Median milliseconds of each part of an answer."""
    said = [vars(answer_once(model, batch)) for _ in range(turns)]
    return {f"{part} ms": 1e3 * statistics.median(one[part] for one in said) for part in said[0]}


if __name__ == "__main__":
    main()
