"""Bytes and time of every preset, whole and pruned: the table that ``edgeseq size`` looks up.

``python benchmarks/model/size.py``: on one thread, with random weights, which take the same time.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from answer_time import TOKENS, answer_ms  # noqa: E402
from report import publish  # noqa: E402

from edgeseq_core.evaluate.machine import cpu_name  # noqa: E402
from edgeseq_core.model.base_file import read_header, write_base  # noqa: E402
from edgeseq_core.model.config import PRESETS, preset  # noqa: E402
from edgeseq_core.model.edgeformer import EdgeFormer  # noqa: E402
from edgeseq_core.model.prune import choose, prune, units  # noqa: E402
from edgeseq_core.model.sizing import Size  # noqa: E402
from edgeseq_core.text.vocabulary import Vocabulary  # noqa: E402

TABLE = ROOT / "edgeseq_core" / "model" / "sizes.json"
FFN_SHARES = (0.0, 0.25, 0.5)


def megabytes(model: EdgeFormer, vocabulary: Vocabulary) -> float:
    """Of the model's int8 file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "base.safetensors"
        tensors = {name: p.detach().numpy() for name, p in model.named_parameters()}
        write_base(file, tensors, config=model.config, vocabulary=vocabulary, notes={})
        return file.stat().st_size / 1e6


def shrunk(model: EdgeFormer, ffn_share: float) -> EdgeFormer:
    """The model without a share of each FFN's columns, whichever."""
    drawn = {group: torch.rand(count) for group, count in units(model.config).items()}
    return prune(model, choose(drawn, ffn_share=ffn_share, head_share=0.0))


def main() -> None:
    torch.set_num_threads(1)
    vocabulary = read_header(None).vocabulary
    sizes: list[Size] = []
    for name in PRESETS:
        whole = EdgeFormer(preset(name, vocabulary_size=len(vocabulary)))
        models = {share: shrunk(whole, share) for share in FFN_SHARES}
        times = answer_ms({str(share): model for share, model in models.items()}, 1)
        for share, model in models.items():
            sizes.append(
                Size(
                    preset=name,
                    ffn_share=share,
                    parameters=model.config.parameters,
                    megabytes=round(megabytes(model, vocabulary), 3),
                    ms=round(times[str(share)], 2),
                )
            )
    table = {"machine": cpu_name(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    rows = [asdict(size) for size in sizes]
    TABLE.write_text(json.dumps(table | {"sizes": rows}, indent=1) + "\n")
    publish(
        "size",
        "python benchmarks/model/size.py",
        rows,
        f"CPU time of one thread, fp32 PyTorch, {len(vocabulary)} symbols; ms: a source of {TOKENS} "
        f"tokens is encoded and {TOKENS} are decoded. Megabytes are of the int8 file.",
    )


if __name__ == "__main__":
    main()
