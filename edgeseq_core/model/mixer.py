"""Token mixers: how the tokens of one sequence see each other.

A mixer works on heads and has no parameters of its own: queries, keys, values and the output are
projected by the site that it stands in, so matrices are shared and calibrated the same whatever mixes.

Shapes: B rows, H heads, G heads of keys and values (G divides H), N tokens, C = width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.positions import Positions


class State(Protocol):
    """What a mixer remembers of the tokens it has seen."""

    def select(self, rows: Tensor) -> None:
        """Let each row go on from what ``rows [B]`` names."""


class TokenMixer(Protocol):
    """Mixes queries ``[B, H, N, C]`` with keys and values ``[B, G, N, C]`` into ``[B, H, N, C]``."""

    def both_ways(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        """Every token sees every token that is ``real [B, N]``: an encoder's use."""

    def onward(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> Tensor:
        """Each token sees itself and what came before it: a decoder's use.

        With a state, the N tokens come after those that it remembers, and are remembered too.  All
        tokens at once give what one after the other would.
        """

    def new_state(self, rows: int, max_tokens: int, like: Tensor) -> State:
        """No tokens seen yet, on the device of ``like``."""


@dataclass
class KeysAndValues:
    """Attention's state: keys and values of the tokens so far."""

    keys: Tensor  # [B, G, max_tokens, C]
    values: Tensor
    length: int = 0

    def select(self, rows: Tensor) -> None:
        for kept in (self.keys, self.values):
            kept[:, :, : self.length] = kept[rows, :, : self.length]


class SoftmaxAttention:
    """Softmax attention; with fewer heads of keys and values than of queries, each serves several.

    Source: grouped-query attention (Ainslie et al. 2023, arXiv 2305.13245), multi-query (Shazeer 2019,
    arXiv 1911.02150) at one head.

    Only what a state has room for depends on the ``group`` of matrices that it stands in.
    """

    def __init__(self, config: ModelConfig, positions: Positions, group: int = 0) -> None:
        self._positions, self._grouped = positions, config.kv_heads != config.heads
        self._shape = config.kv_width(group) // config.head_width, config.head_width

    def both_ways(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        k = self._positions.turn(k, 0)
        return self.attend(q, k, v, real[:, None, None, :], start=0, unplaced=0)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, start: int, unplaced: int
    ) -> Tensor:
        """Queries from ``start`` on see other keys (turned) and values as ``mask [B, 1, 1, S]`` lets them.

        It is True where they do, or a number that is added to the scores.  The first ``unplaced`` keys
        have no place.
        """
        q = self._positions.turn(q, start)
        mask = self._positions.mask(mask, q.shape[2], start=start, unplaced=unplaced)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self._grouped)

    def onward(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> Tensor:
        assert isinstance(state, KeysAndValues | None)
        start, new = (state.length, q.shape[2]) if state else (0, q.shape[2])
        q, k = self._positions.turn(q, start), self._positions.turn(k, start)
        if state:
            state.length = end = start + new
            state.keys[:, :, start:end] = k
            state.values[:, :, start:end] = v
            k, v = state.keys[:, :, :end], state.values[:, :, :end]
        mask = self._positions.causal(new, start)
        return F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=mask is None and new > 1, enable_gqa=self._grouped
        )

    def new_state(self, rows: int, max_tokens: int, like: Tensor) -> KeysAndValues:
        heads, width = self._shape
        keys, values = (like.new_empty(rows, heads, max_tokens, width) for _ in "kv")
        return KeysAndValues(keys, values)


class PrefixedAttention(SoftmaxAttention):
    """Attention with learned keys and values ``[L, G C]`` in front of the sequence's own (Prefix-LA)."""

    def __init__(
        self, config: ModelConfig, positions: Positions, keys: Tensor, values: Tensor
    ) -> None:
        super().__init__(config, positions)
        self._keys, self._values = keys, values

    def both_ways(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        rows, length = q.shape[0], self._keys.shape[0]
        front_k, front_v = (
            front.view(length, k.shape[1], -1).transpose(0, 1).expand(rows, -1, -1, -1)
            for front in (self._keys, self._values)
        )
        k, v = torch.cat([front_k, self._positions.turn(k, 0)], 2), torch.cat([front_v, v], 2)
        visible = torch.cat([real.new_ones(rows, length), real], 1)[:, None, None, :]
        return self.attend(q, k, v, visible, start=0, unplaced=length)


@dataclass
class Sums:
    """Retention's state: a fading sum of key-value products, of one size whatever has been seen."""

    products: Tensor  # [B, H, C, C]

    def select(self, rows: Tensor) -> None:
        self.products = self.products[rows]


class Retention:
    """A linear recurrence with a decay a head: ``S_n = g S_(n-1) + k_n v_n``, ``o_n = q_n S_n``.

    Decays depend on a head's number alone, not on how many there are, so that heads can be added.

    Source: RetNet (Sun et al. 2023, arXiv 2307.08621, section 2.1) in its chunkwise form, of which the
    parallel and the recurrent form are the two ends; faster decays, since texts here are short.  Both
    ways, a token's weight fades with its distance.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._heads, self._width = config.heads, config.head_width
        self._log_decay = (1 - 2.0 ** -(1 + torch.arange(config.heads) % 8)).log()  # [H]
        self._scale = config.head_width**-0.5

    def both_ways(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        k, v = self._spread(k), self._spread(v)
        at = torch.arange(q.shape[2], device=q.device)
        weight = q @ k.transpose(2, 3) * self._scale * self._decay((at[:, None] - at).abs())
        return _normed(weight * real[:, None, None, :] @ v)

    def onward(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> Tensor:
        assert isinstance(state, Sums | None)
        k, v = self._spread(k), self._spread(v)
        at = torch.arange(q.shape[2], device=q.device)
        past = at[:, None] - at
        out = (q @ k.transpose(2, 3) * self._decay(past.clamp(min=0)).tril() * self._scale) @ v
        if state:
            out = out + (q * self._decay(at[:, None] + 1) * self._scale) @ state.products
            fading = k * self._decay(len(at) - 1 - at[:, None])
            kept = state.products * self._decay(torch.tensor([[len(at)]], device=q.device))
            state.products = kept + fading.transpose(2, 3) @ v
        return _normed(out)

    def new_state(self, rows: int, _max_tokens: int, like: Tensor) -> Sums:
        return Sums(like.new_zeros(rows, self._heads, self._width, self._width))

    def _decay(self, steps: Tensor) -> Tensor:
        """Decay ``[H, ...]`` over a number of steps ``[...]`` (two dimensions)."""
        return (self._log_decay.to(steps.device)[:, None, None] * steps).exp()

    def _spread(self, x: Tensor) -> Tensor:
        """One head of keys or values for each of queries, ``[B, G, N, C] -> [B, H, N, C]``."""
        return x.repeat_interleave(self._heads // x.shape[1], 1)


def _normed(x: Tensor) -> Tensor:
    """Each head brought to unit size: sums grow with the length, a softmax's mean does not."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)
