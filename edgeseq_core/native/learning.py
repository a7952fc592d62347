"""The native learning step: `model.study` in C++, for the bases that it expresses.

Sources, targets and gradients are the real tokens of a batch, one after the other; frozen layers run once a
source.  Every number is summed in an order of its own, so a source's states do not depend on what else is
read.  Bits differ from PyTorch's, and between sets of instructions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeseq_core.errors import ConfigError
from edgeseq_core.model.base import Base
from edgeseq_core.model.calibration import FACTORS, SOURCE_ROWS, Calibration
from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.model.lessons import Teaching, TopK
from edgeseq_core.model.nearest import LAYERS
from edgeseq_core.model.norms import PreNorm
from edgeseq_core.model.sites import Site, sites
from edgeseq_core.native.engine import EXPRESSED, LANES
from edgeseq_core.text.vocabulary import BOS, EOS

native: Any
try:
    native = import_module("edgeseq_core.native._study")
except ImportError:  # not built: no compiler, or one that is too old
    native = None

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]
NOTHING_SAID: tuple[Ids, Floats] = (np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32))


def why_not(config: ModelConfig) -> str | None:
    """Why the native step cannot learn on such a base here; None where it can."""
    if native is None:
        return "it was not built: install again where a C++17 compiler is"
    for name, value in (EXPRESSED | {"output": "vocabulary", "bands": ()}).items():
        if getattr(config, name) != value:
            return f"it has no {name} {getattr(config, name)!r}"
    if config.d_model % LANES or config.head_width % LANES:
        return f"d_model and the width of a head must be multiples of {LANES}"
    if len(sites(config)) != 2 * config.encoder_layers + 4 * config.decoder_layers:
        return "not every layer has an FFN"
    return None


class _Kept(NamedTuple):
    """What the frozen layers make of a source."""

    states: Floats  # [S, D]
    feature: Floats  # [D]; empty where they are fewer than `nearest.LAYERS`


class NativeReading:
    """Losses of a batch; the learner in C++ keeps what their gradients need until it reads another."""

    def __init__(self, learner: Any, calibration: Calibration, found: tuple[Any, ...]) -> None:
        self._learner, self._tensors = learner, calibration.tensors
        self._number, losses, plain, tokens, self.exact = found
        self.losses, self.plain = torch.from_numpy(losses), torch.from_numpy(plain)
        self.tokens = torch.tensor(tokens, dtype=torch.float32)

    def said(self, k: int) -> list[TopK]:
        """The k likeliest symbols of each target token, ``[T, k]`` a pair; raises as `gradients`."""
        ids, logs = map(torch.from_numpy, self._learner.said(self._number, k))
        return TopK(ids.long(), logs).split(self.tokens.int().tolist())

    def gradients(self, pull: Tensor, teaching: Teaching | None = None) -> None:
        """Write those of ``sum(pull * losses)``, and of what teaching adds, into the tensors.

        Raises ValueError when asked twice, or after another batch was read.
        """
        ids, shares = self._taught(teaching) if teaching else NOTHING_SAID
        weight = teaching.weight if teaching else 0.0
        pulls = pull.detach().numpy()
        flat = torch.from_numpy(self._learner.gradients(self._number, pulls, ids, shares, weight))
        pieces = torch.split(flat, [tensor.numel() for tensor in self._tensors.values()])
        for tensor, piece in zip(self._tensors.values(), pieces, strict=True):
            tensor.grad = piece.view_as(tensor)

    def _taught(self, teaching: Teaching) -> tuple[Ids, Floats]:
        """Symbols and probabilities ``[N, k]`` of all target tokens; below 0 where nothing is said."""
        packed, lengths = teaching.packed(), self.tokens.int()
        at = torch.tensor([said is not None for said in teaching.said]).repeat_interleave(lengths)
        ids = torch.zeros(len(at), packed.ids.shape[1], dtype=torch.int32)
        shares = torch.full(ids.shape, -1.0)
        ids[at], shares[at] = packed.ids.int(), packed.log_probabilities.exp()
        return ids.numpy(), shares.numpy()


class NativeStudy:
    """Reads pairs with one task's calibration; keeps what frozen layers made of ``capacity`` sources.

    ``instructions`` forces a set of instructions, by default the best that the CPU has.  Raises ConfigError
    for a base that needs PyTorch.
    """

    def __init__(self, base: Base, *, capacity: int = 4_096, instructions: str = "") -> None:
        if reason := why_not(base.config):
            raise ConfigError(f"the native learning step cannot learn on this base: {reason}")
        self._base, self._capacity = base, capacity
        self._kept: OrderedDict[tuple[str, int], _Kept] = OrderedDict()
        self._table = _array(base.model.tokens.table())
        self._bias = _array(base.model.vocabulary_bias)
        config = base.config
        self._learner = native.Learner(
            config.d_model,
            config.head_width,
            config.max_tokens,
            config.encoder_layers,
            config.decoder_layers,
            [_array(one) for one in _in_order(base.model)],
            instructions,
        )

    @property
    def instructions(self) -> str:
        """The set of instructions that it computes with."""
        name: str = self._learner.instructions
        return name

    def forget(self) -> None:
        self._kept.clear()

    def features(self, calibration: Calibration, sources: Sequence[str]) -> Tensor:
        frozen = self._frozen(calibration)
        depth = frozen if frozen >= LAYERS else min(LAYERS, self._base.config.encoder_layers)
        return torch.from_numpy(np.stack([kept.feature for kept in self._lower(sources, depth)]))

    def read(
        self,
        calibration: Calibration,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        smoothing: float,
    ) -> NativeReading:
        own, table = calibration.tensors, calibration.table
        frozen = self._frozen(calibration)
        states = [kept.states for kept in self._lower(sources, frozen)]
        known, known_bias = self._table, self._bias
        if table.symbols:
            known = np.concatenate([known, calibration.virtual_rows().detach().numpy()])
            known_bias = np.pad(known_bias, (0, len(table.symbols)))
        at, sizes = dict[str, int](), 0
        for name, tensor in own.items():
            at[name], sizes = sizes, sizes + tensor.numel()
        named = ("token", "vector", "rows", "row_bias", "other_bias", SOURCE_ROWS)
        inputs = [row for source in sources for row in self._own_inputs(calibration, source)]
        found = self._learner.read(
            torch.cat([tensor.detach().flatten() for tensor in own.values()]).numpy(),
            [_places(site, part, at) for site, part in _projections(self._base.model)],
            [at.get(name, -1) for name in named],
            calibration.config.rank,
            frozen,
            np.concatenate(states),
            [len(one) for one in states],
            inputs,
            [[BOS, *table.encode(target), EOS] for target in targets],
            known,
            known_bias,
            calibration.rows,
            calibration.splits.scores,
            smoothing,
        )
        return NativeReading(self._learner, calibration, found)

    def _own_inputs(self, calibration: Calibration, source: str) -> list[int]:
        if calibration.inputs.rows:
            return calibration.inputs.of(source)
        return [0] * (len(self._base.vocabulary.encode(source)) + 1)

    def _frozen(self, calibration: Calibration) -> int:
        return self._base.config.encoder_layers - calibration.config.encoder_layers

    def _lower(self, sources: Sequence[str], depth: int) -> list[_Kept]:
        """What the lowest ``depth`` layers make of each source, kept or made."""
        distinct, kept = dict.fromkeys(sources), self._kept
        found = {s: kept.pop((s, depth)) for s in distinct if (s, depth) in kept}
        found |= self._run([s for s in distinct if s not in found], depth)
        kept.update(((source, depth), one) for source, one in found.items())
        while len(kept) > self._capacity:
            kept.popitem(last=False)
        return [found[source] for source in sources]

    def _run(self, sources: Sequence[str], depth: int) -> dict[str, _Kept]:
        if not sources:
            return {}
        ids = [[*self._base.vocabulary.encode(source), EOS] for source in sources]
        lengths = [len(one) for one in ids]
        starts = np.cumsum([0, *lengths])
        x = self._table[[token for one in ids for token in one]]
        x = x * np.float32(math.sqrt(self._base.config.d_model))
        low = min(LAYERS, self._base.config.encoder_layers)
        none: Floats = np.zeros((len(ids), 0), np.float32)
        features = none
        if depth >= low:
            x = self._learner.encode(x, lengths, 0, low)
            features = np.maximum.reduceat(x, starts[:-1])
        x = self._learner.encode(x, lengths, min(low, depth), depth) if depth > low else x
        if 0 < depth < low:
            x = self._learner.encode(x, lengths, 0, depth)
        states = np.split(x, starts[1:-1])
        return {
            s: _Kept(one.copy(), f) for s, one, f in zip(sources, states, features, strict=True)
        }


def _projections(model: EdgeFormer) -> list[tuple[Site, str]]:
    """All of them, as they follow each other in the network (`study.h`)."""
    return [(site, part) for site in model.sites.values() for part in site.parts]


def _in_order(model: EdgeFormer) -> list[Tensor]:
    """A gain a sub-layer and its matrices with their biases; the last gains are those of the stacks."""
    norms = model.norms
    assert isinstance(norms, PreNorm)
    found: list[Tensor] = []
    for name, site in model.sites.items():
        found.append(norms.gain(name.rstrip("12") if site.kind == "ffn" else name))
        for part in site.parts:
            found += [model.matrix(name, part), model.bias(name, part)]
    return [*found, norms.gain("encoder.out"), norms.gain("decoder.out")]


def _places(site: Site, part: str, at: dict[str, int]) -> list[int]:
    """Where a projection's calibration lies, -1 where it has none."""
    scale, shift, hidden = (f"{site.name}.{name}" for name in FACTORS[part])
    names = (f"{site.name}.{part}.a", f"{site.name}.{part}.b", scale, shift, hidden)
    return [at.get(name, -1) for name in names]


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
