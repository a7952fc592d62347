"""Where a base uses its matrices, and what the network asks of a task's weights.

A **site** is one use of a shared group of matrices.  A calibration changes a base site by site, so
whatever is a site can be calibrated, merged, gathered and stored without code of its own.

Shapes: B rows, N or T tokens, K task tokens, V symbols, D = d_model, C = width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from edgeseq_core.model.config import ModelConfig
from edgeseq_core.model.layout import Layout

Kind = Literal["attention", "ffn", "copy", "bands"]
COPY_SITE = "decoder.copy"
BANDS_SITE = "decoder.bands"


@dataclass(frozen=True)
class Site:
    """One use of a shared group of matrices: an attention, an FFN, the copy gate or the tails."""

    name: str
    kind: Kind
    group: str  # which matrices it borrows
    shapes: Mapping[str, tuple[int, int]]  # [out, in] of each part's matrix

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.shapes)


def sites(config: ModelConfig) -> list[Site]:
    """Every site in the order in which a pair flows through them."""
    out: list[Site] = []
    for layer in range(config.encoder_layers):
        attention, ffn = layer % config.attention_groups, layer % config.ffn_groups
        name = f"encoder.{layer}"
        out.append(_attention(f"{name}.self", attention, config))
        out.append(_ffn(f"{name}.ffn", f"ffn{ffn}", config.encoder_width(ffn), config))
    for layer in range(config.decoder_layers):
        name, small, width = f"decoder.{layer}", f"small{layer}", config.decoder_width(layer)
        out.append(_attention(f"{name}.self", 2 * layer, config))
        out.append(_ffn(f"{name}.ffn1", small, width, config))
        out.append(_attention(f"{name}.cross", 2 * layer + 1, config))
        out.append(_ffn(f"{name}.ffn2", small, width, config))
    if config.output == "copy":
        c, d = config.head_width, config.d_model
        out.append(Site(COPY_SITE, "copy", "copy", {"q": (c, d), "k": (c, d), "gate": (1, d)}))
    if config.bands:
        out.append(
            Site(BANDS_SITE, "bands", "bands", {"tails": (len(config.bands), config.d_model)})
        )
    return [site for site in out if site.shapes.get("up") != (0, config.d_model)]


def _attention(name: str, group: int, config: ModelConfig) -> Site:
    d, width, kv = config.d_model, config.attention_width(group), config.kv_width(group)
    shapes = {"q": (width, d), "k": (kv, d), "v": (kv, d), "o": (d, width)}
    return Site(name, "attention", f"attention{group}", shapes)


def _ffn(name: str, group: str, hidden: int, config: ModelConfig) -> Site:
    d = config.d_model
    return Site(name, "ffn", group, {"up": (hidden, d), "down": (d, hidden)})


def key(site: str, part: str) -> str:
    """The name of a site's own parameter for a part; a ParameterDict's keys may hold no dot."""
    return f"{site}.{part}".replace(".", "_")


class Weights(Protocol):
    """What the network needs to know of a task.

    Implemented in `calibrated_weights`, `learning_weights` and `BaseWeights`.
    """

    def project(self, x: Tensor, site: str, part: str) -> Tensor:
        """One projection, ``[B, N, in] -> [B, N, out]``."""

    def own_inputs(self, sources: Sequence[str]) -> Tensor | None:
        """What tasks add to the embeddings of sources' tokens, ``[B, S, D]``, unscaled; None: nothing."""

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings of target tokens, ``[B, T] -> [B, T, D]``, unscaled."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all symbols, ``[B, T, D] -> [B, T, V + own]``."""

    def task(self, rows: int) -> tuple[Tensor, Tensor]:
        """Task tokens ``[B, K, D]`` and task vector ``[B, 1, D]``; B is 1 where all rows have the same."""

    def task_scores(self, rows: int) -> Tensor:
        """What is added to the attention scores of task tokens, ``[B, K]``; -inf where there is none."""

    def layout(self, real: Tensor) -> Layout:
        """How tokens, ``real [B, N]`` or padding, are laid out for `project`."""

    @property
    def frozen_layers(self) -> int:
        """How many of the lowest encoder layers are the base's own."""
