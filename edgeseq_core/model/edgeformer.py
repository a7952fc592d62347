"""EdgeFormer: a deep encoder and a shallow interleaved decoder that share their matrices in cycles.

Source: EdgeFormer (arXiv 2202.07959, section 3) for cyclic sharing, the interleaved decoder that borrows
the encoder's attention, and layer adaptation.  Here the encoder is task-agnostic: task tokens are
appended to its output, and a task vector is added to the decoder's input.

The config picks the parts: `positions`, `mixer` (how tokens see each other), `adaptation` (what layers
that share matrices have of their own), `norms`, `output` (vocabulary alone, or with a copy path).
Whatever mixes tokens inside encoder and decoder, the decoder reads the source by softmax attention:
a state of fixed size cannot copy (arXiv 2402.01032).

The network asks a `Weights` for each projection, so that the same code runs the bare base, a base
merged with one task's calibration (training) and rows of many tasks in one batch (serving).

Shapes: B rows, S source tokens, K task tokens, T target tokens, H heads, G heads of keys and values,
C = width of a head, D = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseq_core.model.adaptation import (
    AdapterAdaptation,
    BiasAdaptation,
    PrefixAdaptation,
)
from edgeseq_core.model.bands import BandedOutput, Embedding, new_tails
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.layout import ROWS, Layout, Packed
from edgeseq_core.model.mixer import Retention, SoftmaxAttention, State, TokenMixer
from edgeseq_core.model.norms import PostNorm, PreNorm
from edgeseq_core.model.output import GATE_START, Copyable, CopyOutput, Output, VocabularyOutput
from edgeseq_core.model.positions import LinearBias, Positions, Rotary
from edgeseq_core.model.sites import COPY_SITE, Site, Weights, key, sites
from edgeseq_core.text.vocabulary import PAD

POSITIONS: Mapping[str, type[Rotary | LinearBias]] = {"rotary": Rotary, "linear": LinearBias}
NORMS: Mapping[str, type[PreNorm | PostNorm]] = {"pre-rms": PreNorm, "post-layer": PostNorm}
OUTPUTS: Mapping[str, type[VocabularyOutput | CopyOutput]] = {
    "vocabulary": VocabularyOutput,
    "copy": CopyOutput,
}


@dataclass
class Memory:
    """What the decoder reads of a source: cross keys and values per layer, and how much each counts."""

    keys: list[Tensor]  # [B, G, K + S, C]
    values: list[Tensor]
    mask: Tensor  # [B, 1, 1, K + S], added to attention scores; -inf where nothing is attended
    unplaced: int  # K: task tokens have no place in the source
    copyable: Copyable | None

    def select(self, rows: Tensor) -> Memory:
        """The memory of ``rows [N]``, which may repeat."""
        keys, values = [k[rows] for k in self.keys], [v[rows] for v in self.values]
        copyable = self.copyable.select(rows) if self.copyable else None
        return Memory(keys, values, self.mask[rows], self.unplaced, copyable)


class Forced(NamedTuple):
    """What a network says of the tokens of many targets, one after the other; N tokens in all."""

    scores: Tensor  # [N, V + own], of each, before it is told
    wanted: Tensor  # [N]
    row: Tensor  # [N], the target it is of


@dataclass
class Cache:
    """What the decoder's mixers remember of the tokens decoded so far, per layer."""

    states: list[State]
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Let each row go on from what ``rows [B]`` names."""
        for state in self.states:
            state.select(rows)


class EdgeFormer(nn.Module):
    """The base: shared matrices, private biases and norms, tied embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        self.sites = {site.name: site for site in sites(config)}
        self.positions = POSITIONS[config.positions](config)
        self.adaptation = _adaptation(config, self.sites.values(), self.positions)
        self.matrices = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        self._names: dict[tuple[str, str], tuple[str, str]] = {}  # of a site's matrix and bias
        for site in self.sites.values():
            for part, (rows, columns) in site.shapes.items():
                name, bias = f"{site.group}_{part}", key(self.adaptation.owner(site), part)
                self._names[site.name, part] = name, bias
                if name not in self.matrices:
                    self.matrices[name] = nn.Parameter(torch.randn(rows, columns) * columns**-0.5)
                if bias not in self.biases:
                    self.biases[bias] = nn.Parameter(torch.zeros(rows))
        self.norms = NORMS[config.norm](config)
        self.embedding = nn.Parameter(torch.randn(config.first_band, d) * d**-0.5)
        self.tails = new_tails(config)  # of embeddings in bands
        self.vocabulary_bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        self.task_tokens = nn.Parameter(torch.randn(config.task_tokens, d) * 0.02)
        self.task_vector = nn.Parameter(torch.zeros(d))
        self._assemble()
        if config.output == "copy":
            nn.init.constant_(self.bias(COPY_SITE, "gate"), GATE_START)

    def _assemble(self) -> None:
        """Put the parts that have no parameters of their own where they work."""
        config = self.config
        self._adapted = self.adaptation.matrix

        def mixer(kind: str, group: int = 0) -> TokenMixer:
            if kind == "retention":
                return Retention(config)
            return SoftmaxAttention(config, self.positions, group)

        self.cross = SoftmaxAttention(config, self.positions)
        self.encoder_mixers = [
            self.adaptation.mixer(mixer(config.encoder_mixer), f"encoder.{layer}.self")
            for layer in range(config.encoder_layers)
        ]
        self.decoder_mixers = [
            mixer(config.decoder_mixer, 2 * layer) for layer in range(config.decoder_layers)
        ]
        output = BandedOutput if config.bands else OUTPUTS[config.output]
        self.output: Output = output(config)
        self._decoder_feed = self._feed if config.decoder_ffn else _pass

    # --- a pair's way -------------------------------------------------------------------------

    def encode(self, source: Tensor, weights: Weights, symbols: Tensor | None = None) -> Memory:
        """Read sources ``[B, S]`` (padded with PAD) once; the result serves every decoding step.

        ``symbols [B, S]`` are the target symbols that the tokens stand for, by default the tokens.
        """
        real, layers = source != PAD, range(self.config.encoder_layers)
        x = self.run_encoder(self.embed_source(source), real, weights, layers)
        return self.memorize(x, real, weights, source if symbols is None else symbols)

    def embed_source(self, source: Tensor) -> Tensor:
        """What the first encoder layer reads, ``[B, S] -> [B, S, D]``."""
        return self.tokens.look_up(source) * math.sqrt(self.config.d_model)

    def run_encoder(self, x: Tensor, real: Tensor, weights: Weights, layers: range) -> Tensor:
        """Some encoder layers, ``[B, S, D] -> [B, S, D]``; ``real [B, S]`` is False at padding."""
        layout = weights.layout(real)
        x = layout.pack(x)
        for layer in layers:
            site = f"encoder.{layer}.self"
            q, k, v = self._qkv(self.norms.before(x, site), site, weights, layout)
            mixed = layout.pack(_merge(self.encoder_mixers[layer].both_ways(q, k, v, real)))
            x = self.norms.after(x, weights.project(mixed, site, "o"), site)
            x = self._feed(x, f"encoder.{layer}.ffn", f"encoder.{layer}.ffn", weights)
        return layout.unpack(x)

    def memorize(self, x: Tensor, real: Tensor, weights: Weights, symbols: Tensor) -> Memory:
        """What the decoder reads of the last encoder layer's output ``[B, S, D]``, and the task tokens."""
        rows, layout = len(x), weights.layout(real)
        x = self.norms.last(layout.pack(x), "encoder.out")
        tokens, _ = weights.task(rows)
        keys, values = [], []
        for layer in range(self.config.decoder_layers):
            site = f"decoder.{layer}.cross"
            of_task, of_source = (
                [self._heads(to.unpack(weights.project(of, site, part))) for part in "kv"]
                for of, to in ((tokens, ROWS), (x, layout))
            )
            # Task tokens have no place in the source, so only the source's keys are turned.
            of_source[0] = self.positions.turn(of_source[0], 0)
            key, value = (
                torch.cat([task.expand(rows, -1, -1, -1), source], 2)
                for task, source in zip(of_task, of_source, strict=True)
            )
            keys.append(key)
            values.append(value)
        x = layout.unpack(x)
        of_padding = torch.zeros_like(x[..., 0]).masked_fill(~real, -torch.inf)
        mask = torch.cat([weights.task_scores(rows), of_padding], 1)[:, None, None, :]
        copyable = self.output.read(x, real, symbols, weights)
        return Memory(keys, values, mask, tokens.shape[1], copyable)

    def decode(
        self, target: Tensor, memory: Memory, weights: Weights, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states ``[B, T, D]`` of target tokens ``[B, T]``; with a cache, T new tokens after it."""
        return self._decode(target, memory, weights, cache, ROWS)

    def _decode(
        self,
        target: Tensor,
        memory: Memory,
        weights: Weights,
        cache: Cache | None,
        layout: Layout,
    ) -> Tensor:
        start = cache.length if cache else 0
        _, vector = weights.task(target.shape[0])
        x = layout.pack(weights.embed(target)) * math.sqrt(self.config.d_model) + vector
        for layer in range(self.config.decoder_layers):
            name, site = f"decoder.{layer}", f"decoder.{layer}.self"
            q, k, v = self._qkv(self.norms.before(x, site), site, weights, layout)
            state = cache.states[layer] if cache else None
            mixed = layout.pack(_merge(self.decoder_mixers[layer].onward(q, k, v, state)))
            x = self.norms.after(x, weights.project(mixed, site, "o"), site)
            x = self._decoder_feed(x, f"{name}.ffn", f"{name}.ffn1", weights)
            site = f"{name}.cross"
            q = self._heads(layout.unpack(weights.project(self.norms.before(x, site), site, "q")))
            k, v = memory.keys[layer], memory.values[layer]
            mixed = self.cross.attend(q, k, v, memory.mask, start=start, unplaced=memory.unplaced)
            mixed = layout.pack(_merge(mixed))
            x = self.norms.after(x, weights.project(mixed, site, "o"), site)
            # The same small FFN and the same norm again (EdgeFormer's public code).
            x = self._decoder_feed(x, f"{name}.ffn", f"{name}.ffn2", weights)
        if cache:
            cache.length = start + target.shape[1]
        return self.norms.last(x, "decoder.out")

    def scores(
        self, target: Tensor, memory: Memory, weights: Weights, cache: Cache | None = None
    ) -> Tensor:
        """Scores ``[B, T, V + own]`` of each next token; their log-softmax is log-probabilities."""
        start = cache.length if cache else 0
        hidden = self.decode(target, memory, weights, cache)
        return self.output.scores(hidden, memory.copyable, weights, start, ROWS)

    def forced(self, target: Tensor, memory: Memory, weights: Weights) -> Forced:
        """What is said where the tokens of ``target [B, 1 + T]`` (BOS first, padded) are wanted."""
        wanted = target[:, 1:]
        layout = Packed(wanted != PAD)
        hidden = self._decode(target[:, :-1], memory, weights, None, layout)
        scores = self.output.scores(hidden, memory.copyable, weights, 0, layout)[0]
        row = layout.places // wanted.shape[1]
        return Forced(scores, wanted.flatten()[layout.places], row)

    def forward(
        self, source: Tensor, target: Tensor, weights: Weights, symbols: Tensor | None = None
    ) -> Tensor:
        """Teacher-forced scores ``[B, T, V + own]`` of each next token, from ``[B, S]`` and ``[B, T]``."""
        return self.scores(target, self.encode(source, weights, symbols), weights)

    def new_cache(self, rows: int, max_tokens: int) -> Cache:
        """An empty cache for ``rows`` rows of at most ``max_tokens`` tokens."""
        like = self.embedding
        return Cache([one.new_state(rows, max_tokens, like) for one in self.decoder_mixers])

    # --- parts -----------------------------------------------------------------------------------

    def matrix(self, site: str, part: str) -> Tensor:
        """The matrix ``[out, in]`` that a site uses for a part: shared, and adapted to the site."""
        return self._adapted(self.matrices[self._names[site, part][0]], site, part)

    def bias(self, site: str, part: str) -> Tensor:
        """The bias ``[out]`` of a site's part."""
        bias: Tensor = self.biases[self._names[site, part][1]]
        return bias

    @property
    def tokens(self) -> Embedding:
        """The embeddings of all tokens."""
        return Embedding(self.embedding, self.tails)

    def _qkv(self, x: Tensor, site: str, weights: Weights, layout: Layout) -> tuple[Tensor, ...]:
        return tuple(self._heads(layout.unpack(weights.project(x, site, part))) for part in "qkv")

    def _feed(self, x: Tensor, norm: str, site: str, weights: Weights) -> Tensor:
        """An FFN sub-layer with its residual connection."""
        hidden = torch.relu(weights.project(self.norms.before(x, norm), site, "up"))
        return self.norms.after(x, weights.project(hidden, site, "down"), norm)

    def _heads(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        c = self.config.head_width
        return x.view(rows, length, width // c, c).transpose(1, 2)


class BaseWeights:
    """The bare base, with task tokens ``[B, K, D]`` and task vector ``[B, 1, D]`` per row."""

    def __init__(self, model: EdgeFormer, tokens: Tensor, vector: Tensor) -> None:
        self.model, self.tokens, self.vector = model, tokens, vector

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        return F.linear(x, self.model.matrix(site, part), self.model.bias(site, part))

    def own_inputs(self, _sources: Sequence[str]) -> None:
        return None

    def embed(self, ids: Tensor) -> Tensor:
        return self.model.tokens.look_up(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.model.tokens.score(hidden) + self.model.vocabulary_bias

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        return self.tokens.expand(rows, -1, -1), self.vector.expand(rows, -1, -1)

    def task_scores(self, rows: int) -> Tensor:
        return self.tokens.new_zeros(rows, self.tokens.shape[1])

    def layout(self, _real: Tensor) -> Layout:
        return ROWS

    @property
    def frozen_layers(self) -> int:
        return self.model.config.encoder_layers


def _adaptation(
    config: ModelConfig, sites: Iterable[Site], positions: Positions
) -> BiasAdaptation | AdapterAdaptation | PrefixAdaptation:
    if config.adaptation == "adapter":
        return AdapterAdaptation(config, sites)
    if config.adaptation == "prefix":
        return PrefixAdaptation(config, sites, positions)
    return BiasAdaptation()


def _pass(x: Tensor, _norm: str, _site: str, _weights: Weights) -> Tensor:
    """In place of a sub-layer that is not there."""
    return x


def _merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)
