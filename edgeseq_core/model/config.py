"""The shape of an EdgeFormer, its presets, and its closed-form size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from edgeseq_core.text.vocabulary import FIRST_CHARACTER

BAND_FACTOR = 4  # a band's embeddings are so many times narrower than those before it


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Every number that fixes the shape of a base.

    Matrices are shared in cycles: encoder layer ``l`` uses attention group ``l % attention_groups`` and
    FFN group ``l % ffn_groups``; decoder layer ``j`` borrows attention groups ``2j`` and ``2j + 1`` for
    its self- and cross-attention (EdgeFormer, arXiv 2202.07959, section 3; public code).  With one FFN
    group and ``decoder_ffn = 0`` this is One Wide FFN (arXiv 2309.01826).

    Tokens from each of ``bands`` on have narrower embeddings (see `edgeseq_core.model.bands`).

    A pruned base has ``group_heads``, the heads of each attention group, or ``group_ffn``, the widths of
    each FFN group and then of each decoder layer's FFN; empty, all are as wide as ``heads``,
    ``encoder_ffn`` and ``decoder_ffn`` say.  As many heads as before share one of keys and values.
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
    group_heads: tuple[int, ...] = ()
    group_ffn: tuple[int, ...] = ()
    bands: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("group_heads", "group_ffn", "bands"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
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
        self._check_groups()
        self._check_bands()

    def _check_groups(self) -> None:
        if len(self.group_heads) not in (0, self.attention_groups):
            raise ValueError("group_heads has the heads of each attention group, or is empty")
        if len(self.group_ffn) not in (0, self.ffn_groups + self.decoder_layers):
            raise ValueError("group_ffn has a width a group and a decoder layer, or is empty")
        if self.group_ffn and any(
            bool(width) != bool(self.decoder_ffn) for width in self.group_ffn[self.ffn_groups :]
        ):
            raise ValueError("every decoder layer has an FFN, or none has")
        if any(not 0 < h <= self.heads or h % self.heads_together for h in self.group_heads):
            raise ValueError("group_heads are at most heads, and whole shares of keys and values")
        if self.group_heads and self.numbered_heads:
            raise ValueError(
                "all groups have the same heads where a head's number decides its reach"
            )

    def _check_bands(self) -> None:
        if not self.bands:
            return
        edges = (FIRST_CHARACTER, *self.bands, self.vocabulary_size)
        if any(a >= b for a, b in pairwise(edges)):
            raise ValueError(
                "bands begin after the bytes, rise, and end before the vocabulary does"
            )
        if self.output != "vocabulary":
            raise ValueError("embeddings in bands go with the output `vocabulary` only")
        if self.d_model % BAND_FACTOR ** len(self.bands):
            raise ValueError(f"each band is {BAND_FACTOR} times narrower, so d_model must divide")

    @property
    def first_band(self) -> int:
        """Tokens whose embeddings are as wide as the model."""
        return self.bands[0] if self.bands else self.vocabulary_size

    @property
    def tails(self) -> list[tuple[int, int]]:
        """Size and width of each later band."""
        edges = (*self.bands, self.vocabulary_size)
        widths = (self.d_model // BAND_FACTOR ** (at + 1) for at in range(len(self.bands)))
        return [(b - a, width) for (a, b), width in zip(pairwise(edges), widths, strict=False)]

    @property
    def head_width(self) -> int:
        return self.head_size or self.d_model // self.heads

    @property
    def kv_heads(self) -> int:
        return self.key_heads or self.heads

    @property
    def heads_together(self) -> int:
        """Heads that go together when some are pruned: those that share one of keys and values.

        Where all share it, each can go alone.
        """
        return 1 if self.kv_heads == 1 else self.heads // self.kv_heads

    @property
    def numbered_heads(self) -> bool:
        """Whether a head's number decides how far it sees, so that none can be taken out."""
        mixers = (self.encoder_mixer, self.decoder_mixer)
        return self.positions == "linear" or "retention" in mixers

    def attention_width(self, group: int) -> int:
        """Of all heads of queries of an attention group together."""
        return self.head_width * (self.group_heads[group] if self.group_heads else self.heads)

    def kv_width(self, group: int) -> int:
        """Of all heads of keys, or of values, of an attention group together."""
        return max(self.head_width, self.attention_width(group) * self.kv_heads // self.heads)

    def encoder_width(self, group: int) -> int:
        """Hidden units of an FFN group."""
        return self.group_ffn[group] if self.group_ffn else self.encoder_ffn

    def decoder_width(self, layer: int) -> int:
        """Hidden units of a decoder layer's FFN."""
        return self.group_ffn[self.ffn_groups + layer] if self.group_ffn else self.decoder_ffn

    @property
    def parameters(self) -> int:
        """Numbers in a base, by formula; the model's own count must equal it to the unit."""
        d, tails = self.d_model, self.tails
        rows = self.first_band * d + sum((size + d) * width for size, width in tails)
        return self.core_parameters + rows + self.vocabulary_size + len(tails) * (d + 1)

    @property
    def core_parameters(self) -> int:
        """The same without embeddings and the vocabulary's bias, as papers count."""
        d, encoder, decoder = self.d_model, range(self.encoder_layers), range(self.decoder_layers)
        in_cycle = [layer % self.attention_groups for layer in encoder]
        attention_uses = [*in_cycle, *range(2 * self.decoder_layers)]
        ffn_uses = [layer % self.ffn_groups for layer in encoder]
        attention_groups, ffn_groups = sorted(set(attention_uses)), sorted(set(ffn_uses))
        small = [self.decoder_width(layer) for layer in decoder] if self.decoder_ffn else []
        matrices = sum(self.attention_width(g) + self.kv_width(g) for g in attention_groups)
        matrices += sum(self.encoder_width(g) for g in ffn_groups) + sum(small)
        biased = (  # where there are biases: at each use, or at each group that is shared
            (attention_uses, ffn_uses, 2 * small)
            if self.adaptation == "bias"
            else (attention_groups, ffn_groups, small)
        )
        biases = sum(self.attention_width(g) + 2 * self.kv_width(g) + d for g in biased[0])
        biases += sum(self.encoder_width(g) + d for g in biased[1])
        biases += sum(width + d for width in biased[2])
        norms = 2 * self.encoder_layers + 2 * self.decoder_layers + len(small)
        norm = (norms + 2) * d if self.norm == "pre-rms" else norms * 2 * d
        of_layer = {
            "bias": lambda _group: 0,
            "adapter": lambda g: 2 * d + self.attention_width(g) + self.kv_width(g),
            "prefix": lambda g: 2 * self.kv_width(g),
        }[self.adaptation]
        adaptation = self.adaptation_size * sum(map(of_layer, in_cycle))
        copy = 2 * self.head_width * (d + 1) + d + 1 if self.output == "copy" else 0
        return 2 * d * matrices + biases + norm + adaptation + copy + (self.task_tokens + 1) * d

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

# For vocabularies of 8,000 and more: beside characters, so many subwords if no number is given.
LARGE_VOCABULARY_SUBWORDS = 7_000
LARGE_VOCABULARY: dict[str, dict[str, Any]] = {
    "256-8k": {**PRESETS["256"], "bands": (2_048, 4_096)},
}
SHAPES = PRESETS | LARGE_VOCABULARY


def preset(name: str, *, vocabulary_size: int, **changes: Any) -> ModelConfig:
    """The named preset, some fields changed; raises KeyError for an unknown name.

    >>> preset("128", vocabulary_size=1200).parameters
    724784
    >>> preset("128", vocabulary_size=1200, output="copy", key_heads=1).core_parameters
    478145
    >>> large, dense = (preset(name, vocabulary_size=8_259) for name in ("256-8k", "256"))
    >>> dense.parameters - dense.core_parameters, large.parameters - large.core_parameters
    (2122563, 751221)
    """
    return ModelConfig(vocabulary_size=vocabulary_size, **SHAPES[name] | changes)


def one_wide_ffn(config: ModelConfig) -> ModelConfig:
    """The FFNs' numbers in one FFN that all encoder layers share, and none in the decoder.

    Source: One Wide Feedforward (Pires et al. 2023, arXiv 2309.01826, section 3).

    >>> one_wide_ffn(preset("128", vocabulary_size=1200)).encoder_ffn
    1152
    """
    width = sum(map(config.encoder_width, range(config.ffn_groups)))
    width += sum(map(config.decoder_width, range(config.decoder_layers)))
    return replace(config, ffn_groups=1, encoder_ffn=width, decoder_ffn=0, group_ffn=())
