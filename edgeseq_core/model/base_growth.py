"""A base grown without changing what it computes: wider FFNs, more heads, more layers, a wider stream.

What is new says nothing at first: the output matrices' new entries are zero, or, where a new layer shares
matrices that are not, its norm's gain is.  All of it can learn at once: no gradient is zero throughout.
As matrices are shared, one growth enlarges every layer that uses them.

Source: composable function-preserving expansions (Gesmundo and Maile 2023, arXiv 2308.06103, sections
3.1 to 3.6); zero gains in place of zero matrices for tied layers are this project's.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import EdgeFormer

SILENT = (
    "_o",
    "_out",
    "_down",
    "embedding",
    "task_tokens",
    "task_vector",
)  # new entries of these are zero
LAST_READERS = ("copy_q", "copy_gate", "bands_tails")  # matrices that read the decoder's last state
AWAKE = 0.1  # what a new layer's hidden units say, so that a gradient passes their ReLU


def widen_ffns(
    model: EdgeFormer, *, encoder_ffn: int | None = None, decoder_ffn: int | None = None
) -> EdgeFormer:
    """More hidden units in the FFNs (section 3.1); raises ValueError for fewer."""
    config = model.config
    encoder, decoder = encoder_ffn or config.encoder_ffn, decoder_ffn or config.decoder_ffn
    if config.decoder_ffn == 0 < decoder:
        raise ValueError("this base has no decoder FFN to widen: widen the encoder's")
    groups, layers = range(config.ffn_groups), range(config.decoder_layers)
    of_groups = (
        *(encoder_ffn or config.encoder_width(group) for group in groups),
        *(decoder_ffn or config.decoder_width(layer) for layer in layers),
    )
    wider = replace(config, encoder_ffn=encoder, decoder_ffn=decoder)
    return _carry(model, replace(wider, group_ffn=of_groups if config.group_ffn else ()))


def add_heads(model: EdgeFormer, heads: int) -> EdgeFormer:
    """More heads of the same width (section 3.2), as many in every group; of keys and values in proportion.

    Raises ValueError for fewer, and where shared keys would have to be split.
    """
    config = model.config
    if heads * config.key_heads % config.heads:
        raise ValueError("heads of keys and values cannot grow in proportion: choose a multiple")
    key_heads = heads * config.key_heads // config.heads
    all_alike = replace(config, group_heads=())
    width = config.head_width
    return _carry(model, replace(all_alike, heads=heads, key_heads=key_heads, head_size=width))


def add_encoder_layers(model: EdgeFormer, layers: int) -> EdgeFormer:
    """More encoder layers on top (section 3.6) that share the cycle's matrices.

    Their gains are zero.  Raises ValueError for fewer, for post-norm, and where biases are shared.
    """
    config = model.config
    if config.norm != "pre-rms" or config.adaptation != "bias":
        raise ValueError("layers can be added to a pre-norm base with biases a layer only")
    grown = _carry(model, replace(config, encoder_layers=layers))
    with torch.no_grad():
        for layer in range(config.encoder_layers, layers):
            site = f"encoder.{layer}.ffn"
            for part in ("self", "ffn"):
                grown.norms[f"encoder_{layer}_{part}_norm"].zero_()
            # ReLU passes no gradient at zero: its units say a little, which the output's bias takes back.
            grown.bias(site, "up").fill_(AWAKE)
            grown.bias(site, "down").copy_(-AWAKE * grown.matrix(site, "down").sum(1))
    return grown


def widen_stream(model: EdgeFormer, d_model: int) -> EdgeFormer:
    """A wider residual stream (section 3.5): new places are zero until something writes to them.

    Gains shrink by the root of the ratio, because zeros lower the root mean square.  Raises ValueError
    for a narrower stream, and for post-norm, whose mean cannot be kept.
    """
    config = model.config
    if config.norm != "pre-rms":
        raise ValueError("the stream of a post-norm base cannot be widened")
    grown = _carry(model, replace(config, d_model=d_model, head_size=config.head_width))
    shrink = (config.d_model / d_model) ** 0.5
    # The network multiplies embeddings by the root of d_model, so they shrink.  They meet the decoder's
    # last state as the output's matrix, too: its gain stays, and what else reads that state shrinks.
    reads_last_state = [m for name, m in grown.matrices.items() if name in LAST_READERS]
    gains = [gain for name, gain in grown.norms.items() if name != "decoder_out_norm"]
    with torch.no_grad():
        widening = [matrix for name, matrix in grown.tails.items() if name.endswith("_out")]
        for parameter in (grown.embedding, *widening, *gains, *reads_last_state):
            parameter.mul_(shrink)
    return grown


def _carry(model: EdgeFormer, config: ModelConfig) -> EdgeFormer:
    """A fresh base of a larger shape with all that the old one has, and silence around it."""
    grown = EdgeFormer(config).to(model.embedding)
    old = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in grown.named_parameters():
            if name in old:
                _place(parameter, old[name], silent=name.endswith(SILENT))
    missing = old.keys() - dict(grown.named_parameters()).keys()
    if missing:
        raise ValueError("a base can only grow: ask for at least what it has")
    return grown


def _place(new: Tensor, old: Tensor, *, silent: bool) -> None:
    """Put ``old`` into the first rows and columns of ``new``."""
    if any(a < b for a, b in zip(new.shape, old.shape, strict=True)):
        raise ValueError("a base can only grow: ask for at least what it has")
    if silent:
        new.zero_()
    new[tuple(slice(size) for size in old.shape)] = old
