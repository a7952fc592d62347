"""Accuracy and speed of the shipped base with FFN columns and heads pruned, before and after healing.

``python benchmarks/model/pruning.py [--steps N]``: on one thread.  The row that prunes nothing is trained
as long as the others, so that healing is compared with training on.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from answer_time import TOKENS, answer_ms
from report import publish

from edgeseq_core.corpus import mixture
from edgeseq_core.model.compress import PruneSettings, pruned, trainee_of
from edgeseq_core.model.pretrain import PretrainSettings, Training
from edgeseq_core.model.trainee import Trainee

SHARES = ((0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.25, 0.25))  # of FFN columns, of heads
DEV_PAIRS = 24  # a task


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    torch.manual_seed(1)
    settings = PretrainSettings(steps=steps, learning_rate=5e-4, warmup_steps=steps // 10)
    loaded = mixture.load(settings.seed)

    def accuracy(trainee: Trainee) -> float:
        dev = [(name, loaded.dev[name][:DEV_PAIRS]) for name in trainee.names if loaded.dev[name]]
        return 100 * sum(trainee.dev_exact(name, pairs) for name, pairs in dev) / len(dev)

    whole = trainee_of(None, loaded.train, settings)
    rows: dict[str, dict[str, Any]] = {}
    models = {}
    for ffn_share, head_share in SHARES:
        pruning = PruneSettings(ffn_share=ffn_share, head_share=head_share)
        trainee = pruned(copy.deepcopy(whole), loaded.train, settings, pruning)
        config = trainee.model.config
        widths = map(config.attention_width, range(config.attention_groups))
        name = f"{ffn_share:.0%}, {head_share:.0%}"
        row = {
            "FFN columns, heads that went": name,
            "parameters": config.parameters,
            "FFN widths": "/".join(map(str, config.group_ffn)),
            "heads": "/".join(str(w // config.head_width) for w in widths),
            "dev %, at once": accuracy(trainee),
        }
        run = Training(trainee, loaded.train, settings)
        for _ in range(steps):
            run.advance(window=steps)
        rows[name] = row | {"dev %, healed": accuracy(trainee)}
        models[name] = trainee.model
        print(rows[name], flush=True)
    for batch in (1, 64):
        times = answer_ms(models, batch)
        first = next(iter(times.values()))
        for name, ms in times.items():
            rows[name] |= {f"ms, {batch} rows": ms, f"x faster, {batch} rows": first / ms}
    publish(
        "pruning",
        f"python benchmarks/model/pruning.py --steps {steps}",
        list(rows.values()),
        f"Shipped base, fp32 PyTorch; ms: CPU time of one thread, encode {TOKENS} tokens, decode {TOKENS}, "
        f"greedily. Dev: exact match on {DEV_PAIRS} pairs of each of its own tasks, whose tokens were "
        f"fitted anew. Healed: {steps} steps, and as many for the row that lost nothing.",
    )


if __name__ == "__main__":
    main()
