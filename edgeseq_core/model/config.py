"""The shape of an EdgeFormer, its presets, and its closed-form size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Every number that fixes the shape of a base.

    Matrices are shared in cycles: encoder layer ``l`` uses attention group ``l % attention_groups`` and
    FFN group ``l % ffn_groups``; decoder layer ``j`` borrows attention groups ``2j`` and ``2j + 1`` for
    its self- and cross-attention (EdgeFormer, arXiv 2202.07959, section 3; public code).  With one FFN
    group and ``decoder_ffn = 0`` this is One Wide FFN (arXiv 2309.01826).
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
    output: Literal["vocabulary", "copy"] = "vocabulary"
    adaptation: Literal["bias", "adapter", "prefix"] = "bias"
    adaptation_size: int = 0  # rank of the adapters, or states of a prefix
    head_size: int = 0  # width of a head; 0: d_model / heads
    key_heads: int = 0  # heads of keys and values; 0: as many as of queries
    norm: Literal["pre-rms", "post-layer"] = "pre-rms"
    positions: Literal["rotary", "linear"] = "rotary"
    encoder_mixer: Literal["attention", "retention"] = "attention"
    decoder_mixer: Literal["attention", "retention"] = "attention"

    def __post_init__(self) -> None:
        if self.head_size % 4 or (not self.head_size and self.d_model % (4 * self.heads)):
            raise ValueError("d_model must be a multiple of 4 * heads (half of a head is rotary)")
        if self.attention_groups < 2 * self.decoder_layers:
            raise ValueError("the decoder borrows 2 * decoder_layers attention groups")
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of key_heads")
        if (self.adaptation == "bias") != (self.adaptation_size == 0):
            raise ValueError("adaptation_size goes with adapters and prefixes, and only with them")
        if self.adaptation == "prefix" and self.encoder_mixer != "attention":
            raise ValueError("a prefix needs attention in the encoder")

    @property
    def head_width(self) -> int:
        return self.head_size or self.d_model // self.heads

    @property
    def width(self) -> int:
        """Of all heads of queries together."""
        return self.heads * self.head_width

    @property
    def kv_heads(self) -> int:
        return self.key_heads or self.heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_width

    @property
    def parameters(self) -> int:
        """Numbers in a base, by formula; the model's own count must equal it to the unit."""
        return self.core_parameters + self.vocabulary_size * (self.d_model + 1)

    @property
    def core_parameters(self) -> int:
        """The same without embeddings and the vocabulary's bias, as papers count."""
        d, width, kv = self.d_model, self.width, self.kv_width
        attention_groups = max(
            min(self.attention_groups, self.encoder_layers), 2 * self.decoder_layers
        )
        ffn_groups = min(self.ffn_groups, self.encoder_layers)
        # An attention, an encoder FFN, a decoder FFN: numbers in the matrices, in the biases.
        attention, attention_bias = 2 * d * (width + kv), width + 2 * kv + d
        ffn, ffn_bias = 2 * d * self.encoder_ffn, self.encoder_ffn + d
        small, small_bias = 2 * d * self.decoder_ffn, self.decoder_ffn + d
        matrices = attention_groups * attention + ffn_groups * ffn + self.decoder_layers * small
        if self.adaptation == "bias":  # of each use
            uses = self.encoder_layers + 2 * self.decoder_layers, self.encoder_layers, 2
        else:  # of each matrix
            uses = attention_groups, ffn_groups, 1
        biases = uses[0] * attention_bias + uses[1] * ffn_bias
        norms = 2 * self.encoder_layers + 2 * self.decoder_layers
        if self.decoder_ffn:
            biases += self.decoder_layers * uses[2] * small_bias
            norms += self.decoder_layers
        norm = (norms + 2) * d if self.norm == "pre-rms" else norms * 2 * d
        own = {"bias": 0, "adapter": 2 * d + width + kv, "prefix": 2 * kv}[self.adaptation]
        adaptation = self.encoder_layers * self.adaptation_size * own
        copy = 2 * self.head_width * (d + 1) + d + 1 if self.output == "copy" else 0
        return matrices + biases + norm + adaptation + copy + (self.task_tokens + 1) * d

    def to_json(self) -> dict[str, Any]:
        """A plain mapping for the base's header."""
        return asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
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
    # The paper's FFN is 2,048 wide; so much fits under 10 M together with a calibration of all layers.
    "512": {
        "d_model": 512,
        "heads": 8,
        "encoder_layers": 12,
        "encoder_ffn": 1536,
        "decoder_ffn": 128,
    },
}


def preset(name: str, *, vocabulary_size: int, **changes: Any) -> ModelConfig:
    """The named preset, some fields changed; raises KeyError for an unknown name.

    >>> preset("128", vocabulary_size=1200).parameters
    724784
    >>> preset("128", vocabulary_size=1200, output="copy", key_heads=1).core_parameters
    478145
    """
    return ModelConfig(vocabulary_size=vocabulary_size, **PRESETS[name] | changes)


def one_wide_ffn(config: ModelConfig) -> ModelConfig:
    """The FFNs' numbers in one FFN that all encoder layers share, and none in the decoder.

    Source: One Wide Feedforward (Pires et al. 2023, arXiv 2309.01826, section 3).

    >>> one_wide_ffn(preset("128", vocabulary_size=1200)).encoder_ffn
    1152
    """
    width = config.ffn_groups * config.encoder_ffn + config.decoder_layers * config.decoder_ffn
    return replace(config, ffn_groups=1, encoder_ffn=width, decoder_ffn=0)
