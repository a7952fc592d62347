"""From which vocabulary on embeddings in bands pay: bytes, answering and training time beside a plain table.

``python benchmarks/model/bands.py``: preset 256 and random weights, on one thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from answer_time import TOKENS, answer_ms  # noqa: E402
from report import publish  # noqa: E402

from edgeseq_core.model.config import preset  # noqa: E402
from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer  # noqa: E402

# Vocabulary -> where bands begin.
SIZES: dict[int, tuple[int, ...]] = {
    1_024: (512,),
    2_048: (512,),
    4_096: (1_024, 2_048),
    8_192: (2_048, 4_096),
    16_384: (2_048, 8_192),
    32_768: (4_096, 16_384),
}
ROWS, TURNS = 32, 9


def step_once(model: EdgeFormer) -> float:
    """CPU seconds of one training step (forward and backward) of 32 pairs of 16 + 16 tokens."""
    source = torch.randint(3, model.config.vocabulary_size, (ROWS, TOKENS))
    weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    began = time.thread_time()
    scores = model(source, source[:, :-1], weights)
    F.nll_loss(scores.log_softmax(-1).flatten(0, 1), source[:, 1:].flatten()).backward()
    return time.thread_time() - began


def step_ms(models: dict[str, EdgeFormer]) -> dict[str, float]:
    """Median milliseconds of each model, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS + 1):
        for name, model in models.items():
            took = step_once(model)
            if turn:
                seconds[name].append(took)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for size, bands in SIZES.items():
        models = {
            "plain": EdgeFormer(preset("256", vocabulary_size=size)),
            "bands": EdgeFormer(preset("256", vocabulary_size=size, bands=bands)),
        }
        alone, many = answer_ms(models, 1, turns=15), answer_ms(models, ROWS, turns=5)
        step = step_ms(models)
        numbers = {name: model.config.parameters for name, model in models.items()}
        rows.append(
            {
                "vocabulary": size,
                "bands from": ", ".join(map(str, bands)),
                "numbers, plain (M)": round(numbers["plain"] / 1e6, 2),
                "numbers, bands (M)": round(numbers["bands"] / 1e6, 2),
                "answer, plain (ms)": round(alone["plain"], 1),
                "answer, bands (ms)": round(alone["bands"], 1),
                "32 answers, plain (ms)": round(many["plain"], 1),
                "32 answers, bands (ms)": round(many["bands"], 1),
                "step, plain (ms)": round(step["plain"]),
                "step, bands (ms)": round(step["bands"]),
            }
        )
    publish(
        "bands",
        "python benchmarks/model/bands.py",
        rows,
        f"CPU time of one thread, fp32 PyTorch, random weights; an answer: a source of {TOKENS} tokens "
        f"is encoded and {TOKENS} are decoded; a step: forward and backward of {ROWS} pairs of "
        f"{TOKENS} + {TOKENS} tokens, all numbers of the base trained.",
    )


if __name__ == "__main__":
    main()
