"""EdgeFormer: a deep encoder and a shallow interleaved decoder that share their matrices in cycles.

Source: EdgeFormer (arXiv 2202.07959, section 3) for cyclic sharing, the interleaved decoder that borrows
the encoder's attention, and Bias-LA.  Here pre-norm with RMSNorm, rotary positions on half of each
head (self- and cross-attention, so that monotonic alignment is easy and longer inputs work), and a
task-agnostic encoder: task tokens are appended to the encoder's output, and a task vector is added to
the decoder's input.

The network asks a `Weights` for each projection, so that the same code runs the bare base, a base
merged with one task's calibration (training) and rows of many tasks in one batch (serving).

Shapes: B rows, S source tokens, K task tokens, T target tokens, H heads, D = d_model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.text.vocabulary import PAD

ATTENTION_PARTS = ("q", "k", "v", "o")
FFN_PARTS = ("up", "down")


@dataclass(frozen=True)
class Site:
    """One use of a shared group of matrices: an attention or an FFN at its place in the network."""

    name: str
    kind: str  # "attention" or "ffn"
    group: str  # which matrices it borrows
    hidden: int  # FFN width, 0 for attention

    @property
    def parts(self) -> tuple[str, ...]:
        return ATTENTION_PARTS if self.kind == "attention" else FFN_PARTS

    def shape(self, part: str, d_model: int) -> tuple[int, int]:
        """[out, in] of a part's matrix."""
        if part == "up":
            return self.hidden, d_model
        if part == "down":
            return d_model, self.hidden
        return d_model, d_model


def sites(config: ModelConfig) -> list[Site]:
    """Every site in the order in which a pair flows through them."""
    out: list[Site] = []
    for layer in range(config.encoder_layers):
        attention, ffn = layer % config.attention_groups, layer % config.ffn_groups
        out.append(Site(f"encoder.{layer}.self", "attention", f"attention{attention}", 0))
        out.append(Site(f"encoder.{layer}.ffn", "ffn", f"ffn{ffn}", config.encoder_ffn))
    for layer in range(config.decoder_layers):
        name, small = f"decoder.{layer}", f"small{layer}"
        out.append(Site(f"{name}.self", "attention", f"attention{2 * layer}", 0))
        out.append(Site(f"{name}.ffn1", "ffn", small, config.decoder_ffn))
        out.append(Site(f"{name}.cross", "attention", f"attention{2 * layer + 1}", 0))
        out.append(Site(f"{name}.ffn2", "ffn", small, config.decoder_ffn))
    return out


class Weights(Protocol):
    """What the network needs to know of a task; implemented in `calibration` and `BaseWeights`."""

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        """One projection, ``[B, N, in] -> [B, N, out]``."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of target tokens, ``[B, T] -> [B, T, D]``, unscaled."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all symbols, ``[B, T, D] -> [B, T, V + own]``."""

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        """Task tokens ``[B, K, D]`` and task vector ``[B, 1, D]``."""

    def task_scores(self, rows: int) -> Tensor:
        """What is added to the attention scores of task tokens, ``[B, K]``; -inf where there is none."""

    @property
    def frozen_layers(self) -> int:
        """How many of the lowest encoder layers are the base's own."""


@dataclass
class Memory:
    """What the decoder reads of a source: cross keys and values per layer, and how much each counts."""

    keys: list[Tensor]  # [B, H, K + S, D/H]
    values: list[Tensor]
    mask: Tensor  # [B, 1, 1, K + S], added to attention scores; -inf where nothing is attended

    def select(self, rows: Tensor) -> Memory:
        """The memory of ``rows [N]``, which may repeat."""
        keys, values = [k[rows] for k in self.keys], [v[rows] for v in self.values]
        return Memory(keys, values, self.mask[rows])


@dataclass
class Cache:
    """Self-attention keys and values of the tokens decoded so far, per decoder layer."""

    keys: list[Tensor]  # [B, H, max_tokens, D/H]
    values: list[Tensor]
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Let each row go on from what ``rows [B]`` names."""
        for kept in (*self.keys, *self.values):
            kept[:, :, : self.length] = kept[rows, :, : self.length]


class EdgeFormer(nn.Module):
    """The base: shared matrices, private biases and norms, tied embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.sites = {site.name: site for site in sites(config)}
        self.matrices = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        for site in self.sites.values():
            for part in site.parts:
                rows, columns = site.shape(part, d)
                name = f"{site.group}_{part}"
                if name not in self.matrices:
                    self.matrices[name] = nn.Parameter(torch.randn(rows, columns) * columns**-0.5)
                self.biases[_key(site.name, part)] = nn.Parameter(torch.zeros(rows))
        self.norms = nn.ParameterDict(
            {_key(name, "norm"): nn.Parameter(torch.ones(d)) for name in _norm_names(config)}
        )
        self.embedding = nn.Parameter(torch.randn(config.vocabulary_size, d) * d**-0.5)
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.task_tokens = nn.Parameter(torch.randn(config.task_tokens, d) * 0.02)
        self.task_vector = nn.Parameter(torch.zeros(d))
        cosine, sine = _rotary(config)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.cosine: Tensor
        self.sine: Tensor

    # --- a pair's way -------------------------------------------------------------------------

    def encode(self, source: Tensor, weights: Weights) -> Memory:
        """Read sources ``[B, S]`` (padded with PAD) once; the result serves every decoding step."""
        real, layers = source != PAD, range(self.config.encoder_layers)
        x = self.run_encoder(self.embed_source(source), real, weights, layers)
        return self.memorize(x, real, weights)

    def embed_source(self, source: Tensor) -> Tensor:
        """What the first encoder layer reads, ``[B, S] -> [B, S, D]``."""
        return F.embedding(source, self.embedding) * math.sqrt(self.config.d_model)

    def run_encoder(self, x: Tensor, real: Tensor, weights: Weights, layers: range) -> Tensor:
        """Some encoder layers, ``[B, S, D] -> [B, S, D]``; ``real [B, S]`` is False at padding."""
        mask = real[:, None, None, :]
        for layer in layers:
            name = f"encoder.{layer}"
            normed = self._norm(x, f"{name}.self")
            q, k, v = (self._heads(weights.project(normed, f"{name}.self", p)) for p in "qkv")
            q, k = self._rotate(q, 0), self._rotate(k, 0)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + weights.project(_merge(attended), f"{name}.self", "o")
            x = x + self._ffn(self._norm(x, f"{name}.ffn"), f"{name}.ffn", weights)
        return x

    def memorize(self, x: Tensor, real: Tensor, weights: Weights) -> Memory:
        """Cross keys and values of the last encoder layer's output ``[B, S, D]`` and of the task tokens."""
        x = self._norm(x, "encoder.out")
        tokens, _ = weights.task(x.shape[0])
        keys, values = [], []
        for layer in range(self.config.decoder_layers):
            site = f"decoder.{layer}.cross"
            # Task tokens have no place in the source, so only the source's keys are rotated.
            of_source = self._rotate(self._heads(weights.project(x, site, "k")), 0)
            of_task = self._heads(weights.project(tokens, site, "k"))
            keys.append(torch.cat([of_task, of_source], 2))
            values.append(self._heads(weights.project(torch.cat([tokens, x], 1), site, "v")))
        of_source = torch.zeros_like(x[..., 0]).masked_fill(~real, -torch.inf)
        mask = torch.cat([weights.task_scores(x.shape[0]), of_source], 1)
        return Memory(keys, values, mask[:, None, None, :])

    def decode(
        self, target: Tensor, memory: Memory, weights: Weights, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states ``[B, T, D]`` of target tokens ``[B, T]``; with a cache, T new tokens after it."""
        start = cache.length if cache else 0
        _, vector = weights.task(target.shape[0])
        x = weights.embed(target) * math.sqrt(self.config.d_model) + vector
        for layer in range(self.config.decoder_layers):
            name = f"decoder.{layer}"
            normed = self._norm(x, f"{name}.self")
            q, k, v = (self._heads(weights.project(normed, f"{name}.self", p)) for p in "qkv")
            q, k = self._rotate(q, start), self._rotate(k, start)
            if cache:
                end = start + target.shape[1]
                cache.keys[layer][:, :, start:end] = k
                cache.values[layer][:, :, start:end] = v
                k, v = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=target.shape[1] > 1)
            x = x + weights.project(_merge(attended), f"{name}.self", "o")
            x = x + self._ffn(self._norm(x, f"{name}.ffn"), f"{name}.ffn1", weights)
            normed = self._norm(x, f"{name}.cross")
            q = self._rotate(self._heads(weights.project(normed, f"{name}.cross", "q")), start)
            attended = F.scaled_dot_product_attention(
                q, memory.keys[layer], memory.values[layer], attn_mask=memory.mask
            )
            x = x + weights.project(_merge(attended), f"{name}.cross", "o")
            # The same small FFN and the same norm again (EdgeFormer's public code).
            x = x + self._ffn(self._norm(x, f"{name}.ffn"), f"{name}.ffn2", weights)
        if cache:
            cache.length = start + target.shape[1]
        return self._norm(x, "decoder.out")

    def forward(self, source: Tensor, target: Tensor, weights: Weights) -> Tensor:
        """Teacher-forced scores ``[B, T, V + own]`` of each next token, from ``[B, S]`` and ``[B, T]``."""
        return weights.logits(self.decode(target, self.encode(source, weights), weights))

    def new_cache(self, rows: int, max_tokens: int) -> Cache:
        """An empty cache for ``rows`` rows of at most ``max_tokens`` tokens."""
        c = self.config
        shape = (rows, c.heads, max_tokens, c.d_model // c.heads)
        blank = [torch.empty(shape) for _ in range(2 * c.decoder_layers)]
        return Cache(blank[::2], blank[1::2])

    # --- parts -----------------------------------------------------------------------------------

    def matrix(self, site: str, part: str) -> nn.Parameter:
        """The shared matrix ``[out, in]`` that a site uses for a part."""
        matrix: nn.Parameter = self.matrices[f"{self.sites[site].group}_{part}"]
        return matrix

    def bias(self, site: str, part: str) -> nn.Parameter:
        """The private bias ``[out]`` of a site's part."""
        bias: nn.Parameter = self.biases[_key(site, part)]
        return bias

    def _ffn(self, x: Tensor, site: str, weights: Weights) -> Tensor:
        return weights.project(torch.relu(weights.project(x, site, "up")), site, "down")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.norms[_key(name, "norm")], eps=1e-6)

    def _heads(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        return x.view(rows, length, self.config.heads, width // self.config.heads).transpose(1, 2)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        """Rotary positions on the first half of each head, ``[B, H, N, D/H]``."""
        cosine = self.cosine[start : start + x.shape[2]]
        sine = self.sine[start : start + x.shape[2]]
        turned, kept = x.chunk(2, -1)
        a, b = turned.chunk(2, -1)
        return torch.cat([a * cosine - b * sine, a * sine + b * cosine, kept], -1)


class BaseWeights:
    """The bare base, with task tokens ``[B, K, D]`` and task vector ``[B, 1, D]`` per row."""

    def __init__(self, model: EdgeFormer, tokens: Tensor, vector: Tensor) -> None:
        self.model, self.tokens, self.vector = model, tokens, vector

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        return F.linear(x, self.model.matrix(site, part), self.model.bias(site, part))

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.model.embedding)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.model.embedding, self.model.vocabulary_bias)

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        return self.tokens.expand(rows, -1, -1), self.vector.expand(rows, -1, -1)

    def task_scores(self, rows: int) -> Tensor:
        return self.tokens.new_zeros(rows, self.tokens.shape[1])

    @property
    def frozen_layers(self) -> int:
        return self.model.config.encoder_layers


def _key(site: str, part: str) -> str:
    return f"{site}.{part}".replace(".", "_")  # ParameterDict keys may hold no dot


def _norm_names(config: ModelConfig) -> list[str]:
    names = [f"encoder.{i}.{s}" for i in range(config.encoder_layers) for s in ("self", "ffn")]
    for i in range(config.decoder_layers):
        names += [f"decoder.{i}.self", f"decoder.{i}.ffn", f"decoder.{i}.cross"]
    return [*names, "encoder.out", "decoder.out"]


def _merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _rotary(config: ModelConfig) -> tuple[Tensor, Tensor]:
    pairs = config.d_model // config.heads // 4
    frequency = 10_000.0 ** (-torch.arange(pairs) / pairs)
    angle = torch.arange(config.max_tokens + 1)[:, None] * frequency
    return angle.cos(), angle.sin()
