"""What a batch must move and multiply, and how long that takes at the best this machine does.

Products only, at one byte a weight: norms, softmax, attention's scores and quantization come on top, so no
engine reaches the floor.  A matrix is read once a batch in the encoder, once a step in the decoder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeseq_core.evaluate.engines.peer import TOKENS
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.sites import sites
from edgeseq_core.native.engine import native

ROWS, WIDTHS = (16, 64, 256), (128, 256, 512)  # of products that stay in cache
PEAK_S = 0.05
TRIES = 10


@dataclass(frozen=True)
class Amount:
    """Bytes of weights that are read, and multiply-adds."""

    weight_bytes: int = 0
    multiply_adds: int = 0

    def plus(self, weights: int, rows: int) -> Amount:
        """And a product of so many weights with so many rows."""
        return Amount(self.weight_bytes + weights, self.multiply_adds + weights * rows)


@dataclass(frozen=True)
class Peaks:
    """Measured on one thread: multiply-adds a second in int8, bytes a second read from cache."""

    multiply_adds: float
    bytes: float

    def seconds(self, amount: Amount) -> float:
        """The time that an amount takes at least."""
        return max(amount.multiply_adds / self.multiply_adds, amount.weight_bytes / self.bytes)


@dataclass(frozen=True)
class Demand:
    """Of a batch from 16 tokens to 16: its encoding, and each step of its answer."""

    encoding: Amount
    step: Amount

    def floor_ms(self, peaks: Peaks, threads: int) -> float:
        """No batch is faster; with threads as if each did its share and nobody waited."""
        return 1e3 * (peaks.seconds(self.encoding) + TOKENS * peaks.seconds(self.step)) / threads


def demand(config: ModelConfig, batch: int) -> Demand:
    """What a preset's products are, without a calibration."""
    encoding = step = Amount()
    for site in sites(config):
        for part, (rows, columns) in site.shapes.items():
            memory = site.name.endswith(".cross") and part in "kv"
            if site.name.startswith("encoder") or memory:
                encoding = encoding.plus(rows * columns, batch * TOKENS)
            else:
                step = step.plus(rows * columns, batch)
    return Demand(encoding, step.plus(config.vocabulary_size * config.d_model, batch))


def peaks(config: ModelConfig, instructions: str) -> Peaks:
    """Measure both; the bytes over as much memory as a step reads of this preset."""
    fastest = max(
        native.multiply_adds_a_second(instructions, rows, width, width, PEAK_S)
        for rows in ROWS
        for width in WIDTHS
    )
    return Peaks(fastest, _bytes_a_second(demand(config, 1).step.weight_bytes))


def _bytes_a_second(size: int) -> float:
    """Reading by the C library's search for a byte that is not there, which uses the widest registers."""
    data, fastest = bytes(size), 0.0
    for _ in range(TRIES):  # others may be at work
        times, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < PEAK_S / TRIES:
            data.find(b"\x01")
            times += 1
        fastest = max(fastest, times * size / spent)
    return fastest
