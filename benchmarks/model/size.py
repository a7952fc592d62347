"""Bytes and time of every preset, whole and pruned: the table that ``edgeseq size`` looks up.

``python benchmarks/model/size.py``: by the native engine on one thread, with random weights, which take the
same time.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from native_time import TOKENS, answer_rounds  # noqa: E402
from report import publish  # noqa: E402

from edgeseq_core.evaluate.machine import cpu_name  # noqa: E402
from edgeseq_core.model.base_file import read_header, write_base  # noqa: E402
from edgeseq_core.model.config import PRESETS, preset  # noqa: E402
from edgeseq_core.model.edgeformer import EdgeFormer  # noqa: E402
from edgeseq_core.model.prune import choose, prune, units, without_top_layers  # noqa: E402
from edgeseq_core.model.sizing import Size  # noqa: E402

TABLE = ROOT / "edgeseq_core" / "model" / "sizes.json"
CUTS = ((0.0, 0), (0.25, 0), (0.5, 0), (0.25, 3))  # FFN columns, and one in so many layers; 0: none


def shrunk(model: EdgeFormer, ffn_share: float, layers: int) -> EdgeFormer:
    """The model without so many top layers and a share of each FFN's columns, whichever."""
    model = without_top_layers(model, layers)
    drawn = {group: torch.rand(count) for group, count in units(model.config).items()}
    return prune(model, choose(drawn, ffn_share=ffn_share, head_share=0.0))


def measured(name: str, folder: Path) -> Iterator[Size]:
    """A preset, whole and pruned."""
    vocabulary = read_header(None).vocabulary
    torch.manual_seed(1)  # of the units that go
    whole = EdgeFormer(preset(name, vocabulary_size=len(vocabulary)))
    depth = whole.config.encoder_layers
    cuts = [(share, depth // one_in if one_in else 0) for share, one_in in CUTS]
    models = [shrunk(whole, *cut) for cut in cuts]
    files = {str(at): folder / f"{name}-{at}.safetensors" for at in range(len(cuts))}
    for model, file in zip(models, files.values(), strict=True):
        tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
        write_base(file, tensors, config=model.config, vocabulary=vocabulary, notes={})
    rounds = answer_rounds(files, 1)
    for (share, layers), model, (at, file) in zip(cuts, models, files.items(), strict=True):
        yield Size(
            preset=name,
            ffn_share=share,
            layers=layers,
            parameters=model.config.parameters,
            megabytes=round(file.stat().st_size / 1e6, 3),
            ms=round(statistics.median(rounds[at]), 3),
        )


def main() -> None:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        rows = [asdict(size) for name in PRESETS for size in measured(name, Path(folder))]
    table = {"machine": cpu_name(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    TABLE.write_text(json.dumps(table | {"sizes": rows}, indent=1) + "\n")
    symbols = len(read_header(None).vocabulary)
    publish(
        "size",
        "python benchmarks/model/size.py",
        rows,
        f"CPU time of one thread, native engine, {symbols:,} symbols, one task of rank 8; ms: a source of "
        f"{TOKENS} tokens is encoded and {TOKENS} are decoded. Megabytes are of the int8 file. Units that go "
        "were drawn, not chosen.",
    )


if __name__ == "__main__":
    main()
