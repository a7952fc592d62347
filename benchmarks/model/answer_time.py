"""CPU time of one answer in plain PyTorch, for bases that the native engine does not express.

On one thread; CPU time, because that is the time of an idle machine, whatever else runs on this one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch

from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.model.layout import ROWS
from edgeseq_core.text.vocabulary import BOS, FIRST_BYTE

TOKENS = 16  # of the source, and of the answer


@torch.inference_mode()
def answer_s(model: EdgeFormer, rows: int) -> float:
    """CPU seconds for ``rows`` sources of 16 tokens, each answered with 16 tokens, greedily."""
    source = torch.full((rows, TOKENS), FIRST_BYTE + 65)
    weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    began = time.thread_time()
    memory, cache = model.encode(source, weights), model.new_cache(rows, TOKENS)
    token = torch.full((rows, 1), BOS)
    for _ in range(TOKENS):
        start = cache.length
        hidden = model.decode(token, memory, weights, cache)
        token = model.output.scores(hidden, memory.copyable, weights, start, ROWS).argmax(-1)
    return time.thread_time() - began


def answer_ms(models: Mapping[str, EdgeFormer], rows: int, *, turns: int = 41) -> dict[str, float]:
    """Median milliseconds of each model, in turns, so that what disturbs the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        answer_s(model, rows)
    for _ in range(turns):
        for name, model in models.items():
            seconds[name].append(answer_s(model, rows))
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
