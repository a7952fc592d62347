"""CPU time of one answer in plain PyTorch: a source is encoded, and tokens are decoded one by one.

On one thread; CPU time, because that is the time of an idle machine, whatever else runs on this one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgeseq_core.model.edgeformer import BaseWeights, EdgeFormer
from edgeseq_core.text.vocabulary import BOS, FIRST_BYTE

TOKENS = 16  # of the source, and of the answer


@dataclass(frozen=True)
class Seconds:
    """Of one batch of answers, by what they went into."""

    encode: float
    decode: float
    output: float  # scores of all symbols

    @property
    def all(self) -> float:
        return self.encode + self.decode + self.output


@torch.inference_mode()
def answer_once(model: EdgeFormer, rows: int) -> Seconds:
    """CPU seconds for ``rows`` sources of 16 tokens, each answered with 16 tokens, greedily."""
    source = torch.full((rows, TOKENS), FIRST_BYTE + 65)
    weights = BaseWeights(model, model.task_tokens[None], model.task_vector[None, None])
    began = time.thread_time()
    memory, cache = model.encode(source, weights), model.new_cache(rows, TOKENS)
    encoded = time.thread_time()
    token, decode, output = torch.full((rows, 1), BOS), 0.0, 0.0
    for _ in range(TOKENS):
        start, before = cache.length, time.thread_time()
        hidden = model.decode(token, memory, weights, cache)
        decoded = time.thread_time()
        token = model.output.scores(hidden, memory.copyable, weights, start).argmax(-1)
        decode, output = decode + decoded - before, output + time.thread_time() - decoded
    return Seconds(encoded - began, decode, output)


def answer_ms(models: Mapping[str, EdgeFormer], rows: int, *, turns: int = 41) -> dict[str, float]:
    """Median milliseconds of each model, in turns, so that what disturbs the machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        answer_once(model, rows)
    for _ in range(turns):
        for name, model in models.items():
            seconds[name].append(answer_once(model, rows).all)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
