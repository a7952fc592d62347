"""Where the time of an answer goes, and how much faster each kind of cut can make it at most.

``python benchmarks/model/pruning_time.py``: by the native engine on one thread, with random weights, which
take the same time.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from native_time import TOKENS, answer_rounds, times_faster
from report import publish

from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.config import SHAPES
from edgeseq_core.testing.base import write_tiny_base
from edgeseq_core.text.vocabulary import FIRST_CHARACTER, Vocabulary

NAMES = ("128", "256", "512")
ROWS = (1, 32)
FEWER_SYMBOLS = 400  # of a deployment of few scripts


def main() -> None:
    torch.set_num_threads(1)
    vocabulary = read_header(None).vocabulary
    rows = []
    with TemporaryDirectory() as folder:
        for name in NAMES:
            bases = cuts(Path(folder), name, vocabulary)
            for count in ROWS:
                rows.append(measured(bases, name, count))
                print(rows[-1], flush=True)
    publish(
        "pruning-time",
        "python benchmarks/model/pruning_time.py",
        rows,
        f"CPU time of one thread, native engine, {len(vocabulary):,} symbols, one task of rank 8 at the "
        f"decoder and the top layer; a source of {TOKENS} tokens is encoded and {TOKENS} are decoded, "
        "greedily, for so many rows at once. First: encoding and the first token; further: each of the "
        "other tokens. The other columns: times faster when so much is gone, all else whole.",
    )


def measured(bases: dict[str, Path], name: str, count: int) -> dict[str, Any]:
    """One row of the table."""
    found = answer_rounds(bases, count)
    first = statistics.median(answer_rounds({"": bases["whole"]}, count, tokens=1)[""])
    whole = statistics.median(found["whole"])
    return {
        "preset": name,
        "rows": count,
        "ms": whole,
        "first ms": first,
        "further ms": (whole - first) / (TOKENS - 1),
        **{cut: times_faster(found, cut, "whole") for cut in bases if cut != "whole"},
    }


def cuts(folder: Path, name: str, vocabulary: Vocabulary) -> dict[str, Path]:
    """The preset whole, and without some parts."""
    shape = SHAPES[name]
    heads, layers = shape["heads"], shape["encoder_layers"]
    half_ffn = {"encoder_ffn": shape["encoder_ffn"] // 2, "decoder_ffn": shape["decoder_ffn"] // 2}
    fewer = Vocabulary(vocabulary.characters[: FEWER_SYMBOLS - FIRST_CHARACTER])
    changes: dict[str, dict[str, Any]] = {
        "whole": {},
        "half the FFN columns": half_ffn,
        "half the heads": {"group_heads": 4 * (heads // 2,)},
        "half the FFN columns, a quarter of the heads": half_ffn
        | {"group_heads": 4 * (heads * 3 // 4,)},
        "half of both": half_ffn | {"group_heads": 4 * (heads // 2,)},
        "decoder FFNs": {"decoder_ffn": 0},
        "1 of 2 decoder layers": {"decoder_layers": 1},
        "a third of the encoder layers": {"encoder_layers": layers * 2 // 3},
        f"all but {FEWER_SYMBOLS} of {len(vocabulary):,} symbols": {"vocabulary": fewer},
    }
    whole = shape | {"vocabulary": vocabulary, "max_tokens": 256}
    return {
        cut: write_tiny_base(folder / f"{name}-{at}.safetensors", **whole | change)
        for at, (cut, change) in enumerate(changes.items())
    }


if __name__ == "__main__":
    main()
