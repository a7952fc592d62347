"""The shape of an EdgeFormer, its presets, and its closed-form size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Every number that fixes the shape of a base.

    Matrices are shared in cycles: encoder layer ``l`` uses attention group ``l % attention_groups`` and
    FFN group ``l % ffn_groups``; decoder layer ``j`` borrows attention groups ``2j`` and ``2j + 1`` for
    its self- and cross-attention (EdgeFormer, arXiv 2202.07959, section 3; public code).  Layer
    adaptation is Bias-LA: every use of a shared matrix has biases of its own.
    """

    vocabulary_size: int
    d_model: int = 128
    heads: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 2
    encoder_ffn: int = 512
    decoder_ffn: int = 64
    attention_groups: int = 4
    ffn_groups: int = 2
    task_tokens: int = 4
    max_tokens: int = 256

    def __post_init__(self) -> None:
        if self.d_model % (4 * self.heads):
            raise ValueError("d_model must be a multiple of 4 * heads (half of a head is rotary)")
        if self.attention_groups < 2 * self.decoder_layers:
            raise ValueError("the decoder borrows 2 * decoder_layers attention groups")

    @property
    def parameters(self) -> int:
        """Numbers in a base, by formula; the model's own count must equal it to the unit."""
        d, f, g = self.d_model, self.encoder_ffn, self.decoder_ffn
        attentions = self.encoder_layers + 2 * self.decoder_layers
        matrices = (
            self.attention_groups * 4 * d * d
            + self.ffn_groups * 2 * d * f
            + self.decoder_layers * 2 * d * g
        )
        biases = (
            attentions * 4 * d + self.encoder_layers * (f + d) + self.decoder_layers * 2 * (g + d)
        )
        norms = (2 * self.encoder_layers + 3 * self.decoder_layers + 2) * d
        embeddings = self.vocabulary_size * d + self.vocabulary_size
        task = (self.task_tokens + 1) * d
        return matrices + biases + norms + embeddings + task

    def to_json(self) -> dict[str, Any]:
        """A plain mapping for the base's header."""
        return asdict(self)


PRESETS: dict[str, dict[str, int]] = {
    "128": {"d_model": 128, "heads": 4, "encoder_layers": 6, "encoder_ffn": 512, "decoder_ffn": 64},
    "256": {
        "d_model": 256,
        "heads": 8,
        "encoder_layers": 12,
        "encoder_ffn": 1024,
        "decoder_ffn": 64,
    },
    "384": {
        "d_model": 384,
        "heads": 8,
        "encoder_layers": 12,
        "encoder_ffn": 1536,
        "decoder_ffn": 96,
    },
    "512": {
        "d_model": 512,
        "heads": 8,
        "encoder_layers": 12,
        "encoder_ffn": 2048,
        "decoder_ffn": 128,
    },
}


def preset(name: str, *, vocabulary_size: int) -> ModelConfig:
    """The named preset; raises KeyError for an unknown name.

    >>> preset("128", vocabulary_size=1200).parameters
    724784
    """
    return ModelConfig(vocabulary_size=vocabulary_size, **PRESETS[name])
