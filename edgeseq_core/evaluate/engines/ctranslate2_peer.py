"""A CTranslate2 transformer whose products are as large as a preset's.

It has no calibration and is not interleaved: its decoder's one FFN is as wide as both of ours together.
Matrices are shared in the same cycles.  Weights are random: only time is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec

from edgeseq_core.evaluate.engines.models import BASE
from edgeseq_core.evaluate.engines.peer import TOKENS, Work
from edgeseq_core.model.base_file import read_header
from edgeseq_core.model.config import ModelConfig

MOST_TOKENS = 128  # places that it has encodings for


def build(config: ModelConfig, folder: Path) -> None:
    """Write the model, int8, where `load` finds it."""
    draw = np.random.default_rng(0)
    d = config.d_model
    groups: dict[str, tuple[Any, Any]] = {}

    def linear(spec: Any, rows: int, columns: int, shared: str = "") -> None:
        found = groups.get(shared)
        if not found:
            weight = draw.uniform(-1, 1, (rows, columns)) * columns**-0.5
            found = weight.astype(np.float32), np.zeros(rows, np.float32)
        if shared:
            groups[shared] = found
        spec.weight, spec.bias = found

    def norm(spec: Any) -> None:
        spec.gamma, spec.beta = np.ones(d, np.float32), np.zeros(d, np.float32)

    def attention(spec: Any, group: int) -> None:
        norm(spec.layer_norm)
        linear(spec.linear[0], 3 * d, d, f"qkv{group}")
        linear(spec.linear[1], d, d, f"o{group}")

    def feed(spec: Any, width: int, group: str) -> None:
        norm(spec.layer_norm)
        linear(spec.linear_0, width, d, f"up{group}")
        linear(spec.linear_1, d, width, f"down{group}")

    spec = TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers), config.heads, pre_norm=True
    )
    table = draw.standard_normal((config.vocabulary_size, d)).astype(np.float32) * d**-0.5
    encodings = draw.standard_normal((MOST_TOKENS, d)).astype(np.float32)
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = table
    spec.decoder.projection.weight = table
    spec.decoder.projection.bias = np.zeros(len(table), np.float32)
    for stack in (spec.encoder, spec.decoder):
        stack.position_encodings.encodings = encodings
        stack.scale_embeddings = False
        norm(stack.layer_norm)
    for at, layer in enumerate(spec.encoder.layer):
        attention(layer.self_attention, at % config.attention_groups)
        feed(layer.ffn, config.encoder_ffn, f"{at % config.ffn_groups}")
    for at, layer in enumerate(spec.decoder.layer):
        attention(layer.self_attention, 2 * at)
        cross = layer.attention
        norm(cross.layer_norm)
        linear(cross.linear[0], d, d)
        linear(cross.linear[1], 2 * d, d)
        linear(cross.linear[2], d, d, f"o{2 * at + 1}")
        feed(layer.ffn, 2 * config.decoder_ffn, f"small{at}")
    words = ["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, config.vocabulary_size))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = words[:3]
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir()
    spec.save(str(folder))


class CTranslate2Peer:
    """Its answers; threads share the rows of a batch (``by_rows``), or each product."""

    def __init__(self, folder: Path, threads: int, *, by_rows: bool) -> None:
        model = folder / "ctranslate2"
        if not model.exists():
            build(read_header(folder / BASE).config, model)
        self._threads, self._by_rows = threads, by_rows
        self._translator = ctranslate2.Translator(
            str(model),
            compute_type="int8",
            inter_threads=threads if by_rows else 1,
            intra_threads=1 if by_rows else threads,
        )

    def prepare(self, batch: int, _tasks: int) -> Work:
        rows = [[f"t{3 + at}" for at in range(TOKENS)]] * batch
        most = -(-batch // self._threads) if self._by_rows else 0
        return lambda: self._translator.translate_batch(
            rows,
            beam_size=1,
            min_decoding_length=TOKENS,
            max_decoding_length=TOKENS,
            max_batch_size=most,
        )

    def answers(self, _sources: Sequence[str]) -> None:
        return None  # another network


def ctranslate2_int8(folder: Path, threads: int, split: str | None) -> CTranslate2Peer:
    """CTranslate2, its threads sharing products or (``split`` is "rows") rows."""
    return CTranslate2Peer(folder, threads, by_rows=split == "rows")
