"""Layer adaptation: the small part that lets layers which share their matrices differ.

Source: EdgeFormer (arXiv 2202.07959, section 3.3): Bias-LA, Adapter-LA, Prefix-LA.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.mixer import PrefixedAttention, TokenMixer
from edgeseq_core.model.positions import Positions
from edgeseq_core.model.sites import Site, key

PREFIX_SCALE = 0.02  # standard deviation of a prefix's first values


class Adaptation(Protocol):
    """What a site has of its own."""

    def owner(self, site: Site) -> str:
        """Who owns the site's biases: itself, or all that share its matrices."""

    def matrix(self, shared: Tensor, site: str, part: str) -> Tensor:
        """The site's matrix ``[out, in]`` for a part, from the shared one."""

    def mixer(self, mixer: TokenMixer, site: str) -> TokenMixer:
        """What mixes tokens at an encoder's site."""


class BiasAdaptation(nn.Module):
    """Every use of a matrix has a bias of its own (the default)."""

    def owner(self, site: Site) -> str:
        return site.name

    def matrix(self, shared: Tensor, _site: str, _part: str) -> Tensor:
        return shared

    def mixer(self, mixer: TokenMixer, _site: str) -> TokenMixer:
        return mixer


class AdapterAdaptation(nn.Module):
    """``W + B A`` on queries and values of each encoder layer, zero at first; biases are shared."""

    def __init__(self, config: ModelConfig, sites: Iterable[Site]) -> None:
        super().__init__()
        rank = config.adaptation_size
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for site in encoder_attentions(sites):
            for part in "qv":
                rows, columns = site.shapes[part]
                name = key(site.name, part)
                self.a[name] = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
                self.b[name] = nn.Parameter(torch.zeros(rows, rank))

    def owner(self, site: Site) -> str:
        return site.group

    def matrix(self, shared: Tensor, site: str, part: str) -> Tensor:
        name = key(site, part)
        return torch.addmm(shared, self.b[name], self.a[name]) if name in self.a else shared

    def mixer(self, mixer: TokenMixer, _site: str) -> TokenMixer:
        return mixer


class PrefixAdaptation(nn.Module):
    """Learned keys and values in front of each encoder layer's own; biases are shared."""

    def __init__(self, config: ModelConfig, sites: Iterable[Site], positions: Positions) -> None:
        super().__init__()
        self._config, self._positions = config, positions
        self.keys, self.values = nn.ParameterDict(), nn.ParameterDict()
        for site in encoder_attentions(sites):
            for states, part in ((self.keys, "k"), (self.values, "v")):
                shape = config.adaptation_size, site.shapes[part][0]
                states[key(site.name, part)] = nn.Parameter(torch.randn(shape) * PREFIX_SCALE)

    def owner(self, site: Site) -> str:
        return site.group

    def matrix(self, shared: Tensor, _site: str, _part: str) -> Tensor:
        return shared

    def mixer(self, _mixer: TokenMixer, site: str) -> TokenMixer:
        keys, values = self.keys[key(site, "k")], self.values[key(site, "v")]
        return PrefixedAttention(self._config, self._positions, keys, values)


def encoder_attentions(sites: Iterable[Site]) -> list[Site]:
    return [s for s in sites if s.kind == "attention" and s.name.startswith("encoder")]
